//! Limits of concurrent calls, fixed or learnt from latency: an instance that has more calls than it can
//! process makes all of them slow, so further ones go elsewhere or fail at once.
//!
//! A channel applies a limit to each of its instances
//! ([`ChannelBuilder::concurrency_limit`](crate::ChannelBuilder::concurrency_limit)). A server applies
//! one to its own requests with a [`Limiter`]:
//!
//! ```
//! use discovery::limit::{ConcurrencyLimit, Limiter};
//!
//! # async fn answer() -> &'static str { "answer" }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limit: ConcurrencyLimit = "auto".parse()?;
//! let limiter = Limiter::new(&limit).ok_or("no limit")?;
//! match limiter.try_acquire() {
//!     Some(mut permit) => {
//!         let answer = answer().await;
//!         permit.answered();
//!         assert_eq!(answer, "answer");
//!     }
//!     None => println!("refuse the request: RESOURCE_EXHAUSTED, or HTTP status 503"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A learnt limit follows the idea of Netflix's
//! [concurrency-limits](https://github.com/Netflix/concurrency-limits), which is that of TCP Vegas
//! (Brakmo and Peterson, 1995): more calls than the server can process at a time do not raise its
//! throughput but the latency. [`Learnt`] has the rule.

mod in_flight;
mod learner;
mod learnt;
mod limiter;

use std::{fmt, num::NonZeroU32, str::FromStr};

pub(crate) use self::{in_flight::InFlight, learner::Learner};
pub use self::{
    learnt::{Learnt, LearntLimit, Window},
    limiter::{Limiter, Permit},
};
use crate::error::InvalidSetting;

/// A limit of concurrent calls. As text: `off`, `auto` or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ConcurrencyLimit {
    /// No limit. The default.
    #[default]
    Off,
    /// This many calls.
    Fixed(NonZeroU32),
    /// Learnt from the latency of the calls.
    Learnt(LearntLimit),
}

impl ConcurrencyLimit {
    /// A learnt limit with the default settings.
    #[must_use]
    pub fn learnt() -> Self {
        Self::Learnt(LearntLimit::default())
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        match self {
            Self::Learnt(learnt) => learnt.validate(),
            Self::Off | Self::Fixed(_) => Ok(()),
        }
    }
}

impl FromStr for ConcurrencyLimit {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, InvalidSetting> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::learnt()),
            _ => text.parse().map(Self::Fixed).map_err(|_| {
                let expected = "expected auto, off or a whole number from 1 to 4294967295";
                InvalidSetting::new("concurrency_limit", format!("{text:?}"), expected)
            }),
        }
    }
}

impl fmt::Display for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Fixed(limit) => write!(f, "{limit}"),
            Self::Learnt(_) => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_it_is_read() {
        for text in ["off", "auto", "1", "4294967295"] {
            let limit: ConcurrencyLimit = text.parse().unwrap();
            assert_eq!(limit.to_string(), text);
        }
        for text in ["", "0", "-1", "Auto", "1.5", "4294967296"] {
            let error = text.parse::<ConcurrencyLimit>().unwrap_err().to_string();
            let expected = format!("concurrency_limit is {text:?}: expected auto, off or");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
