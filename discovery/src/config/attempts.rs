//! `retryPolicy`, `hedgingPolicy` and `retryThrottling` (gRFC A6).

use std::time::Duration;

use super::{
    error::{ConfigError, ConfigWarning},
    node::Node,
};
use crate::{backoff::Backoff, code::Code, retry::ThrottlePolicy};

/// More attempts than this are reduced to it (gRFC A6).
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// How a call of a method is tried again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttemptRule {
    /// After a failure.
    Retry {
        max_attempts: u32,
        backoff: Backoff,
        codes: Vec<Code>,
    },
    /// Beside an attempt that has no answer yet.
    Hedging {
        max_attempts: u32,
        delay: Duration,
        /// Codes after which the other attempts go on.
        non_fatal: Vec<Code>,
    },
}

fn max_attempts(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<u32, ConfigError> {
    let attempts = node.number(2)?;
    if attempts > MAX_ATTEMPTS {
        let reason = format!("is {attempts}: reduced to {MAX_ATTEMPTS}, as in gRPC");
        warnings.push(node.warning(reason));
    }
    Ok(attempts.min(MAX_ATTEMPTS))
}

/// Reads a `retryPolicy`, all of whose fields are required.
pub(super) fn retry(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<AttemptRule, ConfigError> {
    let mut object = node.object()?;
    let missing = |field: &str| node.invalid(format!("{field} is required"));
    let attempts = object
        .take("maxAttempts")
        .ok_or_else(|| missing("maxAttempts"))?;
    let first = object
        .take("initialBackoff")
        .ok_or_else(|| missing("initialBackoff"))?;
    let ceiling = object
        .take("maxBackoff")
        .ok_or_else(|| missing("maxBackoff"))?;
    let multiplier = object
        .take("backoffMultiplier")
        .ok_or_else(|| missing("backoffMultiplier"))?;
    let codes = object
        .take("retryableStatusCodes")
        .ok_or_else(|| missing("retryableStatusCodes"))?;
    let list = codes.codes()?;
    if list.is_empty() {
        return Err(codes.invalid("at least one status code is required"));
    }
    let first = first.positive_duration()?;
    let ceiling = ceiling.positive_duration()?;
    // gRPC accepts a first backoff above the maximum, which then is every backoff.
    let backoff = Backoff::new(first.min(ceiling), ceiling)
        .with_multiplier(multiplier.float(|it| it > 0.0, "must be a number greater than zero")?);
    let rule = AttemptRule::Retry {
        max_attempts: max_attempts(&attempts, warnings)?,
        backoff,
        codes: list,
    };
    object.finish(warnings);
    Ok(rule)
}

/// Reads a `hedgingPolicy`.
pub(super) fn hedging(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<AttemptRule, ConfigError> {
    let mut object = node.object()?;
    let attempts = object
        .take("maxAttempts")
        .ok_or_else(|| node.invalid("maxAttempts is required"))?;
    let rule = AttemptRule::Hedging {
        max_attempts: max_attempts(&attempts, warnings)?,
        delay: object
            .optional("hedgingDelay", Node::duration)?
            .unwrap_or_default(),
        non_fatal: object
            .optional("nonFatalStatusCodes", Node::codes)?
            .unwrap_or_default(),
    };
    object.finish(warnings);
    Ok(rule)
}

/// Reads `retryThrottling`.
pub(super) fn throttling(
    node: &Node<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<ThrottlePolicy, ConfigError> {
    let mut object = node.object()?;
    let tokens = object
        .take("maxTokens")
        .ok_or_else(|| node.invalid("maxTokens is required"))?;
    let ratio = object
        .take("tokenRatio")
        .ok_or_else(|| node.invalid("tokenRatio is required"))?;
    let policy = ThrottlePolicy {
        max_tokens: u32::try_from(tokens.integer(1, 1_000)?).unwrap_or(1_000),
        // A6 has three decimal places; a smaller ratio would never add a token.
        token_ratio: ratio.float(
            |it| (0.001..=1_000.0).contains(&it),
            "must be a number from 0.001 to 1000",
        )?,
    };
    object.finish(warnings);
    Ok(policy)
}
