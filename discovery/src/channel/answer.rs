//! Reads the answer to one attempt as far as it is held back: its head, and its first message.

use std::{collections::VecDeque, pin::Pin, task::Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, response::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use super::size_limit::{SizeLimit, TooLong};
use crate::{
    BoxError,
    code::Code,
    connection::{SendError, TransportBody, body::CallerError},
    protocol::{Head, Message as _, Protocol, Reply},
};

/// The reason why a response that ends without trailers is not complete.
pub(super) const NO_STATUS: &str = "the response ended without a status";

/// A body of at most this length is read to its end before the response is handed out, so that another
/// attempt can replace it if it breaks off.
const SHORT_BODY: usize = 64 << 10;

/// An answer, as far as it was read.
pub(super) enum Answer {
    /// A response to hand out. The code is known if its end was read.
    Message {
        read: VecDeque<Frame<Bytes>>,
        rest: Option<TransportBody>,
        code: Option<Code>,
    },
    /// A status without a message.
    Status {
        code: Code,
        /// True if the server does not have the method.
        wrong_server: bool,
        read: VecDeque<Frame<Bytes>>,
        details: HeaderMap,
    },
    /// A status with a body of its own.
    Reply {
        reply: Reply,
        read: VecDeque<Frame<Bytes>>,
        rest: Option<TransportBody>,
    },
}

impl Answer {
    /// The status that ends it, if it was read.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Message { code, .. } => *code,
            Self::Status { code, .. } => Some(*code),
            Self::Reply { reply, .. } => Some(reply.code),
        }
    }
}

/// The reason why an attempt has no answer.
pub(super) enum AttemptError {
    /// The server did not begin to process the request.
    Unprocessed(BoxError),
    /// The connection or the stream ended after the request was sent.
    Broken(BoxError),
    /// The attempt's time was over.
    Timeout,
    /// The caller ended its request.
    Caller(CallerError),
    /// A message of the response is longer than the method's limit.
    TooLong(TooLong),
}

impl AttemptError {
    /// The end of a body before its first message was whole.
    fn of_body(error: BoxError) -> Self {
        match TooLong::of(&*error) {
            Some(error) => Self::TooLong(error),
            None => Self::Broken(error),
        }
    }
}

/// Reads the answer up to the end of its first message of at most `hold` bytes; only its head where
/// `hold` is `None`. Its messages may be as long as `max`.
pub(super) async fn read<P: Protocol>(
    response: impl Future<Output = Result<Response<TransportBody>, SendError>>,
    hold: Option<usize>,
    max: Option<usize>,
) -> Result<(Parts, Answer), AttemptError> {
    let response = response.await.map_err(|error| {
        if error.never_processed {
            AttemptError::Unprocessed(error.source)
        } else {
            AttemptError::Broken(error.source)
        }
    })?;
    let (mut parts, mut body) = response.into_parts();
    if let Some(max) = max {
        body = SizeLimit::<_, P::Message>::new(body, max).boxed_unsync();
    }
    let head = P::head(&mut parts);
    let answer = match (head, hold) {
        (Head::Status(code) | Head::WrongServer(code), _) => Answer::Status {
            code,
            wrong_server: matches!(head, Head::WrongServer(_)),
            read: VecDeque::new(),
            details: parts.headers.clone(),
        },
        (Head::Open, Some(limit)) => first_message::<P>(body, limit).await?,
        (Head::Open, None) => Answer::Message {
            read: VecDeque::new(),
            rest: Some(body),
            code: None,
        },
        (Head::Reply(reply), hold) => with_body(reply, body, hold).await?,
    };
    Ok((parts, answer))
}

/// Reads the body of a reply if it is short.
async fn with_body(
    reply: Reply,
    mut body: TransportBody,
    hold: Option<usize>,
) -> Result<Answer, AttemptError> {
    let mut read = VecDeque::new();
    let length = reply.length.and_then(|length| usize::try_from(length).ok());
    let is_short = |length: &usize| hold.is_some_and(|limit| *length <= limit.min(SHORT_BODY));
    let Some(length) = length.filter(is_short) else {
        let rest = (!body.is_end_stream()).then_some(body);
        return Ok(Answer::Reply { reply, read, rest });
    };
    let mut received = 0;
    while received <= length {
        match body.frame().await {
            None => {
                let rest = None;
                return Ok(Answer::Reply { reply, read, rest });
            }
            Some(Err(error)) => return Err(AttemptError::of_body(error)),
            Some(Ok(frame)) => {
                received += frame.data_ref().map_or(0, Bytes::len);
                read.push_back(frame);
            }
        }
    }
    let rest = Some(body);
    Ok(Answer::Reply { reply, read, rest })
}

