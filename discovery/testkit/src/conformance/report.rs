//! The table of one registry.

use std::{fmt::Write as _, time::Duration};

use anyhow::Result;

use super::{Case, Finding, Promises};
use crate::Table;

/// The results of one registry's cases.
#[derive(Debug)]
pub(super) struct Report {
    title: String,
    rows: Vec<[String; 4]>,
    reasons: Vec<(Case, &'static str)>,
    failures: Vec<String>,
}

impl Report {
    pub(super) fn new(name: &str, version: &str) -> Self {
        Self {
            title: format!("{name}, server version {version}"),
            rows: Vec::new(),
            reasons: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn not_applicable(&mut self, case: Case, reason: &'static str) {
        self.row(case, "", "n/a", "");
        self.reasons.push((case, reason));
    }

    pub(super) fn ran(&mut self, case: Case, bound: Option<Duration>, result: Result<Finding>) {
        let stated = bound.map(seconds).unwrap_or_default();
        match result {
            Ok(Finding { took, note }) => {
                let exceeded = took > bound && bound.is_some();
                let measured = took.map_or_else(|| "holds".to_owned(), seconds);
                let mark = if exceeded { "! " } else { "" };
                self.row(case, &stated, &format!("{mark}{measured}"), &note);
            }
            Err(error) => {
                self.row(case, &stated, "FAILED", "");
                self.failures.push(format!("{}: {error:#}", case.title()));
            }
        }
    }

    /// The last result in one line.
    pub(super) fn last(&self) -> String {
        let rows = self.rows.last();
        rows.map(|row| row.join(" | ")).unwrap_or_default()
    }

    /// The table, the features and the reasons.
    pub(super) fn text(&self, promises: &Promises) -> String {
        let mut table = Table::new(["case", "stated", "measured", "remark"]);
        for row in &self.rows {
            table.row(row.clone());
        }
        let mut text = format!("{}\n\n{table}", self.title);
        // Writing to a string cannot fail.
        for (name, how) in promises.features() {
            let _written = write!(text, "\n{name}: {how}");
        }
        for (case, reason) in &self.reasons {
            let _written = write!(text, "\nn/a {}: {reason}", case.title());
        }
        for failure in &self.failures {
            let _written = write!(text, "\nFAILED {failure}");
        }
        text + "\n"
    }

    /// The failures in one text; empty if there are none.
    pub(super) fn failures(&self) -> String {
        self.failures.join("\n")
    }

    fn row(&mut self, case: Case, stated: &str, measured: &str, remark: &str) {
        let cells = [case.title(), stated, measured, remark];
        self.rows.push(cells.map(str::to_owned));
    }
}

/// A time in the unit that suits it.
pub(super) fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{:.0} ms", time.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_table_shows_bounds_times_failures_and_reasons() {
        let bound = Duration::from_secs(1);
        let promises = Promises::default().feature("watch", "stream");
        let mut report = Report::new("x", "1.2");
        let late = Finding::took(Duration::from_millis(1500));
        report.ran(Case::Seen, Some(bound), Ok(late));
        report.ran(Case::Malformed, None, Ok(Finding::holds().note("2 of 3")));
        report.ran(Case::Killed, Some(bound), Err(anyhow!("still there")));
        report.not_applicable(Case::Wiped, "keeps nothing");
        let text = report.text(&promises);
        for part in [
            "x, server version 1.2",
            "|  1.0 s |  ! 1.5 s |",
            "|    holds | 2 of 3 |",
            "|   FAILED |",
            "watch: stream",
            "n/a server restarted empty: back: keeps nothing",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(
            report.failures(),
            "process killed (SIGKILL): gone: still there"
        );
    }
}
