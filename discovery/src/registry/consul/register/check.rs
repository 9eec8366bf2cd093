//! The check in the body of a registration.

use std::time::Duration;

use serde::Serialize;

use crate::registry::{Check, GrpcCheck, Registration};

/// The check's ID contains the instance's, because check IDs are unique per agent.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckDefinition {
    #[serde(rename = "CheckID")]
    check_id: String,
    name: &'static str,
    /// Consul's default is critical until the first run.
    status: &'static str,
    #[serde(flatten)]
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Kind {
    #[serde(rename_all = "PascalCase")]
    Grpc {
        /// `HOST:PORT` or `HOST:PORT/SERVICE`.
        #[serde(rename = "GRPC")]
        target: String,
        #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
        tls: bool,
        #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
        skip_verify: bool,
        interval: String,
        timeout: String,
    },
    Ttl {
        #[serde(rename = "TTL")]
        ttl: String,
    },
}

impl CheckDefinition {
    /// `None` for a registration without a check.
    pub(super) fn new(registration: &Registration) -> Result<Option<Self>, String> {
        let (name, kind) = match &registration.check {
            Check::None | Check::Default => return Ok(None),
            Check::Ttl { ttl } => (
                "heartbeat",
                Kind::Ttl {
                    ttl: text("TTL", *ttl)?,
                },
            ),
            Check::Grpc(check) => ("gRPC health", Kind::grpc(registration, check)?),
        };
        Ok(Some(Self {
            check_id: check_id(&registration.instance.id),
            name,
            status: "passing",
            kind,
            deregister_critical_service_after: registration
                .deregister_critical_after
                .map(|after| text("deregister-critical-after", after))
                .transpose()?,
        }))
    }
}

impl Kind {
    fn grpc(registration: &Registration, check: &GrpcCheck) -> Result<Self, String> {
        let mut target = registration.instance.authority();
        if check.service.chars().any(char::is_control) {
            return Err("the check's service name contains a control character".to_owned());
        }
        if !check.service.is_empty() {
            target.push('/');
            target.push_str(&check.service);
        }
        Ok(Self::Grpc {
            target,
            tls: check.tls,
            skip_verify: check.skip_verify,
            interval: text("interval", check.interval)?,
            timeout: text("timeout", check.timeout)?,
        })
    }
}

/// A duration as Consul writes it.
fn text(what: &str, duration: Duration) -> Result<String, String> {
    match duration.as_millis() {
        0 => Err(format!("the check's {what} is under a millisecond")),
        millis => Ok(format!("{millis}ms")),
    }
}
