//! The request's body, kept for further attempts.
//!
//! The message of a unary call is available when the call starts. It is read up to the replay limit,
//! and every attempt sends the same bytes without copying them. A longer body, or one that is not yet
//! complete, can be sent once: no later attempt can send it after a connection has read its first
//! frame.

use std::{
    any::Any,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

use crate::{
    BoxError,
    connection::{RequestBody, body::OneShot},
    payload::Payload,
    protocol::Message,
};

/// A request's body.
pub(crate) struct Replay {
    kind: Kind,
    unary: bool,
}

/// A body, by how often it can be sent.
enum Kind {
    /// A complete body, which every attempt can send.
    Whole(Bytes),
    /// A body above the replay limit. All that was read was available without waiting.
    Large(Arc<OneShot>),
    /// A body that was not complete when the call started: the caller is streaming.
    Streaming(Arc<OneShot>),
}

impl Replay {
    /// Reads the available part of `body`, up to the first frame beyond `limit` bytes, without
    /// waiting. The attempt that sends the body polls for the rest. `M` recognises messages.
    pub(crate) fn read<M, B>(mut body: B, limit: usize) -> Self
    where
        M: Message,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // That of a generated client has its frames on the heap already.
        if let Some(body) = (&mut body as &mut dyn Any).downcast_mut::<tonic::body::Body>() {
            return Self::read_unpin::<M, _>(mem::take(body).map_err(Into::into), limit);
        }
        Self::read_unpin::<M, _>(body.map_err(Into::into).boxed_unsync(), limit)
    }

    fn read_unpin<M, B>(mut body: B, limit: usize) -> Self
    where
        M: Message,
        B: Body<Data = Bytes, Error = BoxError> + Send + Unpin + 'static,
    {
        let mut prefix = Prefix::default();
        let mut message = M::default();
        let mut cx = Context::from_waker(Waker::noop());
        let streaming = loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => break true,
                Poll::Ready(None) => {
                    return Self {
                        kind: Kind::Whole(prefix.into_bytes()),
                        unary: message.is_whole() && !message.has_next(),
                    };
                }
                Poll::Ready(Some(frame)) => {
                    if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                        message.add(data);
                    }
                    if !prefix.push(frame) || prefix.len > limit {
                        break false;
                    }
                }
            }
        };
        let rest = Arc::new(counted::<M>(prefix.into_frames(), body.boxed_unsync()));
        if streaming {
            Self {
                kind: Kind::Streaming(rest),
                unary: false,
            }
        } else {
            Self {
                kind: Kind::Large(rest),
                unary: !message.has_next(),
            }
        }
    }

    /// The body for another attempt; `None` if it was sent and is not kept.
    pub(crate) fn attempt(&self) -> Option<RequestBody> {
        match &self.kind {
            Kind::Whole(bytes) => Some(RequestBody::whole(bytes.clone())),
            Kind::Large(rest) | Kind::Streaming(rest) => {
                (!rest.is_touched()).then(|| RequestBody::one_shot(Arc::clone(rest)))
            }
        }
    }

    /// The body, if it can be sent once only.
    pub(crate) fn one_shot(&self) -> Option<&Arc<OneShot>> {
        match &self.kind {
            Kind::Whole(_) => None,
            Kind::Large(rest) | Kind::Streaming(rest) => Some(rest),
        }
    }

    /// The size of the messages of a complete body, without their framing.
    pub(crate) fn size<M: Message>(&self) -> Option<u64> {
        match &self.kind {
            Kind::Whole(bytes) => Some(Payload::<M>::default().add(bytes)),
            Kind::Large(_) | Kind::Streaming(_) => None,
        }
    }

    /// True if the caller is still producing the request.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.kind, Kind::Streaming(_))
    }

    /// True if the request is one message, as far as it was read. A stream of several messages may
    /// be complete when the call starts.
    pub(crate) fn is_unary(&self) -> bool {
        self.unary
    }
}

