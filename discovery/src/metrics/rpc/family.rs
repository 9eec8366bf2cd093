//! One metric in the text format of Prometheus.

use std::fmt::{Display, Write as _};

use super::series::Totals;

/// A metric with the help text of its gRFC's description, and its type.
pub(super) struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

pub(super) fn family<'t>(
    text: &'t mut String,
    name: &'static str,
    kind: &str,
    help: &str,
) -> Family<'t> {
    // Writing to a string does not fail.
    let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    Family { text, name }
}

impl Family<'_> {
    pub(super) fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let _written = writeln!(self.text, "{}{suffix}{{{labels}}} {value}", self.name);
    }

    /// A histogram whose bounds and sum are divided by `unit`.
    pub(super) fn totals<const N: usize>(
        &mut self,
        labels: &str,
        bounds: &[u64],
        totals: &Totals<N>,
        unit: f64,
    ) {
        // Bounds and sums are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let in_unit = |value: u64| value as f64 / unit;
        let bounds = bounds.iter().map(|bound| in_unit(*bound));
        self.histogram(labels, bounds, &totals.counts, in_unit(totals.sum));
    }

    /// A histogram. Each bucket has its own values; the last one is that of values above all bounds.
    pub(super) fn histogram(
        &mut self,
        labels: &str,
        bounds: impl IntoIterator<Item = f64>,
        counts: &[u64],
        sum: f64,
    ) {
        let mut below = 0;
        for (le, count) in bounds.into_iter().zip(counts) {
            below += count;
            self.sample("_bucket", &format!("{labels},le=\"{le}\""), below);
        }
        let count: u64 = counts.iter().sum();
        self.sample("_bucket", &format!("{labels},le=\"+Inf\""), count);
        self.sample("_sum", labels, sum);
        self.sample("_count", labels, count);
    }
}

/// A label's value (Prometheus' text format).
pub(super) fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
