//! The instances of one service that a case registers, through a registrar each. Where a registry does not
//! register, their list is written to the server instead.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use discovery::{
    Instance, Registrar, RegistrationState,
    registry::{Check, Registration, Registry},
};
use futures_util::future::try_join_all;
use tokio::time::timeout;

use super::{PATIENCE, Subject};

/// Limit for one deregistration.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(30);

/// The registered instances of one service.
pub(super) struct Entries {
    service: String,
    registry: Arc<dyn Registry>,
    registered: Vec<(Instance, Option<Registrar>)>,
}

impl Entries {
    pub(super) fn new(service: &str, registry: &Arc<dyn Registry>) -> Self {
        Self {
            service: service.to_owned(),
            registry: Arc::clone(registry),
            registered: Vec::new(),
        }
    }

    /// Registers instances at these ports, and waits until the registry holds them.
    pub(super) async fn add<S: Subject>(&mut self, subject: &mut S, ports: &[u16]) -> Result<()> {
        let check = subject.check();
        self.add_with(subject, ports, &check).await
    }

    /// The same with another check than the subject's usual one.
    pub(super) async fn add_with<S: Subject>(
        &mut self,
        subject: &mut S,
        ports: &[u16],
        check: &Check,
    ) -> Result<()> {
        let mut added = Vec::new();
        for port in ports {
            let instance = instance(&self.service, *port)?;
            let registrar = if S::REGISTERS {
                let registration = Registration::new(instance.clone(), check.clone());
                Some(Registrar::start(self.registry.registration(registration)?)?)
            } else {
                None
            };
            added.push((instance, registrar));
        }
        let registered = added.iter().flat_map(|(_, registrar)| registrar);
        try_join_all(registered.map(until_registered)).await?;
        self.registered.extend(added);
        self.write(subject).await
    }

    /// Deregisters the instances at these ports.
    pub(super) async fn remove<S: Subject>(
        &mut self,
        subject: &mut S,
        ports: &[u16],
    ) -> Result<()> {
        let wanted = |(instance, _): &mut (Instance, _)| ports.contains(&instance.port);
        let removed: Vec<_> = self.registered.extract_if(.., wanted).collect();
        let registrars = removed.into_iter().filter_map(|(_, registrar)| registrar);
        try_join_all(registrars.map(|registrar| registrar.deregister(DEREGISTER_LIMIT))).await?;
        self.write(subject).await
    }

    /// Deregisters all that are left.
    pub(super) async fn clear<S: Subject>(mut self, subject: &mut S) -> Result<()> {
        let ports: Vec<_> = self.registered.iter().map(|(i, _)| i.port).collect();
        self.remove(subject, &ports).await
    }

    /// Writes the list of a registry that does not register.
    pub(super) async fn write<S: Subject>(&self, subject: &mut S) -> Result<()> {
        if S::REGISTERS {
            return Ok(());
        }
        let instances: Vec<_> = self.registered.iter().map(|(i, _)| i.clone()).collect();
        subject.write(&self.service, &instances).await
    }
}

/// An instance of a service on this machine. Nothing listens at its port.
pub(super) fn instance(service: &str, port: u16) -> Result<Instance> {
    Ok(Instance::named(service, [127, 0, 0, 1].into(), port)?)
}

async fn until_registered(registrar: &Registrar) -> Result<()> {
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    match timeout(PATIENCE, registered).await {
        Ok(ended) => ended.map(drop).context("the registrar has ended"),
        Err(_) => bail!("not registered within {PATIENCE:?}: {registrar:?}"),
    }
}
