//! Follows the messages in a gRPC body: each begins with a compression flag and its length.

/// Bytes before each message.
const PREFIX: usize = 5;

/// The beginning of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) is_compressed: bool,
    pub(crate) length: u32,
}

/// The position in a body.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    prefix_bytes: usize,
    /// Bytes of the current message that have not arrived.
    rest: u32,
    /// Messages whose first byte has arrived.
    begun: u64,
}

impl Messages {
    /// Follows `bytes`, and passes each message to `each` once its length is known.
    pub(crate) fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Message)) {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = bytes.len().min(self.rest as usize);
                bytes = &bytes[skipped..];
                // At most `rest`, which is an u32.
                self.rest -= u32::try_from(skipped).unwrap_or(self.rest);
                continue;
            }
            if self.prefix_bytes == 0 {
                self.begun += 1;
            }
            let taken = bytes.len().min(PREFIX - self.prefix_bytes);
            let (prefix, more) = bytes.split_at(taken);
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(prefix);
            self.prefix_bytes += taken;
            bytes = more;
            if self.prefix_bytes == PREFIX {
                self.prefix_bytes = 0;
                let [flag, length @ ..] = self.prefix;
                self.rest = u32::from_be_bytes(length);
                each(Message {
                    is_compressed: flag != 0,
                    length: self.rest,
                });
            }
        }
    }

    /// The messages whose first byte has arrived.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// True if the last message has not arrived as a whole.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.rest > 0 || self.prefix_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_bytes_are_split() {
        let bytes = b"\0\0\0\0\x03abc\x01\0\0\0\0\0\0\0\0\x01x";
        for size in 1..=bytes.len() {
            let (mut messages, mut seen) = (Messages::default(), Vec::new());
            for part in bytes.chunks(size) {
                messages.follow(part, |message| {
                    seen.push((message.is_compressed, message.length));
                });
            }
            assert_eq!(seen, [(false, 3), (true, 0), (false, 1)], "{size}");
            assert_eq!((messages.begun(), messages.is_incomplete()), (3, false));
            messages.follow(b"\0", |_| {});
            assert_eq!((messages.begun(), messages.is_incomplete()), (4, true));
        }
    }
}
