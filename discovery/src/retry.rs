//! Retry policy: how many attempts a call has, in how much time, and after which failures, with backoff
//! and a budget.
//!
//! The decision after a failed attempt is a pure function. It follows gRPC's retry design (gRFC A6) and
//! adds the cases that Go kit's users expect to be retried:
//!
//! | outcome of the attempt | retried |
//! |---|---|
//! | not processed: no connection, `GOAWAY`, `REFUSED_STREAM` | always, and not counted as an attempt |
//! | a status in [`RetryPolicy::codes`], or a connection lost after the request was sent (`UNAVAILABLE`) | yes |
//! | a status in [`RetryPolicy::idempotent_codes`] | if the method is declared idempotent |
//! | overdue: no answer in the method's [learnt time](RetryPolicy::learn_attempt_timeout), or in [`RetryPolicy::attempt_timeout`] | if the method is declared idempotent: another attempt begins elsewhere, and the first may still answer |
//! | any other outcome, or any failure after the first message of the response | no |
//!
//! Every retry needs time before the deadline, an attempt left, and a token of the
//! [budget](BudgetPolicy), which keeps retries from amplifying an outage. A retry of an unprocessed
//! request needs only the time. A server can set the delay before the next attempt, or forbid one
//! (`grpc-retry-pushback-ms`).

pub(crate) mod attempts;
pub(crate) mod budget;
mod decision;
pub(crate) mod learnt;
#[cfg(feature = "descriptors")]
pub(crate) mod methods;
mod policy;
pub(crate) mod replay;
pub(crate) mod throttle;
pub(crate) mod usual;

pub(crate) use self::decision::{Decision, Failure, Progress, max_wrong_servers};
#[cfg(feature = "service-config")]
pub(crate) use self::throttle::ThrottlePolicy;
pub use self::{
    attempts::{Attempt, CallError, CallErrorKind, EarlierAttempts},
    budget::BudgetPolicy,
    policy::{Hedge, RetryPolicy},
};
