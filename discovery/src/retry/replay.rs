//! The request's body, kept so that another attempt can send it again.
//!
//! A unary call's message is in hand as soon as the call begins: it is read whole, up to the replay
//! limit, and every attempt sends the same bytes without copying them. A body that is longer or not
//! all there yet can be sent once; it is lost to later attempts from the first frame on that a
//! connection takes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;

use crate::{
    BoxError,
    connection::{RequestBody, body::OneShot},
};

/// What a caller's body turned out to be.
pub(crate) enum Replay {
    /// All of it, to be sent as often as needed.
    Whole(Bytes),
    /// Longer than the replay limit, but the caller had it ready: a large message.
    Large(Arc<OneShot>),
    /// Not all there when the call began: the caller is streaming.
    Streaming(Arc<OneShot>),
}

impl Replay {
    /// Reads what is ready of `body`, at most `limit` bytes. Never waits; the
    /// attempt that sends the body polls again for what is not ready.
    pub(crate) fn read<B>(body: B, limit: usize) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = body.map_err(Into::into).boxed_unsync();
        let mut prefix = Prefix::default();
        let mut cx = Context::from_waker(Waker::noop());
        let streaming = loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => break true,
                Poll::Ready(None) => return Self::Whole(prefix.into_bytes()),
                Poll::Ready(Some(frame)) => {
                    if !prefix.push(frame) || prefix.len > limit {
                        break false;
                    }
                }
            }
        };
        let rest = Arc::new(OneShot::new(prefix.frames, body));
        if streaming {
            Self::Streaming(rest)
        } else {
            Self::Large(rest)
        }
    }

    /// The body for one more attempt, if there can be one.
    pub(crate) fn attempt(&self) -> Option<RequestBody> {
        match self {
            Self::Whole(bytes) => Some(RequestBody::whole(bytes.clone())),
            Self::Large(rest) | Self::Streaming(rest) => {
                (!rest.is_touched()).then(|| RequestBody::one_shot(Arc::clone(rest)))
            }
        }
    }

    /// Whether the caller is still producing the request.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self, Self::Streaming(_))
    }
}

#[derive(Default)]
struct Prefix {
    frames: Vec<Result<Frame<Bytes>, BoxError>>,
    len: usize,
}

impl Prefix {
    /// Keeps a frame; false when what came cannot be replayed as plain bytes.
    fn push(&mut self, frame: Result<Frame<Bytes>, BoxError>) -> bool {
        let plain = match &frame {
            Ok(frame) => frame.data_ref().map(Bytes::len),
            Err(_) => None,
        };
        self.frames.push(frame);
        self.len += plain.unwrap_or(0);
        plain.is_some()
    }

    fn into_bytes(self) -> Bytes {
        let mut data = self
            .frames
            .into_iter()
            .filter_map(|frame| frame.ok()?.into_data().ok());
        let first = data.next().unwrap_or_default();
        let Some(second) = data.next() else {
            return first;
        };
        let mut joined = BytesMut::with_capacity(self.len);
        joined.extend_from_slice(&first);
        joined.extend_from_slice(&second);
        data.for_each(|part| joined.extend_from_slice(&part));
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn frames(parts: &[&'static str]) -> Vec<Result<Frame<Bytes>, BoxError>> {
        parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect()
    }

    async fn text(body: RequestBody) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_whole_message_is_sent_again_as_often_as_needed() {
        let body = Full::new(Bytes::from_static(b"message"));
        let replay = Replay::read(body, 7);
        for _ in 0..3 {
            assert_eq!(text(replay.attempt().unwrap()).await, "message");
        }
        let parts = StreamBody::new(stream::iter(frames(&["a", "b", "c"])));
        let replay = Replay::read(parts, 7);
        for _ in 0..2 {
            assert_eq!(text(replay.attempt().unwrap()).await, "abc");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_sent_once_and_whole() {
        let parts = StreamBody::new(stream::iter(frames(&["1234", "5678", "9"])));
        let replay = Replay::read(parts, 7);
        assert!(!replay.is_streaming());
        let unused = replay.attempt().unwrap();
        drop(unused);
        assert_eq!(text(replay.attempt().unwrap()).await, "123456789");
        assert!(replay.attempt().is_none());
    }

    #[tokio::test]
    async fn a_body_still_being_made_is_streamed() {
        let later = stream::once(async {
            tokio::task::yield_now().await;
            frames(&["later"]).remove(0)
        });
        let parts = StreamBody::new(stream::iter(frames(&["now "])).chain(later));
        let replay = Replay::read(parts, 1024);
        assert!(replay.is_streaming());
        assert_eq!(text(replay.attempt().unwrap()).await, "now later");
        assert!(replay.attempt().is_none());
    }
}
