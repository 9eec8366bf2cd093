//! Writes jute values into a frame.

/// A frame under construction.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A frame with room for its length.
    pub(super) fn frame() -> Self {
        Self { bytes: vec![0; 4] }
    }

    pub(super) fn int(mut self, value: i32) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, value: i64) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn flag(mut self, value: bool) -> Self {
        self.bytes.push(u8::from(value));
        self
    }

    pub(super) fn buffer(self, value: &[u8]) -> Self {
        let mut writer = self.int(length(value));
        writer.bytes.extend_from_slice(value);
        writer
    }

    pub(super) fn text(self, value: &str) -> Self {
        self.buffer(value.as_bytes())
    }

    /// The frame with its length filled in.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = length(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.bytes
    }
}

/// A length as jute writes it. Requests are far smaller than the maximum, see
/// [`Request::LIMIT`](super::Request::LIMIT).
fn length(bytes: &[u8]) -> i32 {
    i32::try_from(bytes.len()).unwrap_or(i32::MAX)
}
