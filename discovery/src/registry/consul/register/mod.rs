//! One registration with a Consul agent.
//!
//! `definition` and `check` are the request's body. `held` finds out that the agent lost the
//! registration, `visible` that the catalog lacks it, `heartbeat` keeps a TTL check passing, and
//! `own_check` reads the check's state.

mod check;
mod definition;
mod heartbeat;
mod held;
mod own_check;
mod visible;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use tokio::{runtime::Handle, time::Instant};

use self::{
    definition::Definition, heartbeat::Heartbeat, held::Held, own_check::OwnCheck, visible::Visible,
};
use super::client::{Client, Request};
use crate::{
    future::BoxFuture,
    registry::{
        Check, CheckState, Registration, RegistrationClient, RegistryError, conflict::Conflicts,
        http::segment,
    },
    watch,
};

/// The TTL of the check of an instance that Consul's agent cannot call.
const HEARTBEATS: Duration = Duration::from_secs(15);

pub(super) struct ConsulRegistration {
    client: Arc<Client>,
    id: String,
    body: Bytes,
    held: Held,
    visible: Visible,
    heartbeat: Option<Heartbeat>,
    own_check: Option<OwnCheck>,
    /// True if checks of an earlier registration under this ID are to be removed. This is so for
    /// the first registration of a process and after a conflict only: an operator's maintenance mode
    /// is such a check, and must not end because the agent restarted.
    replace_checks: AtomicBool,
    conflicts: Conflicts,
}

impl ConsulRegistration {
    /// # Errors
    ///
    /// `InvalidSetting` for a value that Consul would refuse, or accept and then not serve.
    pub(super) fn new(
        client: Arc<Client>,
        mut registration: Registration,
    ) -> Result<Self, RegistryError> {
        if registration.check == Check::Default {
            registration.check = default_check(&registration);
        }
        let registration = &registration;
        let id = &registration.instance.id;
        let invalid = |reason: String| {
            RegistryError::invalid_setting(
                client.name(),
                format!("cannot register {id:?}: {reason}"),
            )
        };
        registration.instance.validate()?;
        let definition = Definition::new(registration).map_err(invalid)?;
        let body = serde_json::to_vec(&definition).map_err(|e| invalid(e.to_string()))?;
        Ok(Self {
            id: id.clone(),
            body: body.into(),
            held: Held::new(Arc::clone(&client), id, definition.service),
            visible: Visible::new(Arc::clone(&client), &registration.instance),
            heartbeat: Heartbeat::new(&client, id, &registration.check),
            own_check: OwnCheck::new(&client, id, &registration.check),
            client,
            replace_checks: AtomicBool::new(true),
            conflicts: Conflicts::default(),
        })
    }

    async fn put(&self) -> Result<(), RegistryError> {
        let action = format!("register {}", self.id);
        let path = "/v1/agent/service/register".to_owned();
        let mut request = Request::new(Method::PUT, path, &action);
        if self.replace_checks.load(Relaxed) {
            request.query.push(("replace-existing-checks", "true"));
        }
        request.body = Some(self.body.clone());
        self.client.call_ok(request).await?;
        if let Some(heartbeat) = &self.heartbeat {
            // A registration does not change a critical check. A heartbeat does.
            heartbeat.send().await?;
        }
        self.replace_checks.store(false, Relaxed);
        Ok(())
    }

    /// Runs the heartbeats and the check's polls until the registration is lost.
    async fn until_lost(&self) -> RegistryError {
        if Handle::try_current().is_err() {
            return RegistryError::NoRuntime {
                action: format!("keep {} registered", self.id),
            };
        }
        let since = Instant::now();
        let lost = tokio::select! {
            lost = self.held.until_lost() => lost,
            lost = self.visible.until_lost() => lost,
            lost = heartbeat::run(self.heartbeat.as_ref()) => lost,
            never = own_check::follow(self.own_check.as_ref()) => match never {},
        };
        if matches!(lost, RegistryError::Overwritten { .. }) {
            self.replace_checks.store(true, Relaxed);
        }
        self.conflicts.pause(&lost, since.elapsed()).await;
        lost
    }

    async fn remove(&self) -> Result<(), RegistryError> {
        let action = format!("deregister {}", self.id);
        let path = format!("/v1/agent/service/deregister/{}", segment(&self.id));
        let request = Request::new(Method::PUT, path, &action);
        let answer = self.client.call(request).await?;
        // An unknown service is a success for Consul 1.8 without ACLs, and an error with ACLs and
        // in later versions.
        let gone = answer.status == StatusCode::NOT_FOUND || answer.contains("Unknown service");
        if answer.status.is_success() || gone {
            Ok(())
        } else {
            Err(self.client.refused(&action, &answer))
        }
    }
}

/// The check that Consul prefers: calls of the health service, as far as an agent without settings of its
/// own can make them. It knows no private certificate authority, and has no certificate.
fn default_check(registration: &Registration) -> Check {
    if registration.client_certificates {
        return Check::ttl(HEARTBEATS);
    }
    let check = Check::grpc();
    if registration.tls {
        return check.with_tls().with_skip_verify().into();
    }
    check.into()
}

impl RegistrationClient for ConsulRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        self.client.name()
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.put())
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(self.until_lost())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.remove())
    }

    fn check_state(&self) -> Option<watch::Receiver<CheckState>> {
        self.own_check.as_ref().map(OwnCheck::subscribe)
    }
}

#[cfg(test)]
mod tests;
