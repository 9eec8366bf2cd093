//! The operations of the service, for gRPC and HTTP alike: adds two numbers, joins two texts.

use std::num::NonZeroU32;

use axum::http::HeaderMap;
use discovery::{Deadline, HashKey};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tonic::Status;

use crate::{
    caller::Caller,
    trim::{RemoteTrim, Traced},
};

/// A business error of the contract. It is a field of the answer, not a status of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BusinessError {
    /// The sum does not fit an int64.
    #[error("integer overflow")]
    Overflow,
    /// Both texts are empty after trimming.
    #[error("can't concat two empty strings")]
    TwoEmptyStrings,
}

/// The result of a concatenation and the instances that took part.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) result: Result<String, BusinessError>,
    /// IDs of the trim instances that served the first and the second text.
    pub(crate) instances: String,
}

/// Adds two numbers.
pub(crate) fn sum(a: i64, b: i64) -> Result<i64, BusinessError> {
    a.checked_add(b).ok_or(BusinessError::Overflow)
}

/// Joins two trimmed texts.
pub(crate) fn join(a: String, b: &str) -> Result<String, BusinessError> {
    let text = a + b;
    if text.is_empty() {
        Err(BusinessError::TwoEmptyStrings)
    } else {
        Ok(text)
    }
}

/// The service; one for all connections.
pub(crate) struct AddService {
    trim: RemoteTrim,
    limit: Option<DefaultDirectRateLimiter>,
}

impl AddService {
    pub(crate) fn new(trim: RemoteTrim, rate_limit: Option<NonZeroU32>) -> Self {
        Self {
            trim,
            limit: rate_limit.map(|limit| RateLimiter::direct(Quota::per_second(limit))),
        }
    }

    /// Admits a request if the rate limit allows it.
    pub(crate) fn admit(&self) -> Result<(), Status> {
        match &self.limit {
            Some(limit) if limit.check().is_err() => Err(Status::resource_exhausted(
                "too many requests; try again later",
            )),
            _ => Ok(()),
        }
    }

    /// The caller of a request. Its key is the value of the header that the policy names.
    pub(crate) fn caller(&self, headers: &HeaderMap, deadline: Option<Deadline>) -> Caller {
        let key = self.trim.key_header().and_then(|name| headers.get(name));
        Caller {
            deadline,
            key: key.map(|value| HashKey::of(value.as_bytes())),
        }
    }

    /// Trims one text for an operator, with the attempts that it takes.
    pub(crate) async fn trim_traced(&self, text: String, caller: Caller) -> Traced {
        self.trim.trace(text, caller).await
    }

    /// Joins two texts without their spaces. Both are trimmed at the same time.
    pub(crate) async fn concat(
        &self,
        a: String,
        b: String,
        caller: Caller,
    ) -> Result<Joined, Status> {
        let (a, b) = tokio::try_join!(
            // Boxed: the futures around them are moved several times, and these are large.
            Box::pin(self.trim.trim(a, caller)),
            Box::pin(self.trim.trim(b, caller)),
        )?;
        Ok(Joined {
            result: join(a.text, &b.text),
            instances: format!("{},{}", a.instance, b.instance),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_does_not_fit_is_a_business_error() {
        assert_eq!(sum(1, 2), Ok(3));
        assert_eq!(sum(i64::MAX, i64::MIN), Ok(-1));
        for (a, b) in [(i64::MAX, 1), (i64::MIN, -1)] {
            assert_eq!(sum(a, b), Err(BusinessError::Overflow));
        }
    }
}
