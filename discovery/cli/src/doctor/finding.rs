//! A finding of one step, and the outcome of all of them.

use discovery::Instance;
use serde::Serialize;

use crate::exit;

/// The weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Weight {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// Something is wrong, and calls may still work.
    Warning,
    /// Its subject does not work.
    Broken,
}

impl Weight {
    /// The mark in the text, of one width, which tells the weight without colour.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok  ",
            Self::Note => "note",
            Self::Warning => "WARN",
            Self::Broken => "FAIL",
        }
    }
}

/// The finding of one step.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// The step: `registry`, `clock`, `service`, `health`, `connection`, `protocol`, `certificate`, `grpc`,
    /// `reflection`, `latency` or `channel`.
    pub(super) step: &'static str,
    /// The ID of the instance that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instance: Option<String>,
    pub(super) result: Weight,
    /// A stable name of the cause, for scripts.
    pub(super) cause: &'static str,
    /// The finding, with the values seen.
    pub(super) message: String,
    /// The remedy. `None` if nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(step: &'static str, message: impl Into<String>) -> Self {
        Self {
            step,
            instance: None,
            result: Weight::Ok,
            cause: "ok",
            message: message.into(),
            remedy: None,
        }
    }

    pub(super) fn new(
        step: &'static str,
        result: Weight,
        cause: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            result,
            cause,
            remedy: Some(remedy.into()),
            ..Self::ok(step, message)
        }
    }

    pub(super) fn broken(
        step: &'static str,
        cause: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(step, Weight::Broken, cause, message, remedy)
    }

    /// The same finding, about an instance.
    pub(super) fn of(mut self, instance: &Instance) -> Self {
        self.instance = Some(instance.id.clone());
        self
    }
}

/// The outcome for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Nothing is wrong.
    Fine,
    /// Calls work, and something is wrong.
    Warnings,
    /// Calls do not work.
    Broken,
}

impl Outcome {
    /// The outcome of these findings, if so many instances can be called.
    pub(super) fn of(findings: &[Finding], usable: usize) -> Self {
        if usable == 0 {
            return Self::Broken;
        }
        match findings.iter().map(|finding| finding.result).max() {
            Some(Weight::Warning | Weight::Broken) => Self::Warnings,
            _ => Self::Fine,
        }
    }

    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Fine => exit::FINE,
            Self::Warnings => exit::WARNINGS,
            Self::Broken => exit::BROKEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_work_if_one_instance_does() {
        let bad =
            Finding::broken("connection", "refused", "", "").of(&Instance::new("a", 1).unwrap());
        let note = Finding::new("reflection", Weight::Note, "no_reflection", "", "");
        for (findings, usable, outcome) in [
            (vec![], 0, Outcome::Broken),
            (vec![note.clone()], 1, Outcome::Fine),
            (vec![note.clone(), bad.clone()], 1, Outcome::Warnings),
            (vec![bad], 0, Outcome::Broken),
        ] {
            assert_eq!(Outcome::of(&findings, usable), outcome, "{findings:?}");
        }
    }
}
