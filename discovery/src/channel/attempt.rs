//! One attempt: sends the request over one connection, looks at the answer as far as its first
//! message, and notes what it says about the endpoint.

use std::{collections::VecDeque, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode, response::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode;
use tokio::time::{Instant, timeout_at};

use super::{
    ServedBy,
    call::Shared,
    response::{ResponseBody, Tracker, classification},
};
use crate::{
    BoxError,
    connection::{SendError, TransportBody},
    ejection::Classification,
    endpoint::Endpoint,
    error::chain,
    grpc::{self, Code},
    retry::Failure,
};

/// A gRPC message begins with a flag and its length in four bytes.
const MESSAGE_HEADER: usize = 5;
/// A deadline that leaves an endpoint less than this many times its usual latency says nothing
/// about the endpoint when it runs out.
const FAIR_CHANCE: u32 = 4;
/// The usual latency of an endpoint that has answered nothing yet.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(10);

/// An attempt without an answer to hand out at once.
pub(super) struct FailedAttempt {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) begun: Instant,
    pub(super) failure: Failure,
    pub(super) reason: String,
    /// The server's own answer, if there is one.
    pub(super) response: Option<Response<ResponseBody>>,
}

/// An attempt whose request is on its way.
pub(super) struct AttemptRun {
    pub(super) tracker: Tracker,
    pub(super) response: BoxFuture<'static, Result<Response<TransportBody>, SendError>>,
    pub(super) shared: Arc<Shared>,
    /// When it is given up.
    pub(super) limit: Option<Instant>,
    /// The caller's own deadline, which holds for the whole response.
    pub(super) caller: Option<Instant>,
    /// Whether to hold the answer back until its first message is whole.
    pub(super) hold: bool,
}

/// What came back.
enum Answer {
    /// A response to hand out. The code, if its end is in hand already.
    Message {
        read: VecDeque<Frame<Bytes>>,
        rest: Option<TransportBody>,
        code: Option<Code>,
    },
    /// A status and no message.
    Status {
        code: Code,
        read: VecDeque<Frame<Bytes>>,
        details: HeaderMap,
    },
}

/// Why nothing came back.
enum AttemptError {
    Unprocessed(BoxError),
    Broken(BoxError),
    Timeout,
}

impl AttemptRun {
    pub(super) async fn run(mut self) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let hold = self.hold.then_some(self.shared.policy.replay_limit);
        let exchange = exchange(&mut self.response, hold);
        let result = match self.limit {
            Some(limit) => timeout_at(limit, exchange)
                .await
                .unwrap_or(Err(AttemptError::Timeout)),
            None => exchange.await,
        };
        let counters = &self.shared.counters;
        match result {
            Ok((parts, answer)) => self.answered(parts, answer),
            Err(AttemptError::Unprocessed(error)) => {
                counters.unprocessed.increment(1);
                Err(self.ended(Failure::Unprocessed, chain(&*error)))
            }
            Err(AttemptError::Broken(error)) => {
                counters.broken.increment(1);
                self.tracker.observe(true);
                let reason = format!("connection lost: {}", chain(&*error));
                let ended = self.ended(Failure::Broken, reason);
                self.tracker.settle(Classification::Transport);
                Err(ended)
            }
            Err(AttemptError::Timeout) => {
                counters.timeout.increment(1);
                let ended = self.ended(Failure::Timeout, "no answer in time".to_owned());
                if self.had_its_chance() {
                    self.tracker.observe(true);
                    self.tracker.settle(Classification::Transport);
                }
                Err(ended)
            }
        }
    }

    /// Whether it took the endpoint, not the caller's hurry, to run out of time.
    fn had_its_chance(&self) -> bool {
        let now = Instant::now();
        let waited = now - self.tracker.begun;
        let usual = self
            .tracker
            .endpoint
            .stats()
            .latency(now)
            .unwrap_or(UNKNOWN_LATENCY);
        waited >= self.shared.policy.attempt_timeout() || waited >= usual * FAIR_CHANCE
    }

    fn ended(&self, failure: Failure, reason: String) -> Box<FailedAttempt> {
        Box::new(FailedAttempt {
            endpoint: Arc::clone(&self.tracker.endpoint),
            begun: self.tracker.begun,
            failure,
            reason,
            response: None,
        })
    }

    fn answered(
        self,
        mut parts: Parts,
        answer: Answer,
    ) -> Result<Response<ResponseBody>, Box<FailedAttempt>> {
        let counters = &self.shared.counters;
        let instance = Arc::clone(self.tracker.endpoint.instance());
        parts.extensions.insert(ServedBy(instance));
        match answer {
            Answer::Message { read, rest, code } => {
                counters.ok.increment(1);
                let failed = code.is_some_and(Code::is_server_fault);
                self.tracker.observe(failed);
                let body = match (rest, code) {
                    (Some(rest), None) => ResponseBody::open(read, rest, self.tracker, self.caller),
                    (_, code) => {
                        self.tracker
                            .settle(classification(code.unwrap_or(Code::Ok)));
                        ResponseBody::whole(read)
                    }
                };
                Ok(Response::from_parts(parts, body))
            }
            Answer::Status {
                code,
                read,
                details,
            } => {
                let response = Response::from_parts(parts, ResponseBody::whole(read));
                if code == Code::Ok {
                    counters.ok.increment(1);
                    self.tracker.observe(false);
                    self.tracker.settle(Classification::Success);
                    return Ok(response);
                }
                counters.status.increment(1);
                self.tracker
                    .observe(classification(code) != Classification::Success);
                let failure = Failure::Status(code, grpc::pushback(&details));
                let mut ended = self.ended(failure, reason(code, &details));
                ended.response = Some(response);
                self.tracker.settle(classification(code));
                Err(ended)
            }
        }
    }
}

