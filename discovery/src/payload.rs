//! The size of a stream's messages without their framing, as gRFC A66 counts it.

use crate::protocol::Message;

/// Counts the bytes of messages.
#[derive(Default)]
pub(crate) struct Payload<M> {
    message: M,
    total: u64,
}

impl<M: Message> Payload<M> {
    /// Counts received bytes. Returns the size of all messages that are complete.
    pub(crate) fn add(&mut self, mut data: &[u8]) -> u64 {
        while !data.is_empty() {
            let taken = self.message.take(data);
            data = &data[taken..];
            if self.message.is_whole() {
                // A length fits 32 bits.
                self.total += self.message.announced().unwrap_or(0) as u64;
                self.message = M::default();
            } else if taken == 0 {
                break;
            }
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::LengthPrefixed;

    #[test]
    fn messages_count_without_their_prefix_wherever_frames_end() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\0\x02de\0\0";
        for size in 1..bytes.len() {
            let mut payload = Payload::<LengthPrefixed>::default();
            let sizes = bytes.chunks(size).map(|part| payload.add(part));
            assert_eq!(sizes.last(), Some(5), "frames of {size} bytes");
        }
    }
}
