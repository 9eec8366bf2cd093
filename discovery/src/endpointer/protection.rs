//! The settings of the protection against sudden removals.

use std::time::Duration;

use crate::error::InvalidSetting;

/// Protection against a registry that suddenly lists far fewer instances.
///
/// Missing instances whose connections work stay as a last resort: they receive calls only if no
/// listed instance can. Eureka calls this self-preservation. Removals from a source that is
/// [authoritative](crate::registry::Instancer::authoritative), such as a static list, take effect at
/// once.
///
/// ```
/// use std::time::Duration;
/// use discovery::RemovalProtection;
///
/// let off = RemovalProtection::default().with_grace(Duration::ZERO);
/// assert!(off.validate().is_ok());
/// assert!(off.with_share(2.0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RemovalProtection {
    /// A set that loses more than this share at once, or all of it, is protected; from 0 to 1.
    /// Default: 0.5.
    pub share: f64,
    /// Time for which missing instances stay while their connections work; zero turns the protection
    /// off. Default: 30 s.
    pub grace: Duration,
}

impl RemovalProtection {
    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets [`grace`](Self::grace).
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        if (0.0..=1.0).contains(&self.share) {
            return Ok(());
        }
        Err(InvalidSetting::new(
            "protection share",
            self.share.to_string(),
            "must be between 0 and 1",
        ))
    }
}

impl Default for RemovalProtection {
    fn default() -> Self {
        Self {
            share: 0.5,
            grace: Duration::from_secs(30),
        }
    }
}
