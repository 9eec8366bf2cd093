//! The difference between this machine's clock and the registry's, by the `Date` of an HTTP answer.
//!
//! A wrong clock makes good certificates look expired or not yet valid.

use std::time::{Duration, SystemTime};

use discovery::registry::RegistryUrl;

use super::{
    Finding,
    finding::Weight,
    sniff::{self, ProbeResult},
    wire::Wire,
};

/// A `Date` has whole seconds, and the answer takes time to arrive. Certificates are valid for hours at
/// least.
const TOLERANCE: Duration = Duration::from_secs(10);

/// The difference between a registry's clock and this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skew {
    /// The clocks agree.
    None,
    /// The registry's clock is ahead of this machine's.
    Ahead(Duration),
    /// The registry's clock is behind.
    Behind(Duration),
}

impl Skew {
    fn between(registry: SystemTime, here: SystemTime) -> Self {
        match registry.duration_since(here) {
            Ok(ahead) if ahead > TOLERANCE => Self::Ahead(ahead),
            Err(behind) if behind.duration() > TOLERANCE => Self::Behind(behind.duration()),
            _ => Self::None,
        }
    }

    /// The difference between the clocks, as a finding.
    pub(super) fn finding(self) -> Option<Finding> {
        let (time, word) = match self {
            Self::None => return None,
            Self::Ahead(time) => (time, "ahead of"),
            Self::Behind(time) => (time, "behind"),
        };
        Some(Finding::new(
            "clock",
            Weight::Warning,
            "clock_skew",
            format!(
                "the registry's clock is {} {word} this machine's",
                about(time)
            ),
            "compare `date -u` on both machines and synchronise the wrong one (NTP)",
        ))
    }

    /// A sentence about the clocks, for a certificate that is outside its time.
    pub(super) fn hint(self) -> String {
        match self {
            Self::None => "the registry's clock agrees with this machine's".to_owned(),
            Self::Ahead(time) => format!(
                "the registry's clock is {} ahead of this machine's, whose clock may be wrong",
                about(time)
            ),
            Self::Behind(time) => format!(
                "the registry's clock is {} behind this machine's, whose clock may be wrong",
                about(time)
            ),
        }
    }
}

/// The difference to the clock of a registry that speaks plain HTTP/1. `None` for others, and without an
/// answer.
pub(super) async fn of_registry(name: &str, limit: Duration) -> Option<Skew> {
    let url = RegistryUrl::parse(name).ok()?;
    let wire = Wire::of(url.scheme())?;
    if !wire.is_http1 || wire.is_tls {
        return None;
    }
    let hosts = url.hosts(wire.port).ok()?;
    match sniff::http1(hosts.first()?, limit).await {
        Some(ProbeResult::Http1 { date: Some(date) }) => {
            Some(Skew::between(date, SystemTime::now()))
        }
        _ => None,
    }
}

/// A time in its two largest units.
pub(super) fn about(time: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    let units: Vec<_> = text.split(' ').take(2).collect();
    units.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_said_with_the_direction() {
        let here = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hour = Duration::from_secs(3600);
        assert_eq!(Skew::between(here + TOLERANCE, here), Skew::None);
        assert_eq!(Skew::between(here - TOLERANCE, here), Skew::None);
        assert_eq!(Skew::between(here + hour, here), Skew::Ahead(hour));
        let behind = Skew::between(here - hour, here).finding().unwrap();
        assert!(behind.message.contains("1h behind"), "{behind:?}");
        assert!(Skew::None.finding().is_none());
        assert_eq!(about(Duration::from_millis(93_784_500)), "1day 2h");
    }
}
