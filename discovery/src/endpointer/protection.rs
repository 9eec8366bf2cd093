//! The settings of the protection against sudden removals.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::InvalidSetting;

/// Protection against a registry that suddenly offers far fewer instances.
///
/// If more than a [`share`](Self::share) of the instances leaves at once, the registry may have failed
/// and not the instances. It does not matter whether they are no longer listed, or listed as failing
/// or lost. Those whose connections work stay as a last resort: they receive calls only if no offered
/// instance can. Eureka calls this self-preservation, and Envoy panic routing.
///
/// Each of them stays as long as it reports `SERVING` to a health check every second on its connection,
/// without a limit of time by default. It goes at once if it reports another status or refuses
/// connections, after two checks without an answer, or when it is deregistered alone. One without the
/// health service (`grpc.health.v1.Health`) stays for 30 s.
///
/// Removals from a source that is [authoritative](crate::registry::Instancer::authoritative), such as a
/// static list, take effect at once.
///
/// The log says when instances are kept and why each one goes. The metric `discovery_endpoints` has the
/// state `protected` for them, and [`EndpointStatus::protected`](crate::EndpointStatus::protected) is
/// true.
///
/// ```
/// use std::time::Duration;
/// use discovery::RemovalProtection;
///
/// let protection = RemovalProtection::default().with_limit(Duration::from_secs(600));
/// assert!(protection.validate().is_ok());
/// assert!(protection.with_share(2.0).validate().is_err());
/// let off = RemovalProtection::default().with_limit(Duration::ZERO);
/// assert!(off.validate().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RemovalProtection {
    /// A set that loses more than this share at once, or all of it, is protected; from 0 to 1.
    /// Default: 0.5.
    pub share: f64,
    /// Maximum time for which an instance is kept; zero turns the protection off. Default: `None`,
    /// without a limit.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::serialize::optional_seconds")
    )]
    pub limit: Option<Duration>,
}

impl RemovalProtection {
    /// Sets [`share`](Self::share).
    #[must_use]
    pub fn with_share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    /// Sets [`limit`](Self::limit).
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
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

    pub(super) fn off(self) -> Self {
        self.with_limit(Duration::ZERO)
    }

    pub(super) fn is_on(&self) -> bool {
        self.limit != Some(Duration::ZERO)
    }

    /// True if `left` of `all` instances are more than the share.
    pub(super) fn is_sudden(&self, left: usize, all: usize) -> bool {
        #[allow(
            clippy::cast_precision_loss,
            reason = "a set has fewer than 2^52 instances"
        )]
        let (left, all) = (left as f64, all as f64);
        left > self.share * all
    }

    /// The end of the protection of an instance that is kept since this time.
    pub(super) fn ends(&self, since: Instant) -> Option<Instant> {
        since.checked_add(self.limit?)
    }
}

impl Default for RemovalProtection {
    fn default() -> Self {
        Self {
            share: 0.5,
            limit: None,
        }
    }
}
