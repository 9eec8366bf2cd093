//! The export of spans over OTLP, as OpenTelemetry's environment variables say: with an endpoint they are
//! exported, without one they are not made.
//!
//! | variable | meaning |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the collector; turns the export on |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` | `http/protobuf` (default) or `grpc` |
//! | `OTEL_TRACES_EXPORTER` | `otlp` turns the export on without an endpoint, `none` turns it off |
//! | `OTEL_SDK_DISABLED` | `true` turns the export off |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | the traces that are kept |
//! | `OTEL_PROPAGATORS` | `tracecontext` (default) or `none` |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | the service; its default is the name of the program |
//!
//! The SDK reads the others: headers, timeout and compression, the limits of spans and of batches.

use std::{env, path::Path, sync::OnceLock, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use discovery::chain;
use http::{Request, Response, Uri};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Handle;
use tracing::{Subscriber, warn};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// Default time limit of one request to the collector (OpenTelemetry's specification).
const TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum time for the last spans, if the drain is over.
const SHORTEST_FLUSH: Duration = Duration::from_millis(100);

static EXPORT: OnceLock<Export> = OnceLock::new();

/// A running export.
#[derive(Debug)]
struct Export {
    provider: SdkTracerProvider,
    propagates: bool,
}

/// The protocol to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
}

/// The settings, as far as the SDK does not read them itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    protocol: Protocol,
    propagates: bool,
    /// True if a variable names the service.
    is_named: bool,
    /// Time limit of one request to the collector.
    timeout: Duration,
}

impl Settings {
    /// Reads and checks the variables; `None` if they ask for no export.
    fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        // An empty variable counts as unset (OpenTelemetry's specification).
        let read = |name: &'static str| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        };
        if read("OTEL_SDK_DISABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| read("OTEL_EXPORTER_OTLP_ENDPOINT"));
        match read("OTEL_TRACES_EXPORTER").as_ref() {
            None if endpoint.is_none() => return Ok(None),
            Some((_, exporter)) if exporter == "none" => return Ok(None),
            Some((name, exporter)) if exporter != "otlp" => {
                bail!("{name} is {exporter}: must be otlp or none")
            }
            _ => {}
        }
        if let Some((name, value)) = endpoint {
            let uri: Option<Uri> = value.parse().ok();
            let scheme = uri.as_ref().and_then(Uri::scheme_str);
            if !matches!(scheme, Some("http" | "https")) {
                bail!("{name} is {value}: must be a URL such as http://localhost:4318");
            }
        }
        let protocol = read("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| read("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let protocol = match protocol {
            None => Protocol::Http,
            Some((_, value)) if value == "http/protobuf" => Protocol::Http,
            Some((_, value)) if value == "grpc" => Protocol::Grpc,
            Some((name, value)) => bail!("{name} is {value}: must be http/protobuf or grpc"),
        };
        check_sampler(read("OTEL_TRACES_SAMPLER"), read("OTEL_TRACES_SAMPLER_ARG"))?;
        let propagators = read("OTEL_PROPAGATORS");
        let (name, propagators) = propagators.unwrap_or(("", "tracecontext".to_owned()));
        let mut propagates = false;
        for propagator in propagators.split(',').map(str::trim) {
            match propagator {
                "tracecontext" => propagates = true,
                // Accepted without effect: nothing here sets baggage.
                "baggage" | "none" => {}
                other => bail!("{name} has {other}: must be tracecontext, baggage or none"),
            }
        }
        let timeout = read("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| read("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let timeout = match timeout {
            None => TIMEOUT,
            Some((name, value)) => {
                let millis = value.parse().ok().filter(|millis| *millis > 0);
                let millis = millis.with_context(|| {
                    format!(
                        "{name} is {value}: must be a number of milliseconds, greater than zero"
                    )
                })?;
                Duration::from_millis(millis)
            }
        };
        let attributes = read("OTEL_RESOURCE_ATTRIBUTES");
        let is_named = read("OTEL_SERVICE_NAME").is_some()
            || attributes.is_some_and(|(_, value)| value.contains("service.name="));
        Ok(Some(Self {
            protocol,
            propagates,
            is_named,
            timeout,
        }))
    }
}

/// The SDK replaces an invalid sampler by one that keeps everything.
fn check_sampler(
    sampler: Option<(&str, String)>,
    share: Option<(&str, String)>,
) -> anyhow::Result<()> {
    let Some((name, sampler)) = sampler else {
        return Ok(());
    };
    match sampler.as_str() {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => Ok(()),
        "traceidratio" | "parentbased_traceidratio" => {
            let Some((name, share)) = share else {
                return Ok(());
            };
            let number = share.parse::<f64>();
            if !number.is_ok_and(|number| (0.0..=1.0).contains(&number)) {
                bail!("{name} is {share}: must be a number from 0 to 1");
            }
            Ok(())
        }
        other => bail!(
            "{name} is {other}: must be always_on, always_off, traceidratio, or one of them with \
             parentbased_ before it"
        ),
    }
}

/// Starts the export, if the variables ask for it, and returns the layer that collects the spans.
pub(crate) fn start<S>() -> anyhow::Result<Option<OpenTelemetryLayer<S, SdkTracer>>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let Some(settings) = Settings::read(|name| env::var(name).ok())? else {
        return Ok(None);
    };
    let exporter = exporter(&settings).context("cannot export traces")?;
    let mut resource = Resource::builder();
    if !settings.is_named {
        let program = env::args_os().next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or_default();
        resource = resource.with_service_name(name.to_string_lossy().into_owned());
    }
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(env!("CARGO_PKG_NAME")))
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    let propagates = settings.propagates;
    // A second start is not used: the subscriber is set once.
    let _first = EXPORT.set(Export {
        provider,
        propagates,
    });
    Ok(Some(layer))
}

