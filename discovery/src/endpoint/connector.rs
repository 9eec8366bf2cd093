//! The state that the subchannels of a channel share: their settings, and the pace of attempts to connect.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    event_log::EventLog,
    pacer::Pacer,
    schedule::{End, Reason},
};
use crate::{
    backoff::Backoff,
    connection::{ConnectError, Connection, Factory},
    error::chain,
    event::EventSender,
    instance::Instance,
    metrics::TargetMetrics,
};

/// The settings and limits shared by all subchannels of a channel.
pub(crate) struct Connector {
    factory: Arc<dyn Factory>,
    /// Time limit of one attempt.
    timeout: Duration,
    /// Delay after failed attempts.
    pub(super) backoff: Backoff,
    /// True if connections are made before a call needs them.
    pub(crate) eager: bool,
    /// Notified after every visible change of state.
    pub(crate) changed: Arc<Notify>,
    /// The service whose health is watched on each connection; empty for the server as a whole.
    pub(crate) health: watch::Sender<Option<Arc<str>>>,
    pub(crate) log: EventLog,
    pub(crate) events: EventSender,
    pub(super) pacer: Arc<Pacer>,
    /// The metrics of the connections and ejections.
    pub(crate) target: &'static TargetMetrics,
}

impl Connector {
    pub(crate) fn new(
        factory: Arc<dyn Factory>,
        parallel: usize,
        timeout: Duration,
        backoff: Backoff,
        eager: bool,
        target: &'static TargetMetrics,
    ) -> Self {
        Self {
            factory,
            timeout,
            backoff,
            eager,
            changed: Arc::default(),
            health: watch::Sender::new(None),
            log: EventLog::default(),
            events: EventSender::default(),
            pacer: Arc::new(Pacer::new(parallel)),
            target,
        }
    }

    /// One attempt, as soon as it may begin. `failures` is the number of those before it.
    pub(super) async fn connect(
        &self,
        instance: &Instance,
        reason: Reason,
        failures: u32,
    ) -> Result<Connection, ConnectError> {
        let permit = self.pacer.permit(reason, failures).await;
        let result = timeout(self.timeout, self.factory.connect(instance))
            .await
            .unwrap_or(Err(ConnectError::Timeout(self.timeout)));
        let end = match &result {
            Ok(_) => End::Connected,
            Err(error) if error.is_shortage() => End::NoDescriptor,
            Err(_) => End::Failed,
        };
        match &result {
            Ok(_) => self.target.connected.increment(1),
            Err(_) => self.target.connect_failed.increment(1),
        }
        let report = permit.end(end);
        if let (true, Err(error)) = (report, &result) {
            warn!(
                %instance,
                "no file descriptor is left for further connections, so calls use those that exist; \
                 raise the limit of open files, or use a subset of the instances: {}",
                chain(error)
            );
        }
        result
    }

    /// Sets the service whose health is watched. Watches of another one end.
    pub(crate) fn watch_health(&self, service: Option<&Arc<str>>) {
        self.health.send_if_modified(|current| {
            let changed = current.as_ref() != service;
            if changed {
                *current = service.cloned();
            }
            changed
        });
    }

    /// Tries unreachable instances sooner, because a call finds no other.
    pub(crate) fn urge(&self) {
        self.pacer.urge();
    }
}
