//! All findings, as text and as JSON.

use serde::Serialize;

use super::{Finding, Outcome, finding::Weight};
use crate::instance_text;

/// The findings about a service. Its JSON form is what `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    service: String,
    /// The registry's URL without credentials. None if the URL cannot be used.
    registry: Option<String>,
    pub(super) outcome: Outcome,
    /// Number of instances that calls can use.
    usable: usize,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(
        service: &str,
        registry: Option<&str>,
        findings: Vec<Finding>,
        usable: usize,
    ) -> Self {
        Self {
            service: service.to_owned(),
            registry: registry.map(str::to_owned),
            outcome: Outcome::of(&findings, usable),
            usable,
            findings,
        }
    }

    /// The findings as lines: the mark, the step, what was found, and below it the remedy.
    pub(super) fn text(&self) -> String {
        let registry = self.registry.as_deref().unwrap_or("(no registry)");
        let mut lines = vec![format!("{} in {registry}", self.service)];
        let mut last = None;
        for finding in &self.findings {
            if finding.instance != last {
                lines.extend(finding.instance.clone());
                last.clone_from(&finding.instance);
            }
            let indent = if finding.instance.is_some() { "  " } else { "" };
            let (mark, step) = (finding.result.mark(), finding.step);
            lines.push(format!("{indent}{mark}  {step:<11}  {}", finding.message));
            if let Some(remedy) = &finding.remedy {
                lines.push(format!("{indent}      {:<11}  -> {remedy}", ""));
            }
        }
        lines.push(self.summary());
        lines.join("\n") + "\n"
    }

    fn summary(&self) -> String {
        let wrong = self.findings.iter();
        let wrong = wrong.filter(|finding| finding.result >= Weight::Warning);
        let wrong = match wrong.count() {
            1 => "1 finding".to_owned(),
            count => format!("{count} findings"),
        };
        let usable = instance_text::count(self.usable);
        match self.outcome {
            Outcome::Fine => format!("fine: calls can use {usable}"),
            Outcome::Warnings => format!("warnings: calls can use {usable}; {wrong}"),
            Outcome::Broken => format!("broken: calls can use no instance; {wrong}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use discovery::Instance;

    use super::*;

    #[test]
    fn each_instance_has_its_lines_and_the_outcome_is_last() {
        let instance = Instance::new("10.0.0.1", 1).unwrap().with_id("trim-1");
        let findings = vec![
            Finding::ok("registry", "answered"),
            Finding::broken("connection", "refused", "nothing listens", "start it").of(&instance),
        ];
        let report = Report::new("trim", Some("consul://h:1"), findings, 0);
        assert_eq!(
            report.text(),
            "trim in consul://h:1\n\
             ok    registry     answered\n\
             trim-1\n  FAIL  connection   nothing listens\n\
             \x20                    -> start it\n\
             broken: calls can use no instance; 1 finding\n"
        );
    }
}