/// A body that counts its messages as they are read.
fn counted<M: Message>(
    read: Vec<Result<Frame<Bytes>, BoxError>>,
    body: UnsyncBoxBody<Bytes, BoxError>,
) -> OneShot {
    let sent = Arc::new(AtomicU64::new(0));
    let mut payload = Payload::<M>::default();
    for data in read
        .iter()
        .filter_map(|frame| frame.as_ref().ok()?.data_ref())
    {
        sent.store(payload.add(data), Ordering::Relaxed);
    }
    let count = Arc::clone(&sent);
    let body = body.map_frame(move |frame| {
        if let Some(data) = frame.data_ref() {
            count.store(payload.add(data), Ordering::Relaxed);
        }
        frame
    });
    OneShot::new(read, body.boxed_unsync(), sent)
}

/// The frames read ahead.
#[derive(Default)]
struct Prefix {
    /// The data of the first frame: most bodies have no other.
    first: Option<Bytes>,
    others: Vec<Result<Frame<Bytes>, BoxError>>,
    len: usize,
}

impl Prefix {
    /// Keeps a frame. False if the body cannot be replayed as bytes, because of trailers or an error.
    fn push(&mut self, frame: Result<Frame<Bytes>, BoxError>) -> bool {
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(frame)) => {
                self.others.push(Ok(frame));
                return false;
            }
            Err(error) => {
                self.others.push(Err(error));
                return false;
            }
        };
        self.len += data.len();
        if self.first.is_none() {
            self.first = Some(data);
        } else {
            self.others.push(Ok(Frame::data(data)));
        }
        true
    }

    fn into_frames(self) -> Vec<Result<Frame<Bytes>, BoxError>> {
        let first = self.first.map(|data| Ok(Frame::data(data)));
        first.into_iter().chain(self.others).collect()
    }

    fn into_bytes(self) -> Bytes {
        let first = self.first.unwrap_or_default();
        if self.others.is_empty() {
            return first;
        }
        let mut joined = BytesMut::with_capacity(self.len);
        joined.extend_from_slice(&first);
        let others = self.others.into_iter().flatten();
        for data in others.filter_map(|frame| frame.into_data().ok()) {
            joined.extend_from_slice(&data);
        }
        joined.freeze()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::grpc::LengthPrefixed;

    fn read<B>(body: B, limit: usize) -> Replay
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Replay::read::<LengthPrefixed, B>(body, limit)
    }

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
    async fn a_complete_message_can_be_sent_any_number_of_times() {
        let body = Full::new(Bytes::from_static(b"message"));
        let replay = read(body, 7);
        for _ in 0..3 {
            assert_eq!(text(replay.attempt().unwrap()).await, "message");
        }
        let parts = StreamBody::new(stream::iter(frames(&["a", "b", "c"])));
        let replay = read(parts, 7);
        for _ in 0..2 {
            assert_eq!(text(replay.attempt().unwrap()).await, "abc");
        }
    }

    #[tokio::test]
    async fn a_body_above_the_limit_can_be_sent_once() {
        let parts = StreamBody::new(stream::iter(frames(&["1234", "5678", "9"])));
        let replay = read(parts, 7);
        assert!(!replay.is_streaming());
        let unused = replay.attempt().unwrap();
        drop(unused);
        assert_eq!(text(replay.attempt().unwrap()).await, "123456789");
        assert!(replay.attempt().is_none());
    }

    #[test]
    fn a_request_is_unary_if_it_is_one_message() {
        let one = "\0\0\0\0\u{2}ab";
        for (parts, limit, unary) in [
            (&[one][..], 1024, true),
            (&["\0\0\0\0", "\u{2}ab"], 1024, true),
            (&["\0\0\0\0\0"], 1024, true),
            (&[], 1024, false),
            (&[one, one], 1024, false),
            // Above the limit, as far as they were read.
            (&["\0\0\0\0\u{9}ab", "cdefghi"], 5, true),
            (&[one, one], 8, false),
        ] {
            let body = StreamBody::new(stream::iter(frames(parts)));
            assert_eq!(read(body, limit).is_unary(), unary, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn an_incomplete_body_is_streamed() {
        let later = stream::once(async {
            tokio::task::yield_now().await;
            frames(&["later"]).remove(0)
        });
        let parts = StreamBody::new(stream::iter(frames(&["now "])).chain(later));
        let replay = read(parts, 1024);
        assert!(replay.is_streaming());
        assert_eq!(text(replay.attempt().unwrap()).await, "now later");
        assert!(replay.attempt().is_none());
    }
}
