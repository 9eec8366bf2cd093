//! Reads the reports that a server sends out of band, as long as the connection lasts.

use std::{sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use fastrand::Rng;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::{
    figures::Figures,
    proto::{Interval, OrcaLoadReport, OrcaLoadReportRequest, STREAM},
};
use crate::{
    backoff::Backoff,
    code::Code,
    connection::{RequestBody, Transport, TransportBody},
    error::chain,
    grpc::{self, Grpc},
    protocol::{Head, Protocol as _},
};

/// The uncompressed flag and the length of a message.
const PREFIX: usize = 5;
/// Maximum length of a report, in bytes.
const LIMIT: usize = 64 * 1024;
/// Waits between two attempts to open the stream, as for health watches (gRFC A51, A17).
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(120));

/// A stream out of band. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Watch {
    transport: Arc<Box<dyn Transport>>,
    period: Duration,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Opens the stream on this connection. Must be called in a runtime.
    pub(super) fn start(
        transport: Arc<Box<dyn Transport>>,
        period: Duration,
        instance: String,
        figures: Arc<Figures>,
        changed: Arc<Notify>,
    ) -> Self {
        let reader = Reader {
            transport: Arc::clone(&transport),
            period,
            instance,
            figures,
            changed,
        };
        Self {
            transport,
            period,
            task: tokio::spawn(reader.run()).abort_handle(),
        }
    }

    /// True if it is a stream with this period on this connection.
    pub(super) fn is_of(&self, transport: &Arc<Box<dyn Transport>>, period: Duration) -> bool {
        Arc::ptr_eq(&self.transport, transport) && self.period == period
    }
}

/// The reason why a stream has ended.
enum End {
    /// The server does not have the service.
    Unsupported,
    Broken(String),
}

struct Reader {
    transport: Arc<Box<dyn Transport>>,
    period: Duration,
    instance: String,
    figures: Arc<Figures>,
    changed: Arc<Notify>,
}

impl Reader {
    async fn run(self) {
        let mut failures = 0_u32;
        while !self.transport.is_closed() {
            let mut has_reported = false;
            match self.read(&mut has_reported).await {
                End::Unsupported => {
                    // Not again with each connection.
                    if self.figures.note_unsupported() {
                        warn!(
                            instance = %self.instance,
                            "no load reports out of band: the server does not have OpenRcaService"
                        );
                    }
                    return;
                }
                End::Broken(reason) => {
                    debug!(instance = %self.instance, reason, "the stream of load reports ended");
                }
            }
            failures = if has_reported {
                1
            } else {
                failures.saturating_add(1)
            };
            sleep(BACKOFF.after(failures, &mut Rng::new())).await;
        }
    }

    /// Opens the stream and reads it to its end.
    async fn read(&self, has_reported: &mut bool) -> End {
        let response = match self.transport.send(request(self.period)).await {
            Ok(response) => response,
            Err(error) => return End::Broken(chain(&error)),
        };
        let (mut parts, mut body) = response.into_parts();
        match Grpc::head(&mut parts) {
            Head::WrongServer(_) | Head::Status(Code::Unimplemented) => return End::Unsupported,
            Head::Status(code) => return End::Broken(code.name().to_owned()),
            Head::Open | Head::Reply(_) => {}
        }
        let mut received = BytesMut::new();
        loop {
            match next(&mut body, &mut received).await {
                Ok(report) => {
                    *has_reported = true;
                    if self.figures.note(&report.into(), Instant::now()) {
                        self.changed.notify_one();
                    }
                }
                Err(end) => return end,
            }
        }
    }
}

/// Reads one report.
async fn next(body: &mut TransportBody, received: &mut BytesMut) -> Result<OrcaLoadReport, End> {
    let broken = |reason: &str| End::Broken(reason.to_owned());
    loop {
        if let Some(message) = take_message(received).map_err(broken)? {
            let report = OrcaLoadReport::decode(message);
            return report.map_err(|error| End::Broken(chain(&error)));
        }
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(End::Broken(chain(&*error))),
            None => return Err(broken("no more reports")),
        };
        if let Some(data) = frame.data_ref() {
            received.extend_from_slice(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            return Err(match grpc::status(trailers) {
                Some(Code::Unimplemented) => End::Unsupported,
                code => End::Broken(code.unwrap_or(Code::Unknown).name().to_owned()),
            });
        }
    }
}

/// Takes the first message, if it is complete.
fn take_message(received: &mut BytesMut) -> Result<Option<Bytes>, &'static str> {
    let Some(prefix) = received.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if compressed != 0 {
        return Err("a report is compressed, which was not offered");
    }
    if length > LIMIT {
        return Err("a report is longer than 64 KiB");
    }
    if received.len() < PREFIX + length {
        return Ok(None);
    }
    received.advance(PREFIX);
    Ok(Some(received.split_to(length).freeze()))
}

fn request(period: Duration) -> Request<RequestBody> {
    let message = OrcaLoadReportRequest {
        report_interval: Some(Interval::of(period)),
    };
    let message = message.encode_to_vec();
    let mut body = vec![0];
    body.extend(
        u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    body.extend(message);
    let mut request = Request::new(RequestBody::whole(body.into()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(STREAM);
    request.headers_mut().extend([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        ),
        (header::TE, HeaderValue::from_static("trailers")),
    ]);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_when_they_are_complete() {
        let mut received = BytesMut::from(&[0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0][..]);
        assert_eq!(take_message(&mut received).unwrap().unwrap(), [7, 8][..]);
        assert_eq!(take_message(&mut received), Ok(None));
        received.extend_from_slice(&[0]);
        assert_eq!(take_message(&mut received).unwrap().unwrap(), [][..]);
        let mut compressed = BytesMut::from(&[1, 0, 0, 0, 1, 0][..]);
        assert!(
            take_message(&mut compressed)
                .unwrap_err()
                .contains("compressed")
        );
        let mut long = BytesMut::from(&[0, 1, 0, 0, 0][..]);
        assert!(take_message(&mut long).unwrap_err().contains("longer"));
    }
}
