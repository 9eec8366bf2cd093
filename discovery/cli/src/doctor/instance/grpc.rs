//! The checks of an instance over gRPC: its health service, its reflection, and its latency.

use std::time::Duration;

use discovery::{CallOptions, Channel};
use tokio::time::Instant;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use super::super::{Finding, StepContext, finding::Weight};
use crate::reflection;

/// Number of calls for the latency.
const CALLS: usize = 5;
/// Half of the time that a channel gives a call by default.
const SLOW: Duration = Duration::from_millis(250);

/// The findings, and the services that the instance offers, if its reflection lists them.
pub(super) struct GrpcFindings {
    pub(super) findings: Vec<Finding>,
    pub(super) services: Option<Vec<String>>,
}

/// Calls the instance, the only one of the channel.
pub(super) async fn examine(context: &StepContext<'_>, channel: &Channel) -> GrpcFindings {
    let limit = context.args.timeout;
    let wanted = context.args.grpc_service.as_deref();
    let health = check(channel, "", limit).await;
    let mut findings = vec![overall(&health)];
    let mut all = GrpcFindings {
        findings: Vec::new(),
        services: None,
    };
    match reflection::services(channel, limit).await {
        Ok(names) => {
            findings.push(offers(&names, wanted));
            all.services = Some(names);
        }
        Err(status) => {
            findings.push(no_reflection(&status));
            if let Some(wanted) = wanted {
                findings.push(by_health(wanted, &check(channel, wanted, limit).await));
            }
        }
    }
    if health.is_ok() {
        findings.extend(latency(channel, limit).await);
    }
    all.findings = findings;
    all
}

async fn check(channel: &Channel, service: &str, limit: Duration) -> Result<ServingStatus, Status> {
    let mut request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    request
        .extensions_mut()
        .insert(CallOptions::new().with_timeout(limit));
    let answer: HealthCheckResponse = HealthClient::new(channel.clone())
        .check(request)
        .await?
        .into_inner();
    Ok(answer.status())
}

/// The finding about the health of the server as a whole.
fn overall(health: &Result<ServingStatus, Status>) -> Finding {
    let status = match health {
        Ok(ServingStatus::Serving) => {
            return Finding::ok("grpc", "its health service says SERVING");
        }
        Ok(other) => {
            return Finding::broken(
                "grpc",
                "not_serving",
                format!("its health service says {}", other.as_str_name()),
                "the server is starting, shutting down or waits for something: see its log",
            );
        }
        Err(status) => status,
    };
    let message = status.message();
    match status.code() {
        // The texts with which a channel reports an answer that is not gRPC's.
        _ if message.contains("HTTP status") || message.contains("content-type") => {
            Finding::broken(
                "grpc",
                "not_grpc",
                format!("it speaks HTTP/2, and not gRPC: {message}"),
                "register the address of the gRPC server; a proxy in front must pass gRPC on",
            )
        }
        Code::Unimplemented | Code::NotFound => Finding::new(
            "grpc",
            Weight::Note,
            "no_health_service",
            "it has no overall health in grpc.health.v1.Health",
            "add the health service: without it, an ejected instance is tried with a real call, and \
             Consul's gRPC check fails",
        ),
        code @ (Code::Unauthenticated | Code::PermissionDenied) => Finding::new(
            "grpc",
            Weight::Note,
            "health_denied",
            format!("its health service answers {code:?}: {message}"),
            "let the health service answer without credentials, as probes have none",
        ),
        code => Finding::broken(
            "grpc",
            "call_fails",
            format!("a call of its health service ended with {code:?}: {message}"),
            "see the server's log; raise --timeout if it is slow",
        ),
    }
}

/// The finding about the services that it offers.
fn offers(names: &[String], wanted: Option<&str>) -> Finding {
    let offered = listed(names);
    match wanted {
        Some(wanted) if !names.iter().any(|name| name == wanted) => Finding::broken(
            "reflection",
            "wrong_service",
            format!("it offers {offered}, and not {wanted}"),
            "another service is behind the address: check what is deployed there, or the address and the \
             port that the instance registers",
        ),
        _ => Finding::ok("reflection", format!("it offers {offered}")),
    }
}

fn no_reflection(status: &Status) -> Finding {
    if status.code() == Code::Unimplemented {
        let message = "it has no reflection (grpc.reflection.v1 or v1alpha)";
        let remedy = "turn it on for tools: without it, `discovery call` cannot call it";
        return Finding::new("reflection", Weight::Note, "no_reflection", message, remedy);
    }
    Finding::new(
        "reflection",
        Weight::Warning,
        "reflection_fails",
        format!(
            "its reflection answers {:?}: {}",
            status.code(),
            status.message()
        ),
        "see the server's log",
    )
}

/// The finding about a wanted service of a server without reflection: its health service may report it.
fn by_health(wanted: &str, health: &Result<ServingStatus, Status>) -> Finding {
    match health {
        Ok(ServingStatus::Serving) => Finding::ok(
            "grpc",
            format!("its health service says {wanted} is SERVING"),
        ),
        Ok(other) => Finding::broken(
            "grpc",
            "not_serving",
            format!(
                "its health service says {wanted} is {}",
                other.as_str_name()
            ),
            "see the server's log; another service may be behind the address",
        ),
        Err(_) => Finding::new(
            "grpc",
            Weight::Warning,
            "service_not_confirmed",
            format!("neither reflection nor the health service reports {wanted}"),
            "turn on reflection in the server, or let its health service report the service",
        ),
    }
}

/// The latency of a few calls of the health service. `None` if one fails.
async fn latency(channel: &Channel, limit: Duration) -> Option<Finding> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        check(channel, "", limit).await.ok()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let (median, longest) = (times[CALLS / 2], times[CALLS - 1]);
    let message = format!("a call takes {median:.1?}, the longest of {CALLS} took {longest:.1?}");
    Some(if median < SLOW {
        Finding::ok("latency", message)
    } else {
        Finding::new(
            "latency",
            Weight::Warning,
            "slow",
            message,
            "check the load of the machine and the network to it; a channel gives a call 500 ms by default",
        )
    })
}

/// Names of services as a text.
pub(super) fn listed(names: &[String]) -> String {
    let own = names
        .iter()
        .filter(|name| !name.starts_with("grpc.health."));
    let own: Vec<_> = own.map(String::as_str).collect();
    if own.is_empty() {
        "no service of its own".to_owned()
    } else {
        own.join(", ")
    }
}
