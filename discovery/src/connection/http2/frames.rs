//! The position in a sequence of HTTP/2 frames that is read in arbitrary parts (RFC 9113, 4.1).

/// The length of a frame's header, and the places of the type and the flags in it.
const HEADER: usize = 9;
const KIND: usize = 3;
const FLAGS: usize = 4;

/// Types of frames (RFC 9113, 6).
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
/// The flag of the last frame of a stream.
pub(super) const END_STREAM: u8 = 1;

/// The position, and the latest header.
#[derive(Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Number of bytes of the header that were read.
    seen: usize,
    /// Number of bytes of the payload that are still to come.
    payload: usize,
}

impl Frames {
    /// Reads on from `bytes[*at]` to the end of the next header, and moves `at` there. False if the
    /// bytes end before.
    pub(super) fn next_header(&mut self, bytes: &[u8], at: &mut usize) -> bool {
        if self.seen == HEADER {
            self.seen = 0;
        }
        let skipped = self.payload.min(bytes.len() - *at);
        self.payload -= skipped;
        *at += skipped;
        // The usual case, at the cost of one copy of fixed length.
        if self.seen == 0
            && let Some(header) = bytes[*at..].first_chunk()
        {
            self.header = *header;
            self.seen = HEADER;
            *at += HEADER;
            self.payload = self.length();
            return true;
        }
        let part = (HEADER - self.seen).min(bytes.len() - *at);
        self.header[self.seen..self.seen + part].copy_from_slice(&bytes[*at..*at + part]);
        self.seen += part;
        *at += part;
        if self.seen < HEADER {
            return false;
        }
        self.payload = self.length();
        true
    }

    /// The length of the payload, as the header has it.
    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        usize::try_from(length).unwrap_or(usize::MAX)
    }

    /// The type of the current frame, once its header has been read that far.
    pub(super) fn kind(&self) -> Option<u8> {
        (self.seen > KIND).then_some(self.header[KIND])
    }

    /// The stream of the current frame, whose header has been read.
    pub(super) fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.header;
        // The highest bit is reserved.
        u32::from_be_bytes([a, b, c, d]) & (u32::MAX >> 1)
    }

    /// The flags of the header that ends before `bytes[end]`, if they are among these bytes.
    pub(super) fn flags(bytes: &mut [u8], end: usize) -> Option<&mut u8> {
        bytes.get_mut(end.checked_sub(HEADER - FLAGS)?)
    }
}
