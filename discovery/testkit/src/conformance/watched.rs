//! A watch of one service, as the cases look at it.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use discovery::{
    Instance,
    registry::{InstanceSet, Instancer, Query, Registry},
    watch::{self, Ref},
};
use tokio::time::{Instant, timeout};

use super::PATIENCE;

/// The time between two looks at a set that is not changing.
const LOOK: Duration = Duration::from_millis(50);

/// A running watch.
pub(super) struct Watched {
    sets: watch::Receiver<InstanceSet>,
    service: String,
    _instancer: Arc<dyn Instancer>,
}

impl Watched {
    /// Starts a watch, or joins one with the same query.
    pub(super) fn start(registry: &dyn Registry, service: &str) -> Result<Self> {
        Self::of(registry, &Query::new(service))
    }

    /// A watch that shares nothing with one that [`start`](Self::start) has started: of all instances,
    /// not only the passing ones.
    pub(super) fn separate(registry: &dyn Registry, service: &str) -> Result<Self> {
        Self::of(registry, &Query::new(service).with_passing_only(false))
    }

    fn of(registry: &dyn Registry, query: &Query) -> Result<Self> {
        let instancer = registry.instancer(query)?;
        Ok(Self {
            sets: instancer.watch(),
            service: query.service.clone(),
            _instancer: instancer,
        })
    }

    /// The present set.
    pub(super) fn set(&self) -> Ref<'_, InstanceSet> {
        self.sets.borrow()
    }

    /// Waits for a set. Returns it and the time that it took.
    pub(super) async fn until(
        &mut self,
        what: &str,
        bound: Option<Duration>,
        wanted: impl Fn(&InstanceSet) -> bool,
    ) -> Result<(InstanceSet, Duration)> {
        let begun = Instant::now();
        let limit = bound.unwrap_or_default() + PATIENCE;
        self.sets.mark_changed();
        while begun.elapsed() < limit {
            // A later confirmation of the same set is not notified, so the set is also looked at in
            // between.
            let _changed_or_not = timeout(LOOK, self.sets.changed()).await;
            let set = self.sets.borrow_and_update();
            if wanted(&set) {
                return Ok((set.clone(), begun.elapsed()));
            }
        }
        let set = self.sets.borrow();
        bail!(
            "{}: {what}: not within {limit:?}; last set: {} instances ({}), confirmed {:?}, error: {:?}",
            self.service,
            set.instances.len(),
            shown(&set),
            set.confirmed.map(|at| at.elapsed()),
            set.error.as_ref().map(ToString::to_string),
        )
    }

    /// Waits until the instance at this port is usable.
    pub(super) async fn until_usable(
        &mut self,
        port: u16,
        bound: Option<Duration>,
    ) -> Result<Duration> {
        let what = format!("port {port} usable");
        let found = self.until(&what, bound, |set| usable(set, port).is_some());
        Ok(found.await?.1)
    }

    /// Waits until no instance at this port is usable.
    pub(super) async fn until_gone(
        &mut self,
        port: u16,
        bound: Option<Duration>,
    ) -> Result<Duration> {
        let what = format!("port {port} gone");
        let found = self.until(&what, bound, |set| usable(set, port).is_none());
        Ok(found.await?.1)
    }

    /// Fails if the instance at this port is not usable at any moment of this time.
    pub(super) async fn stays_usable(&mut self, port: u16, time: Duration) -> Result<()> {
        let gone = |set: &InstanceSet| usable(set, port).is_none();
        match timeout(time, self.sets.wait_for(gone)).await {
            Ok(set) => bail!("{}: port {port} is not kept: {:?}", self.service, *set?),
            Err(_elapsed) => Ok(()),
        }
    }

    /// Waits for a good answer after `since`.
    pub(super) async fn until_confirmed(
        &mut self,
        since: Instant,
        bound: Option<Duration>,
    ) -> Result<Duration> {
        let confirmed = |set: &InstanceSet| {
            let later = |confirmed: std::time::Instant| confirmed > since.into_std();
            set.error.is_none() && set.confirmed.is_some_and(later)
        };
        Ok(self.until("confirmed", bound, confirmed).await?.1)
    }
}

/// The usable instance at this port.
pub(super) fn usable(set: &InstanceSet, port: u16) -> Option<&Instance> {
    let mut instances = set.instances.iter();
    let found = instances.find(|instance| instance.port == port && instance.health.is_usable());
    found.map(|instance| &**instance)
}

/// The ports of all usable instances, sorted.
pub(super) fn usable_ports(set: &InstanceSet) -> Vec<u16> {
    let usable = set.instances.iter().filter(|i| i.health.is_usable());
    let mut ports: Vec<_> = usable.map(|instance| instance.port).collect();
    ports.sort_unstable();
    ports
}

/// The first instances of a set with their health.
fn shown(set: &InstanceSet) -> String {
    let instances = set.instances.iter().take(5);
    let shown: Vec<_> = instances.map(|i| format!("{i} {:?}", i.health)).collect();
    shown.join(", ")
}
