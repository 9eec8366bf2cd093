//! The method of a call: its name, and its description by reflection.

use std::{str::FromStr, time::Duration};

use anyhow::{anyhow, bail, ensure};
use discovery::Channel;
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use prost_types::method_options::IdempotencyLevel;
use tonic::{Code, Status};

use crate::reflection;

/// A method's name: `SERVICE/METHOD`, `/SERVICE/METHOD` or `SERVICE.METHOD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodName {
    service: String,
    method: String,
}

impl MethodName {
    /// The path of the request.
    pub(super) fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let parts = name.split_once('/').or_else(|| name.rsplit_once('.'));
        let is_name = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            !part.is_empty() && part.chars().all(known)
        };
        match parts {
            Some((service, method)) if is_name(service) && is_name(method) => Ok(Self {
                service: service.to_owned(),
                method: method.to_owned(),
            }),
            _ => Err("expected SERVICE/METHOD, for example pb.Trim/TrimSpace".to_owned()),
        }
    }
}

/// The description of a unary method.
///
/// # Errors
///
/// If the servers do not describe it, or it is not unary. The message names the services or methods that
/// exist.
pub(super) async fn find(
    channel: &Channel,
    name: &MethodName,
    limit: Duration,
) -> anyhow::Result<MethodDescriptor> {
    let pool = match reflection::descriptors(channel, &name.service, limit).await {
        Ok(pool) => pool,
        Err(status) => return Err(explain(channel, name, &status, limit).await),
    };
    let service = pool
        .get_service_by_name(&name.service)
        .ok_or_else(|| anyhow!("{} is not a service; expected SERVICE/METHOD", name.service))?;
    let Some(method) = service
        .methods()
        .find(|method| method.name() == name.method)
    else {
        bail!(
            "{} has no method {}; it has {}",
            name.service,
            name.method,
            methods(&service)
        );
    };
    ensure!(
        !method.is_client_streaming() && !method.is_server_streaming(),
        "{}/{} is a stream; only unary methods can be called",
        name.service,
        name.method
    );
    Ok(method)
}

fn methods(service: &ServiceDescriptor) -> String {
    let names: Vec<_> = service
        .methods()
        .map(|method| method.name().to_owned())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// The error about a method without a description.
async fn explain(
    channel: &Channel,
    name: &MethodName,
    status: &Status,
    limit: Duration,
) -> anyhow::Error {
    match status.code() {
        Code::NotFound => match reflection::services(channel, limit).await {
            Ok(offered) => anyhow!(
                "the instances have no service {}; they offer {}",
                name.service,
                offered.join(", ")
            ),
            Err(_) => anyhow!("the instances have no service {}", name.service),
        },
        Code::Unimplemented => anyhow!(
            "the instances offer no reflection (grpc.reflection.v1 or v1alpha), so the request cannot \
             be built; turn it on in the server ({})",
            status.message()
        ),
        code => anyhow!(
            "the reflection failed: {code:?}: {}; `discovery doctor` looks for the cause",
            status.message()
        ),
    }
}

/// True if the method's description says that it may be executed twice.
pub(super) fn is_idempotent(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options
        .is_some_and(|options| options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_written_in_any_usual_form() {
        for text in [
            "pb.Trim/TrimSpace",
            "/pb.Trim/TrimSpace",
            "pb.Trim.TrimSpace",
        ] {
            let name: MethodName = text.parse().unwrap();
            assert_eq!(name.path(), "/pb.Trim/TrimSpace");
        }
        for text in ["", "TrimSpace", "pb.Trim/", "/TrimSpace", "a/b/c", "a b/c"] {
            let error = text.parse::<MethodName>().unwrap_err();
            assert!(error.contains("SERVICE/METHOD"), "{text}: {error}");
        }
    }
}
