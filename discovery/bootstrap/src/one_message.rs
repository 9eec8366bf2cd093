//! The request body of a gRPC method: each message must arrive in time, and a method that takes one
//! message gets one.
//!
//! tonic reads the first message of such a request and discards all others. It also waits without a
//! limit for a message whose rest does not arrive.

use std::{
    collections::HashSet,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use discovery::BoxError;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::messages::Messages;

/// The paths of the methods that take one message.
#[derive(Clone, Debug)]
pub(crate) struct UnaryMethods {
    paths: Arc<HashSet<String>>,
    /// Time for each message to arrive.
    receive: Duration,
}

impl UnaryMethods {
    /// The methods of these encoded file descriptor sets. Each message must arrive within `receive`.
    pub(crate) fn of(descriptor_sets: &[&[u8]], receive: Duration) -> Result<Self, DecodeError> {
        let mut paths = HashSet::new();
        for encoded in descriptor_sets {
            for file in FileDescriptorSet::decode(*encoded)?.file {
                let package = match file.package() {
                    "" => String::new(),
                    package => format!("{package}."),
                };
                for service in &file.service {
                    let methods = service.method.iter().filter(|m| !m.client_streaming());
                    paths.extend(
                        methods.map(|m| format!("/{package}{}/{}", service.name(), m.name())),
                    );
                }
            }
        }
        Ok(Self {
            paths: Arc::new(paths),
            receive,
        })
    }

    /// The body of a request to `path`, which may have one message if the method takes one.
    pub(crate) fn checked<B>(&self, path: &str, body: B) -> OneMessage<B> {
        OneMessage {
            body,
            check: Check {
                messages: Messages::default(),
                takes_one: self.paths.contains(path),
                receive: self.receive,
                limit: None,
            },
        }
    }
}

#[derive(Debug)]
struct Check {
    messages: Messages,
    takes_one: bool,
    receive: Duration,
    /// The message that is waited for, and its limit. It starts with the first wait: most messages
    /// arrive as a whole and need no timer.
    limit: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Check {
    /// Counts `bytes`. False if they go beyond the one message.
    fn received(&mut self, bytes: &[u8]) -> bool {
        self.messages.follow(bytes, |_| {});
        !self.takes_one || self.messages.begun() <= 1
    }

    /// Ready if the client has not sent in time what it has begun.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        // A client that streams its messages may pause between them.
        if !self.takes_one && !self.messages.is_incomplete() {
            return Poll::Pending;
        }
        // Of one message, the first byte and the end of the request have the same limit.
        let message = if self.takes_one {
            0
        } else {
            self.messages.begun()
        };
        let (awaited, limit) = self
            .limit
            .get_or_insert_with(|| (message, Box::pin(sleep(self.receive))));
        if *awaited != message {
            *awaited = message;
            limit.as_mut().reset(Instant::now() + self.receive);
        }
        limit.as_mut().poll(cx).map(|()| {
            let limit = self.receive;
            Status::deadline_exceeded(format!("the request did not arrive within {limit:?}"))
        })
    }
}

pin_project! {
    /// Fails with a status if a message does not arrive in time, or is the second of one.
    pub(crate) struct OneMessage<B> {
        #[pin]
        body: B,
        check: Check,
    }
}

impl<B> Body for OneMessage<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Poll::Ready(frame) = this.body.poll_frame(cx) else {
            let late = ready!(this.check.poll_limit(cx));
            return Poll::Ready(Some(Err(late.into())));
        };
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
            && !this.check.received(bytes)
        {
            let error = Status::invalid_argument("the request has more than one message");
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVE: Duration = Duration::from_secs(30);

    /// A body whose rest does not arrive.
    struct Stalled;

    impl Body for Stalled {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_fails() {
        let methods = UnaryMethods::of(&[proto::FILE_DESCRIPTOR_SET], RECEIVE).unwrap();
        let begun = Instant::now();
        let mut body = methods.checked("/pb.Add/Sum", Stalled);
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let error = frame.unwrap().unwrap_err();
        let status = error.downcast_ref::<Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(begun.elapsed(), RECEIVE);

        let mut stream = methods.checked("/pb.Other/Stream", Stalled);
        let frame = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_frame(cx));
        let waited = tokio::time::timeout(RECEIVE * 10, frame).await;
        assert!(waited.is_err(), "a stream of requests may pause");

        for (beginning, limit) in [(&b"\0"[..], RECEIVE), (b"\0\0\0\0\x05half", RECEIVE)] {
            let mut stream = methods.checked("/pb.Other/Stream", Stalled);
            assert!(stream.check.received(beginning));
            let begun = Instant::now();
            let frame = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_frame(cx)).await;
            assert!(frame.unwrap().is_err(), "a message may not");
            assert_eq!(begun.elapsed(), limit);
        }
    }

    #[test]
    fn only_bytes_beyond_the_first_message_are_refused() {
        let message = b"\0\0\0\0\x03abc";
        let empty = b"\0\0\0\0\0";
        let methods = UnaryMethods::of(&[proto::FILE_DESCRIPTOR_SET], RECEIVE).unwrap();
        let check = || methods.checked("/pb.Add/Sum", ()).check;
        for size in 1..=message.len() {
            let mut check = check();
            assert!(
                message.chunks(size).all(|part| check.received(part)),
                "{size}"
            );
            assert!(check.received(b""), "{size}");
            assert!(!check.received(b"\0"), "{size}");
        }
        let mut one = check();
        assert!(one.received(empty));
        assert!(!one.received(empty));
        assert!(!check().received(&[&empty[..], message].concat()));
        let longest = [&[0, 255, 255, 255, 255][..], &[1; 100]].concat();
        assert!(check().received(&longest));
    }

    #[test]
    fn methods_with_a_stream_of_requests_are_not_checked() {
        let sets = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut paths: Vec<_> = UnaryMethods::of(&sets, RECEIVE)
            .unwrap()
            .paths
            .iter()
            .cloned()
            .collect();
        paths.sort();
        assert_eq!(
            paths,
            [
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/pb.Add/Concat",
                "/pb.Add/Sum",
                "/pb.Trim/TrimSpace"
            ]
        );
    }
}