fn exporter(settings: &Settings) -> anyhow::Result<SpanExporter> {
    let runtime = Handle::try_current()?;
    // For an https endpoint; without one, the first one installed wins.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder();
    Ok(match settings.protocol {
        Protocol::Grpc => exporter.with_tonic().build()?,
        Protocol::Http => {
            let client = reqwest::Client::builder()
                .timeout(settings.timeout)
                .build()?;
            let client = OnRuntime { client, runtime };
            exporter.with_http().with_http_client(client).build()?
        }
    })
}

/// An HTTP client that works from the exporter's own thread, which has no runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[tonic::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let response = client.execute(request.try_into()?).await?;
            let mut answer = Response::new(Bytes::new());
            *answer.status_mut() = response.status();
            *answer.headers_mut() = response.headers().clone();
            *answer.body_mut() = response.bytes().await?;
            Ok::<_, reqwest::Error>(answer)
        });
        Ok(sent.await??)
    }
}

/// True if spans are exported.
pub(crate) fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// True if the context of a span is written into requests.
pub(crate) fn propagates() -> bool {
    EXPORT.get().is_some_and(|export| export.propagates)
}

/// Exports the last spans within this time, or a little more if there is none.
pub(crate) async fn flush(limit: Duration) {
    let Some(export) = EXPORT.get() else {
        return;
    };
    let provider = export.provider.clone();
    let limit = limit.max(SHORTEST_FLUSH);
    let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit)).await;
    match flushed {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("the last traces were not exported: {}", chain(&error)),
        Err(error) => warn!("the last traces were not exported: {}", chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        Settings::read(value).map_err(|error| error.to_string())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    #[test]
    fn spans_are_exported_if_there_is_an_endpoint_and_nothing_turns_it_off() {
        let on = |variables: &[(&str, &str)]| read(variables).unwrap().is_some();
        assert!(!on(&[]));
        assert!(on(&[ENDPOINT]));
        assert!(on(&[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(!on(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
        assert!(!on(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!on(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]));
        assert!(on(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]));
    }

    #[test]
    fn the_variable_for_traces_wins_over_the_general_one() {
        let settings = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_PROPAGATORS", "none"),
            ("OTEL_RESOURCE_ATTRIBUTES", "zone=a,service.name=adder"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ]);
        let expected = Settings {
            protocol: Protocol::Grpc,
            propagates: false,
            is_named: true,
            timeout: Duration::from_millis(500),
        };
        assert_eq!(settings, Ok(Some(expected)));
    }

    #[test]
    fn an_invalid_variable_is_named_with_what_it_may_be() {
        for (name, value, expected) in [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "localhost:4318",
                "must be a URL such as http://localhost:4318",
            ),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "http/json",
                "must be http/protobuf or grpc",
            ),
            ("OTEL_TRACES_EXPORTER", "zipkin", "must be otlp or none"),
            (
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "10s",
                "must be a number of milliseconds, greater than zero",
            ),
            (
                "OTEL_TRACES_SAMPLER",
                "sometimes",
                "must be always_on, always_off, traceidratio, or one of them with parentbased_ before it",
            ),
        ] {
            let error = read(&[(name, value), ENDPOINT]).unwrap_err();
            assert_eq!(error, format!("{name} is {value}: {expected}"));
        }
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let share = ("OTEL_TRACES_SAMPLER_ARG", "2");
        assert_eq!(
            read(&[ENDPOINT, sampler, share]).unwrap_err(),
            "OTEL_TRACES_SAMPLER_ARG is 2: must be a number from 0 to 1"
        );
        assert_eq!(
            read(&[ENDPOINT, ("OTEL_PROPAGATORS", "tracecontext,b3")]).unwrap_err(),
            "OTEL_PROPAGATORS has b3: must be tracecontext, baggage or none"
        );
    }
}
