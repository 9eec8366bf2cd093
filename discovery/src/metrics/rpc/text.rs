//! The metrics in the text format of Prometheus, with the names that the OpenTelemetry exporter for
//! Prometheus gives them: dots become underscores, and the unit and `_total` stand at the end.

#[cfg(feature = "orca")]
use super::weights;
use super::{
    Detection, TargetMetrics,
    family::{escaped, family},
    method::{CodeTotals, LATENCIES, MethodMetrics, RETRIES, RetriedTotals, SIZES, TRANSPARENT},
    targets,
};

const MICROS_PER_SECOND: f64 = 1e6;

/// The metrics of gRPC's own names of all channels of the process, in the text format of Prometheus (version
/// 0.0.4). Append it to the text of a recorder.
///
/// The [table](crate::metrics) lists them. A target appears with its first channel and disappears with its
/// last one.
#[must_use]
pub fn grpc_text() -> String {
    let shown: Vec<_> = {
        let targets = targets();
        let shown = targets.values().copied();
        shown.filter(|target| target.is_shown()).collect()
    };
    let mut text = String::new();
    if !shown.is_empty() {
        write_all(&mut text, &shown);
    }
    text
}

/// The totals of a method, with its labels.
struct OfMethod {
    labels: String,
    started: u64,
    by_code: Vec<(String, CodeTotals)>,
    retried: Option<RetriedTotals>,
}

impl OfMethod {
    fn read(target: &str, method: &MethodMetrics) -> Self {
        let labels = format!(
            "grpc_method=\"{}\",grpc_target=\"{target}\"",
            escaped(method.name())
        );
        let with_code = |totals: CodeTotals| {
            let labels = format!("{labels},grpc_status=\"{}\"", totals.code);
            (labels, totals)
        };
        Self {
            started: method.started(),
            by_code: method.totals().map(with_code).collect(),
            retried: method.retried(),
            labels,
        }
    }
}

fn write_all(text: &mut String, shown: &[&TargetMetrics]) {
    let targets: Vec<_> = shown
        .iter()
        .map(|target| (escaped(&target.name), *target))
        .collect();
    let methods: Vec<_> = targets
        .iter()
        .flat_map(|(name, target)| target.methods().map(|method| OfMethod::read(name, method)))
        .collect();
    if !methods.is_empty() {
        write_attempts(text, &methods);
        write_calls(text, &methods);
    }
    write_connections(text, &targets);
    write_ejections(text, &targets);
    #[cfg(feature = "orca")]
    weights::write(
        text,
        targets
            .iter()
            .map(|(name, target)| (&**name, &target.weights)),
    );
}

fn write_attempts(text: &mut String, methods: &[OfMethod]) {
    let mut started = family(
        text,
        "grpc_client_attempt_started_total",
        "counter",
        "Attempts of calls begun, including those that have not ended.",
    );
    for method in methods {
        started.sample("", &method.labels, method.started);
    }
    let mut durations = family(
        text,
        "grpc_client_attempt_duration_seconds",
        "histogram",
        "Time of an attempt of a call.",
    );
    for (labels, totals) in methods.iter().flat_map(|method| &method.by_code) {
        durations.totals(labels, &LATENCIES, &totals.attempts, MICROS_PER_SECOND);
    }
    let mut sent = family(
        text,
        "grpc_client_attempt_sent_total_compressed_message_size_bytes",
        "histogram",
        "Size of an attempt's request messages as sent, without framing.",
    );
    for (labels, totals) in methods.iter().flat_map(|method| &method.by_code) {
        sent.totals(labels, &SIZES, &totals.sent, 1.0);
    }
    let mut received = family(
        text,
        "grpc_client_attempt_rcvd_total_compressed_message_size_bytes",
        "histogram",
        "Size of an attempt's response messages as received, without framing.",
    );
    for (labels, totals) in methods.iter().flat_map(|method| &method.by_code) {
        received.totals(labels, &SIZES, &totals.received, 1.0);
    }
}

fn write_calls(text: &mut String, methods: &[OfMethod]) {
    let mut durations = family(
        text,
        "grpc_client_call_duration_seconds",
        "histogram",
        "Time of a call, with all its attempts.",
    );
    for (labels, totals) in methods.iter().flat_map(|method| &method.by_code) {
        durations.totals(labels, &LATENCIES, &totals.calls, MICROS_PER_SECOND);
    }
    let repeated: Vec<_> = methods
        .iter()
        .filter_map(|method| Some((&method.labels, method.retried.as_ref()?)))
        .collect();
    if repeated.is_empty() {
        return;
    }
    let mut retries = family(
        text,
        "grpc_client_call_retries",
        "histogram",
        "Retries of a call that had any.",
    );
    for (labels, totals) in &repeated {
        retries.totals(labels, &RETRIES, &totals.retries, 1.0);
    }
    let mut transparent = family(
        text,
        "grpc_client_call_transparent_retries",
        "histogram",
        "Transparent retries of a call that had any.",
    );
    for (labels, totals) in &repeated {
        transparent.totals(labels, &TRANSPARENT, &totals.transparent, 1.0);
    }
    let mut hedges = family(
        text,
        "grpc_client_call_hedges",
        "histogram",
        "Hedges of a call that had any.",
    );
    for (labels, totals) in &repeated {
        hedges.totals(labels, &RETRIES, &totals.hedges, 1.0);
    }
    let mut delay = family(
        text,
        "grpc_client_call_retry_delay_seconds",
        "histogram",
        "Time of a retried call without an attempt under way.",
    );
    for (labels, totals) in &repeated {
        delay.totals(labels, &LATENCIES, &totals.delay, MICROS_PER_SECOND);
    }
}

