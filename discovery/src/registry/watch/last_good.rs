//! The last good set of instances: publishes answers and failures, and logs and counts them.

use std::{mem, sync::Arc};

use tracing::{debug, info, warn};

use super::Update;
use crate::{
    clock,
    error::chain,
    instance::Instance,
    metrics::{RegistryMetrics, ServiceMetrics},
    registry::{InstanceSet, Listing, RegistryError},
    watch,
};

/// The published set of one service.
pub(super) struct LastGood {
    registry: String,
    service: String,
    publish: watch::Sender<InstanceSet>,
    metrics: Arc<RegistryMetrics>,
    /// The entries that were logged last, so that each change is logged once.
    rejected: Vec<String>,
}

impl LastGood {
    pub(super) fn new(registry: &str, service: &str) -> (Self, watch::Receiver<InstanceSet>) {
        let (publish, sets) = watch::channel(InstanceSet::default());
        let last_good = Self {
            registry: registry.to_owned(),
            service: service.to_owned(),
            publish,
            metrics: ServiceMetrics::of(service).registry(registry),
            rejected: Vec::new(),
        };
        (last_good, sets)
    }

    /// Publishes a good answer if it differs, and clears the failure.
    pub(super) fn confirm(&mut self, update: Update) {
        let new = match update {
            Update::Listing(listing) => self.read(listing),
            Update::Unchanged => InstanceSet {
                instances: Arc::clone(&self.publish.borrow().instances),
                confirmed: Some(clock::now()),
                error: None,
            },
        };
        self.publish(new);
    }

    fn publish(&self, mut new: InstanceSet) {
        let mut recovered = false;
        let changed = self.publish.send_if_modified(|current| {
            let first = current.confirmed.is_none();
            recovered = current.error.is_some();
            let changed = !Arc::ptr_eq(&current.instances, &new.instances)
                && current.instances != new.instances;
            if changed {
                keep_unchanged(&current.instances, &mut new.instances);
            } else {
                new.instances = Arc::clone(&current.instances);
            }
            let _old = mem::replace(current, new);
            first || recovered || changed
        });
        if changed {
            self.metrics.updated();
            let instances = self.publish.borrow().instances.len();
            let (service, registry) = (&self.service, &self.registry);
            if recovered {
                info!(
                    service,
                    registry, instances, "the registry watch works again"
                );
            } else {
                debug!(service, registry, instances, "instances changed");
            }
        }
    }

    /// Keeps the instances and publishes why they are not confirmed.
    pub(super) fn failed(&mut self, error: RegistryError, failures: u32) {
        self.metrics.failed();
        let reason = chain(&error);
        let error = Arc::new(error);
        let news = self.publish.send_if_modified(|current| {
            let same = current
                .error
                .as_ref()
                .is_some_and(|e| chain(&**e) == reason);
            current.error = Some(error);
            !same
        });
        let service = &self.service;
        if failures == 1 {
            let kept = self.publish.borrow().instances.len();
            warn!(service, kept, "the registry watch failed: {reason}");
        } else if news {
            debug!(
                service,
                failures, "the registry watch still fails: {reason}"
            );
        }
    }

    /// The listed instances. Logs the entries that were left out, once per change.
    fn read(&mut self, listing: Listing) -> InstanceSet {
        let (instances, rejected) = listing.into_parts();
        if rejected != self.rejected {
            self.report(&rejected);
            self.rejected = rejected;
        }
        InstanceSet::confirmed(instances)
    }

    fn report(&self, rejected: &[String]) {
        let Some(first) = rejected.first() else {
            return;
        };
        let (service, registry, entries) = (&self.service, &self.registry, rejected.len());
        self.metrics.rejected(entries as u64);
        warn!(
            service,
            registry, entries, "left out instances that cannot be used; the first: {first}"
        );
        for reason in rejected {
            debug!(service, registry, "left out: {reason}");
        }
    }
}

/// Replaces each new instance that equals an old one by the old allocation, so that readers can
/// compare by pointer. Both lists are sorted by ID.
fn keep_unchanged(old: &[Arc<Instance>], new: &mut Arc<[Arc<Instance>]>) {
    let Some(new) = Arc::get_mut(new) else {
        return;
    };
    for instance in new {
        if let Ok(at) = old.binary_search_by(|o| o.id.cmp(&instance.id))
            && old[at] == *instance
        {
            *instance = Arc::clone(&old[at]);
        }
    }
}
