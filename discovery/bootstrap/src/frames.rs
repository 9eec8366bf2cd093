//! Follows the frames of HTTP/2 in a stream of bytes by their headers (RFC 9113, section 4.1). Payloads
//! are skipped.

/// Size of a frame's header.
const HEAD: usize = 9;

/// Types of frames (RFC 9113, section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const CONTINUATION: u8 = 9;
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    fn read([a, b, c, kind, flags, stream @ ..]: [u8; HEAD]) -> Self {
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        }
    }

    /// True for the frames that requests and responses consist of. A DATA frame counts if it has a
    /// payload or ends its stream.
    pub(crate) fn is_useful(&self) -> bool {
        match self.kind {
            kind::HEADERS => true,
            kind::DATA => self.length > 0 || self.flags & END_STREAM != 0,
            _ => false,
        }
    }
}

/// The position in a stream of frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD],
    head_bytes: usize,
    /// Bytes of the current payload that have not arrived.
    payload: u32,
    /// True between HEADERS and the frame with its `END_HEADERS` flag.
    in_headers: bool,
    /// Complete frames; HEADERS with its CONTINUATION frames is one.
    complete: u64,
}

impl Frames {
    /// Follows `bytes`, and passes each header to `each` once it is whole.
    pub(crate) fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = bytes.len().min(self.payload as usize);
                bytes = &bytes[skipped..];
                // At most `payload`, which is an u32.
                self.payload -= u32::try_from(skipped).unwrap_or(self.payload);
                self.count_complete();
                continue;
            }
            let taken = bytes.len().min(HEAD - self.head_bytes);
            let (head, rest) = bytes.split_at(taken);
            self.head[self.head_bytes..][..taken].copy_from_slice(head);
            self.head_bytes += taken;
            bytes = rest;
            if self.head_bytes == HEAD {
                self.head_bytes = 0;
                let head = Head::read(self.head);
                self.payload = head.length;
                if matches!(head.kind, kind::HEADERS | kind::CONTINUATION) {
                    self.in_headers = head.flags & END_HEADERS == 0;
                }
                each(head);
                self.count_complete();
            }
        }
    }

    fn count_complete(&mut self) {
        self.complete += u64::from(self.payload == 0 && !self.in_headers);
    }

    /// True between two frames.
    pub(crate) fn is_between(&self) -> bool {
        self.payload == 0 && self.head_bytes == 0
    }

    /// The number of the frame of which a part has arrived, counted from zero. HEADERS is incomplete
    /// up to its `END_HEADERS` flag.
    pub(crate) fn incomplete(&self) -> Option<u64> {
        (self.in_headers || !self.is_between()).then_some(self.complete)
    }

    /// Complete frames so far.
    pub(crate) fn complete(&self) -> u64 {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_split() {
        let bytes = [
            frame(4, 0, 0, &[]),
            frame(kind::HEADERS, END_STREAM, 1, &[9; 300]),
            frame(kind::CONTINUATION, 0, 1, &[]),
            frame(kind::CONTINUATION, END_HEADERS, 1, &[1]),
            frame(kind::DATA, END_STREAM, 1 << 31 | 3, &[]),
            frame(kind::DATA, 0, 3, &[]),
        ]
        .concat();
        for size in 1..bytes.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for part in bytes.chunks(size) {
                frames.follow(part, |head| {
                    seen.push((head.kind, head.stream, head.length, head.is_useful()));
                });
            }
            assert_eq!(
                seen,
                [
                    (4, 0, 0, false),
                    (1, 1, 300, true),
                    (9, 1, 0, false),
                    (9, 1, 1, false),
                    (0, 3, 0, true),
                    (0, 3, 0, false)
                ],
                "{size}"
            );
            assert_eq!((frames.complete(), frames.incomplete()), (4, None));
            assert!(frames.is_between());
        }
    }

    #[test]
    fn headers_are_incomplete_until_their_end() {
        let mut frames = Frames::default();
        frames.follow(&frame(kind::HEADERS, 0, 1, b"x"), |_| {});
        assert_eq!(frames.incomplete(), Some(0));
        frames.follow(&frame(kind::CONTINUATION, 0, 1, b"x"), |_| {});
        assert_eq!(frames.incomplete(), Some(0));
        frames.follow(&frame(kind::CONTINUATION, END_HEADERS, 1, b"x"), |_| {});
        assert_eq!(frames.incomplete(), None);
        frames.follow(&[0, 0], |_| {});
        assert_eq!(frames.incomplete(), Some(1));
    }
}