fn write_connections(text: &mut String, targets: &[(String, &TargetMetrics)]) {
    let label = |name: &str| format!("grpc_target=\"{name}\"");
    let mut succeeded = family(
        text,
        "grpc_subchannel_connection_attempts_succeeded_total",
        "counter",
        "Attempts to connect that succeeded.",
    );
    for (name, target) in targets {
        succeeded.sample("", &label(name), target.connected.get());
    }
    let mut failed = family(
        text,
        "grpc_subchannel_connection_attempts_failed_total",
        "counter",
        "Attempts to connect that failed.",
    );
    for (name, target) in targets {
        failed.sample("", &label(name), target.connect_failed.get());
    }
    let mut disconnections = family(
        text,
        "grpc_subchannel_disconnections_total",
        "counter",
        "Connections that ended.",
    );
    for (name, target) in targets {
        disconnections.sample("", &label(name), target.disconnected.get());
    }
    let mut open = family(
        text,
        "grpc_subchannel_open_connections",
        "gauge",
        "Open connections.",
    );
    for (name, target) in targets {
        // Read first: a connection that begins meanwhile must not be missing from the difference.
        let ended = target.disconnected.get();
        open.sample(
            "",
            &label(name),
            target.connected.get().saturating_sub(ended),
        );
    }
}

fn write_ejections(text: &mut String, targets: &[(String, &TargetMetrics)]) {
    const METHOD: &str = "grpc_lb_outlier_detection_detection_method";
    const REASON: &str = "grpc_lb_outlier_detection_unenforced_reason";
    let mut enforced = family(
        text,
        "grpc_lb_outlier_detection_ejections_enforced_total",
        "counter",
        "Ejections of outliers.",
    );
    for (name, target) in targets {
        for (method, total) in Detection::NAMES.iter().zip(&target.ejections.enforced) {
            let labels = format!("grpc_target=\"{name}\",{METHOD}=\"{method}\"");
            enforced.sample("", &labels, total.get());
        }
    }
    let mut unenforced = family(
        text,
        "grpc_lb_outlier_detection_ejections_unenforced_total",
        "counter",
        "Outliers that were not ejected.",
    );
    for (name, target) in targets {
        for (method, total) in Detection::NAMES.iter().zip(&target.ejections.unenforced) {
            let labels = format!(
                "grpc_target=\"{name}\",{METHOD}=\"{method}\",{REASON}=\"max_ejection_overflow\""
            );
            unenforced.sample("", &labels, total.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        code::Code,
        metrics::rpc::{CallCounts, Target},
    };

    #[test]
    fn a_histogram_is_cumulated_and_in_base_units() {
        let target = Target::of("test://text", "a\"b");
        let method = target.metrics().method("/pb.S/M", 1);
        method.begin();
        method.end_single(Code::Ok, Duration::from_micros(1_500), 7, 1_500);
        let counts = CallCounts {
            hedges: 2,
            ..CallCounts::default()
        };
        method.end_call(Code::Ok, Duration::from_millis(3), &counts);
        let text = grpc_text();
        let labels = "grpc_method=\"pb.S/M\",grpc_target=\"test://text/a\\\"b\"";
        let ok = format!("{labels},grpc_status=\"OK\"");
        for line in [
            format!("grpc_client_attempt_started_total{{{labels}}} 1"),
            format!("grpc_client_attempt_duration_seconds_bucket{{{ok},le=\"0.00001\"}} 0"),
            format!("grpc_client_attempt_duration_seconds_bucket{{{ok},le=\"0.002\"}} 1"),
            format!("grpc_client_attempt_duration_seconds_sum{{{ok}}} 0.0015"),
            format!("grpc_client_call_duration_seconds_bucket{{{ok},le=\"0.002\"}} 1"),
            format!("grpc_client_call_duration_seconds_bucket{{{ok},le=\"+Inf\"}} 2"),
            format!("grpc_client_call_duration_seconds_count{{{ok}}} 2"),
            format!(
                "grpc_client_attempt_rcvd_total_compressed_message_size_bytes_bucket{{{ok},le=\"2048\"}} 1"
            ),
            format!("grpc_client_attempt_sent_total_compressed_message_size_bytes_sum{{{ok}}} 7"),
            format!("grpc_client_call_hedges_bucket{{{labels},le=\"1\"}} 0"),
            format!("grpc_client_call_hedges_bucket{{{labels},le=\"2\"}} 1"),
            format!("grpc_client_call_retries_count{{{labels}}} 0"),
        ] {
            assert!(text.lines().any(|seen| seen == line), "no {line}");
        }
    }

    #[test]
    fn the_table_names_every_metric_of_grpc() {
        let target = Target::of("test://table", "s");
        let method = target.metrics().method("/pb.S/M", 1);
        let counts = CallCounts {
            retries: 1,
            ..CallCounts::default()
        };
        method.end_call(Code::Ok, Duration::ZERO, &counts);
        #[cfg(feature = "orca")]
        target
            .metrics()
            .weights
            .add(&crate::metrics::WeightUpdate::default());
        let table = include_str!("../../metrics.rs");
        let text = grpc_text();
        let names = text.lines().filter_map(|line| {
            let name = line.strip_prefix("# TYPE ")?;
            name.split_once(' ')
        });
        for (name, kind) in names {
            assert!(table.contains(&format!("| `{name}` | {kind} |")), "{name}");
        }
    }
}
