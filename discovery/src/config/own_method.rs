//! The settings of a method that gRPC does not have.

use std::time::Duration;

use super::{
    error::{ConfigError, ConfigWarning},
    node::Node,
};
use crate::{code::Code, retry::Hedge};

/// The settings under the key of this crate in an entry of `methodConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OwnMethod {
    pub(crate) idempotent: Option<bool>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) learn_attempt_timeout: Option<bool>,
    /// `Some(None)` turns hedging off.
    #[allow(clippy::option_option, reason = "absent, off, or a value")]
    pub(crate) hedge: Option<Option<Hedge>>,
    pub(crate) retry_codes: Option<Vec<Code>>,
    pub(crate) idempotent_codes: Option<Vec<Code>>,
    pub(crate) initial_backoff: Option<Duration>,
    pub(crate) max_backoff: Option<Duration>,
    pub(crate) backoff_multiplier: Option<f64>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) elsewhere_at_once: Option<bool>,
    pub(crate) replay_limit: Option<usize>,
}

impl OwnMethod {
    pub(super) fn read(
        node: &Node<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut object = node.object()?;
        let own = Self {
            idempotent: object.optional("idempotent", Node::boolean)?,
            attempt_timeout: object.optional("attemptTimeout", Node::positive_duration)?,
            learn_attempt_timeout: object.optional("learnAttemptTimeout", Node::boolean)?,
            hedge: object.optional("hedge", hedge)?,
            retry_codes: object.optional("retryCodes", Node::codes)?,
            idempotent_codes: object.optional("idempotentCodes", Node::codes)?,
            initial_backoff: object.optional("initialBackoff", Node::positive_duration)?,
            max_backoff: object.optional("maxBackoff", Node::positive_duration)?,
            backoff_multiplier: object.optional("backoffMultiplier", |node| {
                node.float(|it| it > 0.0, "must be a number greater than zero")
            })?,
            max_attempts: object.optional("maxAttempts", |node| node.number(1))?,
            elsewhere_at_once: object.optional("retryElsewhereAtOnce", Node::boolean)?,
            replay_limit: object.optional("replayLimit", Node::size)?,
        };
        object.finish(warnings);
        Ok(own)
    }
}

fn hedge(node: &Node<'_>) -> Result<Option<Hedge>, ConfigError> {
    match node.string()?.as_str() {
        "off" => Ok(None),
        "p95" => Ok(Some(Hedge::Percentile95)),
        _ => match node.positive_duration() {
            Ok(delay) => Ok(Some(Hedge::After(delay))),
            Err(_) => Err(node.invalid("expected \"off\", \"p95\" or seconds such as \"0.05s\"")),
        },
    }
}
