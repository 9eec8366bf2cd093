//! The promises of a registry, and those that do not apply to it.

use std::time::Duration;

use super::Case;

/// The bounds that a registry states for a quiet machine, its features, and the cases that do not apply.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    bounds: Vec<(Case, Duration)>,
    features: Vec<(&'static str, &'static str)>,
    not_applicable: Vec<(Case, &'static str)>,
}

impl Promises {
    /// States the time in which a case holds.
    #[must_use]
    pub fn within(mut self, case: Case, bound: Duration) -> Self {
        self.bounds.push((case, bound));
        self
    }

    /// Names a feature and how the registry has it, for example "watch" and "stream".
    #[must_use]
    pub fn feature(mut self, name: &'static str, how: &'static str) -> Self {
        self.features.push((name, how));
        self
    }

    /// Says that a case does not apply, and why.
    #[must_use]
    pub fn without(mut self, case: Case, reason: &'static str) -> Self {
        self.not_applicable.push((case, reason));
        self
    }

    /// The stated bound of a case.
    #[must_use]
    pub fn bound(&self, case: Case) -> Option<Duration> {
        let mut bounds = self.bounds.iter();
        bounds.find(|(of, _)| *of == case).map(|(_, bound)| *bound)
    }

    /// Why a case does not apply, if it does not.
    #[must_use]
    pub fn reason(&self, case: Case) -> Option<&'static str> {
        let mut reasons = self.not_applicable.iter();
        reasons.find(|(of, _)| *of == case).map(|(_, why)| *why)
    }

    /// The features with how the registry has them.
    #[must_use]
    pub fn features(&self) -> &[(&'static str, &'static str)] {
        &self.features
    }
}
