//! The box to try a method: a call, its result, and the attempts that it took. The calls are those of
//! any caller: they count against the rate limit, and are balanced and retried alike.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Request, State},
};
use discovery::{Attempt, CallError, Code, Instance};
use serde::Serialize;
use tokio::time::Instant as TokioInstant;
use tonic::Status;

use crate::{
    failure::Failure,
    json::Operands,
    request::{deadline, parse, read},
    service::{self, AddService},
    trim::Traced,
};

/// The state of the handlers.
#[derive(Clone)]
pub(super) struct Tries {
    pub(super) service: Arc<AddService>,
    pub(super) max_body: usize,
}

/// A call and its result.
#[derive(Serialize)]
pub(super) struct Tried<V> {
    /// The value; `None` if the call failed.
    v: Option<V>,
    /// The business error.
    err: Option<String>,
    /// The calls to the trim service.
    calls: Vec<TrimCall>,
    seconds: f64,
}

/// A call to the trim service.
#[derive(Serialize)]
struct TrimCall {
    text: String,
    /// The reason for which it has no answer.
    error: Option<String>,
    attempts: Vec<TriedAttempt>,
    seconds: f64,
}

/// One attempt of a call.
#[derive(Serialize)]
struct TriedAttempt {
    instance: String,
    address: String,
    /// True if it has answered.
    ok: bool,
    /// The status with which it ended.
    code: &'static str,
    reason: String,
    /// The time it took; `None` for the answer, whose end is that of the call.
    seconds: Option<f64>,
}

pub(super) async fn sum(
    State(Tries { service, max_body }): State<Tries>,
    request: Request,
) -> Result<Json<Tried<String>>, Failure> {
    let begun = Instant::now();
    service.admit()?;
    let deadline = deadline(request.headers())?;
    let Operands::<i64> { a, b } = parse(&read(request, max_body, deadline).await?)?;
    // A text, as JavaScript's numbers do not have 64 bits.
    let result = service::sum(a, b).map(|v| v.to_string());
    Ok(Json(Tried::of(result, Vec::new(), begun)))
}

pub(super) async fn concat(
    State(Tries { service, max_body }): State<Tries>,
    request: Request,
) -> Result<Json<Tried<String>>, Failure> {
    let begun = Instant::now();
    service.admit()?;
    let deadline = deadline(request.headers())?;
    let caller = service.caller(request.headers(), deadline);
    let Operands::<String> { a, b } = parse(&read(request, max_body, caller.deadline).await?)?;
    let (first, second) = tokio::join!(traced(&service, a, caller), traced(&service, b, caller));
    let joined = match (first.0, second.0) {
        (Some(a), Some(b)) => Some(service::join(a, &b)),
        _ => None,
    };
    let calls = vec![first.1, second.1];
    Ok(Json(match joined {
        Some(result) => Tried::of(result, calls, begun),
        None => Tried {
            v: None,
            err: None,
            calls,
            seconds: begun.elapsed().as_secs_f64(),
        },
    }))
}

impl<V> Tried<V> {
    fn of(result: Result<V, service::BusinessError>, calls: Vec<TrimCall>, begun: Instant) -> Self {
        let (v, err) = match result {
            Ok(v) => (Some(v), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self {
            v,
            err,
            calls,
            seconds: begun.elapsed().as_secs_f64(),
        }
    }
}

/// Trims one text. Returns the result, if there is one, and the call.
async fn traced(
    service: &AddService,
    text: String,
    caller: crate::caller::Caller,
) -> (Option<String>, TrimCall) {
    let begun = TokioInstant::now();
    let Traced {
        result,
        instance,
        earlier,
    } = service.trim_traced(text.clone(), caller).await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut attempts: Vec<_> = earlier.iter().map(TriedAttempt::failed).collect();
    let status = result.as_ref().err();
    attempts.extend(instance.map(|instance| TriedAttempt::last(&instance, status)));
    let error = status.map(|status| match CallError::of(status) {
        // An error of the channel, which lists its attempts itself.
        Some(error) => {
            attempts.extend(error.attempts.iter().map(TriedAttempt::failed));
            error.reason.clone()
        }
        None => status.message().to_owned(),
    });
    let call = TrimCall {
        text,
        error,
        attempts,
        seconds,
    };
    (result.ok(), call)
}

impl TriedAttempt {
    fn failed(attempt: &Attempt) -> Self {
        Self {
            instance: attempt.instance.id.clone(),
            address: attempt.instance.authority(),
            ok: false,
            code: attempt.code.name(),
            reason: attempt.reason.clone(),
            seconds: Some(attempt.elapsed.as_secs_f64()),
        }
    }

    /// The attempt from which the call has its answer, or the status of an instance.
    fn last(instance: &Instance, status: Option<&Status>) -> Self {
        // Both number the codes as gRPC does.
        let code = status.map_or(0, |status| status.code() as usize);
        Self {
            instance: instance.id.clone(),
            address: instance.authority(),
            ok: status.is_none(),
            code: Code::ALL.get(code).map_or("UNKNOWN", |code| code.name()),
            reason: status.map_or_else(String::new, |status| status.message().to_owned()),
            seconds: None,
        }
    }
}
