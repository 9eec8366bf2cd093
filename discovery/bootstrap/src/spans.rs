//! The spans of a server: one for each request, under the span of its caller if the request carries a W3C
//! `traceparent`.
//!
//! gRPC calls have one by [`Server::grpc`](crate::Server::grpc); those of health checks and reflection have
//! none. HTTP routes have one by [`http()`]. Names and attributes follow gRFC A72 and OpenTelemetry's
//! conventions. Without an export (see [`logging::init`](crate::logging::init)) no span is made.

use http::{HeaderMap, Request, StatusCode, header};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty, level_filters::LevelFilter, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;

use crate::otlp;

/// The target of the spans of servers.
pub(crate) const TARGET: &str = "bootstrap::rpc";
/// The target of the spans of channels.
const CHANNELS: &str = "discovery::rpc";

/// Passes the spans of servers and of channels.
pub(crate) fn filter() -> Targets {
    Targets::new()
        .with_target(TARGET, LevelFilter::TRACE)
        .with_target(CHANNELS, LevelFilter::TRACE)
}

/// The span of an HTTP request to a route. It must be current while the request is handled. Disabled if
/// nothing is exported.
#[must_use]
pub fn http<B>(route: &'static str, request: &Request<B>) -> Span {
    if !otlp::is_on() {
        return Span::none();
    }
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let method = request.method().as_str();
    let span = trace_span!(
        target: TARGET,
        parent: None,
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        "error.type" = Empty,
        url.scheme = "http",
        url.path = request.uri().path(),
        server.address = request.uri().host().or_else(|| text(header::HOST)),
        user_agent.original = text(header::USER_AGENT),
    );
    under_caller(&span, headers);
    span
}

/// Notes the status of an HTTP request.
pub fn answered(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
}

/// A function that writes the context of the current span into the headers of a request, for
/// [`ChannelBuilder::propagate`](discovery::ChannelBuilder::propagate). `None` if nothing is exported or
/// propagated.
#[must_use]
pub fn propagation() -> Option<fn(&mut HeaderMap)> {
    fn inject(headers: &mut HeaderMap) {
        let context = Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut HeaderInjector(headers));
    }
    otlp::propagates().then_some(inject)
}

/// Sets the parent of a span: the one that its request names.
pub(crate) fn under_caller(span: &Span, headers: &HeaderMap) {
    if otlp::propagates() {
        let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        // Fails only for a span that was entered or is not collected.
        let _set = span.set_parent(context);
    }
}
