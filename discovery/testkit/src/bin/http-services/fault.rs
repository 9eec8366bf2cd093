//! The faults that a trim server injects into its own calls, as the trim service's `--fault` names them.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use axum::http::StatusCode;

/// A fault of a share of the calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    rate: f64,
    latency: Duration,
    error: Option<StatusCode>,
}

impl Fault {
    /// Waits, and returns the status to answer with, if the fault is one.
    pub(crate) async fn inject(self) -> Option<StatusCode> {
        if fastrand::f64() >= self.rate {
            return None;
        }
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        self.error
    }
}

impl FromStr for Fault {
    type Err = Error;

    /// Reads `latency=300ms,rate=1` or `error=unavailable,rate=0.3`.
    fn from_str(text: &str) -> Result<Self> {
        let mut fault = Self {
            rate: 1.0,
            latency: Duration::ZERO,
            error: None,
        };
        for part in text.split(',') {
            let (name, value) = part.split_once('=').context("expected NAME=VALUE")?;
            match (name, value) {
                ("rate", _) => fault.rate = value.parse()?,
                ("latency", _) => {
                    let millis = value
                        .strip_suffix("ms")
                        .context("expected a latency in ms")?;
                    fault.latency = Duration::from_millis(millis.parse()?);
                }
                ("error", "unavailable") => fault.error = Some(StatusCode::SERVICE_UNAVAILABLE),
                ("error", "internal") => fault.error = Some(StatusCode::INTERNAL_SERVER_ERROR),
                _ => bail!(
                    "unknown fault {part:?}: expected latency, rate, or error=unavailable|internal"
                ),
            }
        }
        Ok(fault)
    }
}