/// Reads the answer as far as it is held back.
async fn exchange(
    response: impl Future<Output = Result<Response<TransportBody>, SendError>>,
    hold: Option<usize>,
) -> Result<(Parts, Answer), AttemptError> {
    let response = response.await.map_err(|error| {
        if error.never_processed {
            AttemptError::Unprocessed(error.source)
        } else {
            AttemptError::Broken(error.source)
        }
    })?;
    let (mut parts, body) = response.into_parts();
    let code = match Code::in_headers(&parts.headers) {
        None if parts.status == StatusCode::OK => {
            let answer = match hold {
                Some(limit) => first_message(body, limit).await?,
                None => Answer::Message {
                    read: VecDeque::new(),
                    rest: Some(body),
                    code: None,
                },
            };
            return Ok((parts, answer));
        }
        None => {
            // A proxy's answer, most likely. gRPC has a status for it; a gRPC client above would
            // otherwise try to read the page.
            let code = Code::from_http(parts.status);
            let message = format!("HTTP status {}", parts.status);
            parts.headers.insert(grpc::STATUS, (code as i32).into());
            if let Ok(message) = message.parse() {
                parts.headers.insert(grpc::MESSAGE, message);
            }
            parts.status = StatusCode::OK;
            code
        }
        Some(code) => code,
    };
    let details = parts.headers.clone();
    let answer = Answer::Status {
        code,
        read: VecDeque::new(),
        details,
    };
    Ok((parts, answer))
}

/// Reads until the first message is whole, and its trailers if they have come with it.
async fn first_message(mut body: TransportBody, limit: usize) -> Result<Answer, AttemptError> {
    let mut read = VecDeque::with_capacity(2);
    let mut message = Message::default();
    while !message.is_whole() && message.len <= limit {
        match body.frame().await {
            None => {
                // Without trailers there is no status either: the client above will say so.
                let rest = None;
                let code = Some(Code::Unknown);
                return Ok(Answer::Message { read, rest, code });
            }
            Some(Err(error)) => return Err(AttemptError::Broken(error)),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = Code::in_headers(trailers).unwrap_or(Code::Unknown);
                    let details = trailers.clone();
                    read.push_back(frame);
                    return Ok(Answer::Status {
                        code,
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
    // One look further without waiting: a unary answer ends here.
    let next = std::future::poll_fn(|cx| {
        Poll::Ready(match std::pin::Pin::new(&mut body).poll_frame(cx) {
            Poll::Ready(next) => Some(next),
            Poll::Pending => None,
        })
    });
    Ok(match next.await {
        Some(Some(Ok(frame))) => {
            let code = frame
                .trailers_ref()
                .map(|trailers| Code::in_headers(trailers).unwrap_or(Code::Unknown));
            read.push_back(frame);
            let rest = code.is_none().then_some(body);
            Answer::Message { read, rest, code }
        }
        Some(Some(Err(error))) => return Err(AttemptError::Broken(error)),
        Some(None) => Answer::Message {
            read,
            rest: None,
            code: Some(Code::Unknown),
        },
        None => Answer::Message {
            read,
            rest: Some(body),
            code: None,
        },
    })
}

/// How much of a first message has come.
#[derive(Default)]
struct Message {
    header: [u8; MESSAGE_HEADER],
    len: usize,
}

impl Message {
    fn add(&mut self, data: &[u8]) {
        if self.len < MESSAGE_HEADER {
            let part = &data[..data.len().min(MESSAGE_HEADER - self.len)];
            self.header[self.len..self.len + part.len()].copy_from_slice(part);
        }
        self.len += data.len();
    }

    fn is_whole(&self) -> bool {
        let [_flag, length @ ..] = self.header;
        let length = u32::from_be_bytes(length) as usize;
        self.len >= MESSAGE_HEADER && self.len - MESSAGE_HEADER >= length
    }
}

/// A status in a line. On the wire its message is percent-encoded.
fn reason(code: Code, details: &HeaderMap) -> String {
    let message = details
        .get(grpc::MESSAGE)
        .map(|value| {
            percent_decode(value.as_bytes())
                .decode_utf8_lossy()
                .into_owned()
        })
        .filter(|message| !message.is_empty());
    match message {
        Some(message) => format!("{code}: {message}"),
        None => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    #[allow(clippy::unnecessary_wraps)]
    fn data(bytes: &'static [u8]) -> Option<Frame<Bytes>> {
        Some(Frame::data(Bytes::from_static(bytes)))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn status(code: i32) -> Option<Frame<Bytes>> {
        let mut trailers = HeaderMap::new();
        trailers.insert(grpc::STATUS, code.into());
        Some(Frame::trailers(trailers))
    }

    /// Looks at these frames; `None` is a reset.
    async fn look(frames: Vec<Option<Frame<Bytes>>>) -> Result<Answer, AttemptError> {
        let frames = frames
            .into_iter()
            .map(|frame| frame.ok_or_else(|| BoxError::from("reset")));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        first_message(body, 1024).await
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
