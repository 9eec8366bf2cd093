//! Frames of a stream of bytes.

use bytes::{Buf as _, Bytes, BytesMut};

use super::reader::Malformed;

/// Size limit of one answer. The longest is a list of children: about 200 000 instances.
const LIMIT: usize = 16 << 20;

/// Takes the first frame, without its length, off the bytes received. `None`: it is not complete.
///
/// # Errors
///
/// When the frame's length is negative or over the limit. A server of another protocol is found so.
pub(in super::super) fn take_frame(received: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = received.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length))
        .ok()
        .filter(|&length| length <= LIMIT)
        .ok_or(Malformed("not a frame of ZooKeeper, or one over 16 MiB"))?;
    if received.len() < 4 + length {
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_once_it_is_complete() {
        let mut received = BytesMut::new();
        for byte in [0, 0, 0, 2, b'a'] {
            received.extend_from_slice(&[byte]);
            assert_eq!(take_frame(&mut received), Ok(None));
        }
        received.extend_from_slice(&[b'b', 0, 0]);
        assert_eq!(
            take_frame(&mut received),
            Ok(Some(Bytes::from_static(b"ab")))
        );
        assert_eq!(received, [0, 0][..]);
    }

    #[test]
    fn another_protocol_is_an_error() {
        for start in [
            &b"HTTP/1.1 400 Bad Request"[..],
            &[0x80, 0, 0, 0],
            &[1, 0, 0, 1],
        ] {
            assert!(take_frame(&mut start.into()).is_err(), "{start:?} was read");
        }
    }
}