/// Reads until the first message is whole, and its trailers if they have been received with it.
async fn first_message<P: Protocol>(
    mut body: TransportBody,
    limit: usize,
) -> Result<Answer, AttemptError> {
    let mut read = VecDeque::with_capacity(2);
    let mut message = P::Message::default();
    while !message.is_whole() && message.len() <= limit {
        match body.frame().await {
            None => return Err(AttemptError::Broken(NO_STATUS.into())),
            Some(Err(error)) => return Err(AttemptError::of_body(error)),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = P::trailers(trailers);
                    let details = trailers.clone();
                    read.push_back(frame);
                    return Ok(Answer::Status {
                        code,
                        wrong_server: false,
                        read,
                        details,
                    });
                }
                if let Some(data) = frame.data_ref() {
                    message.add(data);
                }
                read.push_back(frame);
            }
        }
    }
    // One more poll without waiting: a unary answer ends here.
    let next = std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        })
    });
    let (rest, code) = match next.await {
        Some(Some(Ok(frame))) => {
            let code = frame.trailers_ref().map(P::trailers);
            read.push_back(frame);
            (code.is_none().then_some(body), code)
        }
        Some(Some(Err(error))) => return Err(AttemptError::of_body(error)),
        Some(None) => return Err(AttemptError::Broken(NO_STATUS.into())),
        None => (Some(body), None),
    };
    Ok(Answer::Message { read, rest, code })
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;
    use crate::{BoxError, grpc::Grpc};

    #[allow(clippy::unnecessary_wraps)]
    fn data(bytes: &'static [u8]) -> Option<Frame<Bytes>> {
        Some(Frame::data(Bytes::from_static(bytes)))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn status(code: i32) -> Option<Frame<Bytes>> {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        Some(Frame::trailers(trailers))
    }

    /// Looks at these frames; `None` is a reset.
    async fn look(frames: Vec<Option<Frame<Bytes>>>) -> Result<Answer, AttemptError> {
        let frames = frames
            .into_iter()
            .map(|frame| frame.ok_or_else(|| BoxError::from("reset")));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        first_message::<Grpc>(body, 1024).await
    }

    #[tokio::test]
    async fn a_message_and_its_trailers_are_an_answer() {
        let frames = vec![data(&[0, 0, 0]), data(&[0, 2, 1]), data(&[1]), status(0)];
        let Ok(Answer::Message { read, rest, code }) = look(frames).await else {
            panic!("no message");
        };
        assert_eq!(
            (read.len(), rest.is_none(), code),
            (4, true, Some(Code::Ok))
        );
    }

    #[tokio::test]
    async fn trailers_without_a_message_are_a_status() {
        let Ok(Answer::Status { code, .. }) = look(vec![status(14)]).await else {
            panic!("no status");
        };
        assert_eq!(code, Code::Unavailable);
    }

    #[tokio::test]
    async fn an_end_without_trailers_is_no_answer() {
        for frames in [
            vec![],
            vec![data(&[0, 0, 0])],
            vec![data(&[0, 0, 0, 0, 1, 7])],
        ] {
            let Err(AttemptError::Broken(error)) = look(frames).await else {
                panic!("an answer");
            };
            assert_eq!(error.to_string(), NO_STATUS);
        }
    }

    #[tokio::test]
    async fn a_reset_before_the_message_is_whole_is_no_answer() {
        for frames in [
            vec![None],
            vec![data(&[0, 0, 0, 0, 9]), data(&[1, 2]), None],
            vec![data(&[0, 0, 0, 0, 1, 7]), None],
        ] {
            assert!(matches!(look(frames).await, Err(AttemptError::Broken(_))));
        }
    }
}
