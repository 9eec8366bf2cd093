//! The request body of a method that takes one message.
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
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// A client must send the whole request within this time, from the first wait for it on.
const RECEIVE: Duration = Duration::from_secs(30);
/// Bytes before each message: the compression flag and the length.
const PREFIX: usize = 5;

/// The paths of the methods that take one message.
#[derive(Clone, Debug)]
pub(crate) struct UnaryMethods(Arc<HashSet<String>>);

impl UnaryMethods {
    /// The methods of these encoded file descriptor sets.
    pub(crate) fn of(descriptor_sets: &[&[u8]]) -> Result<Self, DecodeError> {
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
        Ok(Self(Arc::new(paths)))
    }

    /// The body of a request to `path`, checked if the method takes one message.
    pub(crate) fn checked<B>(&self, path: &str, body: B) -> OneMessage<B> {
        OneMessage {
            body,
            check: self.0.contains(path).then(Check::default),
        }
    }
}

/// The part of the message that has arrived.
#[derive(Debug, Default)]
struct Received {
    prefix: [u8; PREFIX],
    prefix_bytes: usize,
    message_bytes: usize,
}

impl Received {
    /// Adds `bytes`. False if they go beyond the first message.
    fn add(&mut self, bytes: &[u8]) -> bool {
        let count = bytes.len().min(PREFIX - self.prefix_bytes);
        let (prefix, message) = bytes.split_at(count);
        self.prefix[self.prefix_bytes..][..count].copy_from_slice(prefix);
        self.prefix_bytes += count;
        self.message_bytes += message.len();
        let [_flag, length @ ..] = self.prefix;
        message.is_empty() || self.message_bytes as u64 <= u32::from_be_bytes(length).into()
    }
}

#[derive(Debug, Default)]
struct Check {
    received: Received,
    /// Starts with the first wait: most requests arrive as a whole and need no timer.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Check {
    /// Ready if the client has not sent the request in time.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(RECEIVE)));
        limit.as_mut().poll(cx).map(|()| {
            let seconds = RECEIVE.as_secs();
            Status::deadline_exceeded(format!("the request did not arrive within {seconds} s"))
        })
    }
}

pin_project! {
    /// Fails with a status if the request has a second message or does not arrive in time.
    pub(crate) struct OneMessage<B> {
        #[pin]
        body: B,
        // `None` for a stream of messages.
        check: Option<Check>,
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
            let Some(check) = this.check else {
                return Poll::Pending;
            };
            let late = ready!(check.poll_limit(cx));
            return Poll::Ready(Some(Err(late.into())));
        };
        if let (Some(check), Some(Ok(frame))) = (this.check, &frame)
            && let Some(bytes) = frame.data_ref()
            && !check.received.add(bytes)
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
        let methods = UnaryMethods::of(&[proto::FILE_DESCRIPTOR_SET]).unwrap();
        let begun = tokio::time::Instant::now();
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
    }

    #[test]
    fn only_bytes_beyond_the_first_message_are_refused() {
        let message = b"\0\0\0\0\x03abc";
        let empty = b"\0\0\0\0\0";
        for size in 1..=message.len() {
            let mut received = Received::default();
            assert!(
                message.chunks(size).all(|part| received.add(part)),
                "{size}"
            );
            assert!(received.add(b""), "{size}");
            assert!(!received.add(b"\0"), "{size}");
        }
        let mut received = Received::default();
        assert!(received.add(empty));
        assert!(!received.add(empty));
        assert!(!Received::default().add(&[&empty[..], message].concat()));
        let longest = [&[0, 255, 255, 255, 255][..], &[1; 100]].concat();
        assert!(Received::default().add(&longest));
    }

    #[test]
    fn methods_with_a_stream_of_requests_are_not_checked() {
        let sets = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let mut paths: Vec<_> = UnaryMethods::of(&sets).unwrap().0.iter().cloned().collect();
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
