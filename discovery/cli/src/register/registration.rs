//! The registration of the command: begun, kept, and ended.

use std::{sync::Arc, time::Duration};

use discovery::{
    Registrar, RegistrationState, chain,
    registry::{CheckState, Registration, Registry, RegistryError, connect},
    watch::Receiver,
};
use tokio::task::JoinHandle;

use super::RegisterArgs;
use crate::output;

/// The registration in its registry. Begins without one.
pub(super) struct Registered {
    registry: Arc<dyn Registry>,
    registration: Registration,
    limit: Duration,
    registrar: Option<Registrar>,
    ending: Option<JoinHandle<()>>,
}

impl Registered {
    /// Checks that the registry takes the registration. Sends nothing.
    pub(super) fn new(args: &RegisterArgs) -> anyhow::Result<Self> {
        let registry = connect(&args.url)?;
        let registration = args.registration()?;
        registry.registration(registration.clone())?;
        Ok(Self {
            registry,
            registration,
            limit: args.deregister_timeout,
            registrar: None,
            ending: None,
        })
    }

    /// Registers the instance in the background, if it is not registered.
    pub(super) fn begin(&mut self) -> Result<(), RegistryError> {
        if self.registrar.is_none() {
            let client = self.registry.registration(self.registration.clone())?;
            let names = format!("{} in {}", client.id(), client.registry());
            let registrar = Registrar::start(client)?;
            tokio::spawn(report(registrar.state(), names));
            self.registrar = Some(registrar);
        }
        Ok(())
    }

    /// Deregisters the instance in the background, if it is registered.
    pub(super) fn begin_to_end(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let (registrar, limit) = (self.registrar.take(), self.limit);
        self.ending = Some(tokio::spawn(async move {
            let Some(registrar) = registrar else {
                return;
            };
            match registrar.deregister(limit).await {
                Ok(()) => output::note("discovery: deregistered"),
                Err(error) => output::note(&format!(
                    "discovery: not deregistered, the registry's check removes it later: {}",
                    chain(&error)
                )),
            }
        }));
    }

    /// Waits for the end of the deregistration. Cancel safe.
    pub(super) async fn ended(&mut self) {
        if let Some(ending) = &mut self.ending {
            // The task does not panic, and is not cancelled.
            let _ended = ending.await;
            self.ending = None;
        }
    }
}

/// Prints the changes of the registration's state, until it ends.
async fn report(mut states: Receiver<RegistrationState>, names: String) {
    let mut last = String::new();
    loop {
        let line = describe(&states.borrow_and_update(), &names);
        if let Some(line) = line.filter(|line| *line != last) {
            output::note(&format!("discovery: {line}"));
            last = line;
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn describe(state: &RegistrationState, names: &str) -> Option<String> {
    match state {
        RegistrationState::Registering(Some(error)) => {
            Some(format!("not registered, trying again: {}", chain(&**error)))
        }
        RegistrationState::Registered { check, .. } => Some(match check {
            CheckState::Warning { output, .. } | CheckState::Critical { output, .. } => {
                format!("registered {names}, and its check there does not pass: {output}")
            }
            _ => format!("registered {names}"),
        }),
        _ => None,
    }
}
