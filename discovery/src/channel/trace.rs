//! The spans of a call and of its attempts, as `tracing` spans: names and events by gRFC A72, attributes by
//! OpenTelemetry's conventions for RPC.
//!
//! They have the level TRACE and a target of their own. Without a subscriber that takes them, a call compares
//! one number per span.

use std::time::Duration;

use http::HeaderMap;
use tracing::{Span, field::Empty, trace, trace_span};

use crate::{code::Code, instance::Instance};

/// The target of the spans and their events.
const TARGET: &str = "discovery::rpc";

/// Writes the context of the current span into the headers of an attempt.
pub(crate) type Propagate = dyn Fn(&mut HeaderMap) + Send + Sync;

/// The span of a call of a method, such as `pb.Trim/TrimSpace`.
pub(super) fn call(method: &str, service: &str) -> Span {
    trace_span!(
        target: TARGET,
        "call",
        otel.name = %Name("Sent", method),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = Empty,
        "error.type" = Empty,
        // The service, as no instance is chosen yet.
        server.address = service,
    )
}

/// The facts that an attempt begins with.
#[derive(Clone, Copy)]
pub(super) struct Begin<'a> {
    pub(super) method: &'a str,
    pub(super) instance: &'a Instance,
    /// Number of attempts before it, without those that no server has processed.
    pub(super) previous: u32,
    /// True if no server has processed the attempt before it.
    pub(super) transparent: bool,
    /// True if another attempt is under way.
    pub(super) hedge: bool,
}

/// The span of an attempt.
pub(super) fn attempt(call: &Span, begin: Begin<'_>) -> Span {
    trace_span!(
        target: TARGET,
        parent: call,
        "attempt",
        otel.name = %Name("Attempt", begin.method),
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        rpc.system.name = "grpc",
        rpc.method = begin.method,
        rpc.response.status_code = Empty,
        "error.type" = Empty,
        "previous-rpc-attempts" = begin.previous,
        "transparent-retry" = begin.transparent,
        "discovery.hedge" = begin.hedge,
        "discovery.instance" = %begin.instance.id,
        server.address = %begin.instance.host,
        server.port = begin.instance.port,
    )
}

/// Notes that the attempt waited for a connection.
pub(super) fn delayed_pick(span: &Span, delay: Duration) {
    let delay = delay.as_secs_f64();
    trace!(target: TARGET, parent: span, delay, "Delayed LB pick complete");
}

/// Notes a request message of this size.
pub(super) fn sent(span: &Span, size: u64) {
    trace!(
        target: TARGET,
        parent: span,
        { "sequence-number" = 0, "message-size" = size },
        "Outbound message"
    );
}

/// Notes a response message of this size.
pub(super) fn received(span: &Span, size: u64) {
    trace!(
        target: TARGET,
        parent: span,
        { "sequence-number" = 0, "message-size" = size },
        "Inbound message"
    );
}

/// Ends a span with a status.
pub(super) fn end(span: &Span, code: Code, reason: &str) {
    if span.is_disabled() {
        return;
    }
    span.record("rpc.response.status_code", code.name());
    if code == Code::Ok {
        span.record("otel.status_code", "OK");
    } else {
        span.record("error.type", code.name());
        span.record("otel.status_code", "ERROR");
        let description = match reason {
            "" => code.name().to_owned(),
            reason => format!("{}, {reason}", code.name()),
        };
        span.record("otel.status_description", description);
    }
    // The end of a span is the last time at which it was left.
    span.in_scope(|| {});
}

/// The name of a span (gRFC A72): `Sent.pb.Trim.TrimSpace`.
struct Name<'a>(&'static str, &'a str);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)?;
        self.1.split('/').try_for_each(|part| write!(f, ".{part}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_named_as_grfc_a72_says() {
        assert_eq!(
            Name("Sent", "pb.Trim/TrimSpace").to_string(),
            "Sent.pb.Trim.TrimSpace"
        );
    }
}
