//! The watch of several registries.

use std::sync::Arc;

use futures_util::future;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Duration, timeout},
};

use super::{
    addresses::Addresses,
    rule::{Rule, publish},
};
use crate::{
    registry::{InstanceSet, Instancer, RegistryError},
    watch,
};

/// The longest time between two combinations, so that [`InstanceSet::confirmed`] follows confirmations
/// without a change.
const CONFIRM: Duration = Duration::from_secs(5);

pub(super) struct CombinedInstancer {
    sets: watch::Receiver<InstanceSet>,
    authoritative: bool,
    task: AbortHandle,
    /// Keeps the watches running.
    _parts: Vec<Arc<dyn Instancer>>,
}

impl CombinedInstancer {
    pub(super) fn start(
        rule: Rule,
        parts: Vec<Arc<dyn Instancer>>,
        service: &str,
    ) -> Result<Self, RegistryError> {
        let runtime = Handle::try_current().map_err(|_| RegistryError::NoRuntime {
            action: format!("watch {service}"),
        })?;
        let mut merge = Merge {
            rule,
            parts: parts.iter().map(|part| Part::new(&**part)).collect(),
            addresses: Addresses::default(),
        };
        // A set that is known already is there for the first call.
        let (publish, sets) = watch::channel(merge.combined());
        Ok(Self {
            sets,
            authoritative: parts.iter().all(|part| part.authoritative()),
            task: runtime.spawn(merge.run(publish)).abort_handle(),
            _parts: parts,
        })
    }
}

impl Instancer for CombinedInstancer {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }

    fn authoritative(&self) -> bool {
        self.authoritative
    }
}

impl Drop for CombinedInstancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Merge {
    rule: Rule,
    parts: Vec<Part>,
    addresses: Addresses,
}

struct Part {
    sets: watch::Receiver<InstanceSet>,
    /// True if no further set will come. The last one stays.
    ended: bool,
}

impl Part {
    fn new(instancer: &dyn Instancer) -> Self {
        Self {
            sets: instancer.watch(),
            ended: false,
        }
    }

    async fn changed(&mut self) {
        if self.ended || self.sets.changed().await.is_err() {
            self.ended = true;
            future::pending::<()>().await;
        }
    }
}

impl Merge {
    fn combined(&mut self) -> InstanceSet {
        let parts = self.parts.iter_mut();
        let sets: Vec<_> = parts
            .map(|part| part.sets.borrow_and_update().clone())
            .collect();
        self.rule.combine(&sets, &mut self.addresses)
    }

    /// Ends with the next notification of any registry.
    async fn changed(&mut self) {
        let changes = self.parts.iter_mut().map(|part| Box::pin(part.changed()));
        future::select_all(changes).await;
    }

    async fn run(mut self, sets: watch::Sender<InstanceSet>) {
        loop {
            // Over the limit, too: a registry confirms an unchanged set without a notification.
            let _elapsed = timeout(CONFIRM, self.changed()).await;
            let combined = self.combined();
            sets.send_if_modified(|current| publish(current, combined));
        }
    }
}
