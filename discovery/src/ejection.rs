//! Outlier ejection: takes an endpoint out of picking on the evidence of real calls, and lets it
//! back.
//!
//! ```text
//! Admitted --evidence--> Ejected --time over, probe answered--> Probation --one good call--> Admitted
//!                           ^------------- probe or call failed ----'        (with a slow start)
//! ```
//!
//! The evidence is of three kinds. Failures in a row, counted apart for broken connections and for
//! bad statuses, as Envoy does; they work with two instances as with a thousand. A failing share
//! that stands out against what the others show together, which works from two instances up. And
//! the success rate against mean and standard deviation (gRPC proposal A50), from five instances up.
//! If every instance fails alike, none stands out and none is ejected by share.
//!
//! Pure: the time comes in as a parameter, nothing is sent. [`Health`] is written by calls without
//! a lock; [`Ejector::review`] runs in the endpointer's task and decides.

mod ejector;
mod health;
#[cfg(all(test, discovery_loom))]
mod loom_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use self::{ejector::Ejector, health::Health};

/// When to eject, and for how long.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EjectionPolicy {
    /// Off: nothing is ever ejected. Default: on.
    pub enabled: bool,
    /// Broken connections and unanswered calls in a row that eject; 0 turns it off. Default: 3.
    pub consecutive_transport: u32,
    /// Statuses in a row that blame the server; 0 turns it off. Default: 5, as in Envoy.
    pub consecutive_status: u32,
    /// Calls in a row that a second attempt elsewhere has overtaken (hedging); 0 turns it off.
    /// Default: 10, which one call in twenty does not reach by chance.
    pub consecutive_overtaken: u32,
    /// How far back shares are counted. Default: 10 s, as in A50.
    pub window: Duration,
    /// Calls an instance must have had in the window before its share counts. Default: 5, as in
    /// Linkerd.
    pub min_calls: u32,
    /// Failing share that ejects, if it is also three times the share of all others together; 1
    /// turns it off. Default: 0.2, as in Linkerd.
    pub failing_share: f64,
    /// Standard deviations below the mean success rate that eject, with five instances or more and
    /// a hundred calls each; 0 turns it off. Default: 1.9, as in A50.
    pub success_rate_deviations: f64,
    /// Time of a first ejection; the n-th in short order takes n times as long. Default: 3 s; A50
    /// has 30 s, but returns without a probe.
    pub base_time: Duration,
    /// No ejection takes longer. Default: 60 s.
    pub max_time: Duration,
    /// Share of the instances that may be out at the same time, at least one, never all.
    /// Default: 0.5; A50 has 0.1, which is less than one instance below ten.
    pub max_share: f64,
    /// Time over which a returning instance gets from a tenth of its share to all of it.
    /// Default: 5 s.
    pub slow_start: Duration,
}

impl Default for EjectionPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_transport: 3,
            consecutive_status: 5,
            consecutive_overtaken: 10,
            window: Duration::from_secs(10),
            min_calls: 5,
            failing_share: 0.2,
            success_rate_deviations: 1.9,
            base_time: Duration::from_secs(3),
            max_time: Duration::from_secs(60),
            max_share: 0.5,
            slow_start: Duration::from_secs(5),
        }
    }
}

/// What one ended attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
    /// Answered; whatever the answer was, the server is not to blame.
    Success,
    /// The connection broke, or no answer came in time.
    Transport,
    /// A status that blames the server.
    Status,
    /// The server said that it has too much to do: it counts toward shares only, for an instance
    /// that sheds load is alive.
    Overloaded,
    /// Still out when a second attempt elsewhere was answered. The slow end of a healthy latency
    /// looks like this as well, so only a long run of it counts.
    Overtaken,
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EjectionState {
    /// Takes calls.
    Admitted,
    /// Takes none until its time is over.
    Ejected,
    /// Its time is over and a probe is under way.
    Probing,
    /// Takes one call at a time.
    Probation,
}

impl EjectionState {
    const ALL: [Self; 4] = [
        Self::Admitted,
        Self::Ejected,
        Self::Probing,
        Self::Probation,
    ];
}
