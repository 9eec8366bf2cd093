//! The instances of several datacenters as one set: one watch per datacenter, and their union.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::select_all;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, timeout},
};

use crate::{
    error::chain,
    instance::Instance,
    registry::{InstanceSet, Instancer, RegistryError},
    watch,
};

/// Maximum interval between two looks at the watches. Their confirmations notify no reader.
const REFRESH: Duration = Duration::from_secs(5);
/// Time for which the first set waits for the datacenters that have not answered yet.
const FIRST_SET: Duration = Duration::from_secs(1);

/// See the [module](self). Dropping it ends the watches.
pub(crate) struct Datacenters {
    /// In order of preference.
    names: Vec<String>,
    sets: watch::Receiver<InstanceSet>,
    task: AbortHandle,
}

impl Datacenters {
    /// Joins these watches, each with its datacenter's name, in order of preference.
    ///
    /// # Errors
    ///
    /// `NoRuntime` outside a tokio runtime.
    pub(crate) fn join(
        service: &str,
        watches: Vec<(String, Arc<dyn Instancer>)>,
    ) -> Result<Self, RegistryError> {
        let runtime = Handle::try_current().map_err(|_| RegistryError::NoRuntime {
            action: format!("watch {service}"),
        })?;
        let (publish, sets) = watch::channel(InstanceSet::default());
        let names = watches.iter().map(|(name, _)| name.clone()).collect();
        let task = runtime.spawn(follow(watches, publish)).abort_handle();
        Ok(Self { names, sets, task })
    }
}

impl Instancer for Datacenters {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.sets.clone()
    }

    fn datacenters(&self) -> Vec<String> {
        self.names.clone()
    }
}

impl Drop for Datacenters {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(watches: Vec<(String, Arc<dyn Instancer>)>, publish: watch::Sender<InstanceSet>) {
    let mut receivers: Vec<_> = watches.iter().map(|(_, watch)| watch.watch()).collect();
    let begun = Instant::now();
    let mut union = Union::default();
    loop {
        let sets: Vec<_> = receivers
            .iter_mut()
            .map(|receiver| receiver.borrow_and_update().clone())
            .collect();
        let open = begun.elapsed() < FIRST_SET;
        if publish.borrow().confirmed.is_some() || !open || is_settled(&sets) {
            let names = watches.iter().map(|(name, _)| name.as_str());
            let new = union.of(names.zip(&sets));
            publish.send_if_modified(|current| replace(current, new));
        }
        let changes = receivers
            .iter_mut()
            .map(|receiver| Box::pin(receiver.changed()));
        let limit = if open { FIRST_SET } else { REFRESH };
        if let Ok((Err(_), ..)) = timeout(limit, select_all(changes)).await {
            // A watch ends with its runtime, and this task with it.
            return;
        }
    }
}

/// True if no datacenter's answer is outstanding, or the preferred one has instances.
fn is_settled(sets: &[InstanceSet]) -> bool {
    let preferred = sets
        .first()
        .is_some_and(|set| set.usable().next().is_some());
    let answered = |set: &InstanceSet| set.confirmed.is_some() || set.error.is_some();
    preferred || sets.iter().all(answered)
}

/// Replaces the published set. True if readers must be notified.
fn replace(current: &mut InstanceSet, mut new: InstanceSet) -> bool {
    let text = |set: &InstanceSet| set.error.as_ref().map(|error| chain(&**error));
    let same = current.instances.len() == new.instances.len()
        && current
            .instances
            .iter()
            .zip(&*new.instances)
            .all(|(old, new)| Arc::ptr_eq(old, new));
    if same {
        new.instances = Arc::clone(&current.instances);
    }
    let news = !same
        || current.confirmed.is_none() != new.confirmed.is_none()
        || text(current) != text(&new);
    *current = new;
    news
}

/// Makes the union. It keeps the renamed instances, so that unchanged ones keep their allocation.
#[derive(Default)]
struct Union {
    /// By the address of the original, which is held here so that no other takes its place.
    renamed: HashMap<usize, (Arc<Instance>, Arc<Instance>)>,
}

impl Union {
    /// The instances of all datacenters, the oldest confirmation, and the first error. A failing
    /// datacenter keeps its last good set.
    fn of<'a>(&mut self, sets: impl Iterator<Item = (&'a str, &'a InstanceSet)>) -> InstanceSet {
        let mut union = InstanceSet::default();
        let mut instances = Vec::new();
        let mut renamed = HashMap::new();
        for (place, (datacenter, set)) in sets.enumerate() {
            union.confirmed = match (union.confirmed, set.confirmed) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            union.error = union.error.or_else(|| set.error.clone());
            if place == 0 {
                instances.extend(set.instances.iter().cloned());
                continue;
            }
            for original in &*set.instances {
                let key = Arc::as_ptr(original) as usize;
                let pair = self.renamed.remove(&key).unwrap_or_else(|| {
                    let id = format!("{}@{datacenter}", original.id);
                    let named = Arc::new((**original).clone().with_id(id));
                    (Arc::clone(original), named)
                });
                instances.push(Arc::clone(&pair.1));
                renamed.insert(key, pair);
            }
        }
        self.renamed = renamed;
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        instances.dedup_by(|later, first| later.id == first.id);
        union.instances = instances.into();
        union
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::StaticRegistry;

    fn instances(hosts: &[&str]) -> Vec<Instance> {
        let hosts = hosts.iter().map(|host| Instance::new(*host, 1).unwrap());
        hosts.map(|instance| instance.with_id("a")).collect()
    }

    fn failure(datacenter: &str) -> RegistryError {
        RegistryError::Malformed {
            registry: "consul".to_owned(),
            action: format!("watch trim in {datacenter}"),
            reason: "no path to datacenter".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_in_one_datacenter_keeps_the_instances_of_the_other() {
        let [home, away] = [&["h1"], &["a1"]].map(|hosts| StaticRegistry::new(instances(hosts)));
        let watches = vec![
            ("x".to_owned(), Arc::new(home.clone()) as Arc<dyn Instancer>),
            ("y".to_owned(), Arc::new(away.clone()) as Arc<dyn Instancer>),
        ];
        let joined = Datacenters::join("trim", watches).unwrap();
        assert_eq!(joined.datacenters(), ["x", "y"]);
        let mut sets = joined.watch();
        let both = sets
            .wait_for(|set| set.instances.len() == 2)
            .await
            .unwrap()
            .clone();
        assert_eq!(both.instances[0].id, "a");
        assert_eq!(both.instances[1].id, "a@y");
        home.set([]);
        let one = sets
            .wait_for(|set| set.instances.len() == 1)
            .await
            .unwrap()
            .clone();
        assert!(Arc::ptr_eq(&one.instances[0], &both.instances[1]));
    }

    #[test]
    fn a_failing_datacenter_is_reported_and_keeps_its_last_good_set() {
        let good = InstanceSet::confirmed(instances(&["h1"]));
        let bad = InstanceSet::confirmed(instances(&["a1"])).with_error(failure("y"));
        let mut union = Union::default();
        let set = union.of([("x", &good), ("y", &bad)].into_iter());
        assert_eq!(set.instances.len(), 2);
        assert_eq!(set.confirmed, good.confirmed.min(bad.confirmed));
        let error = set.error.as_ref().unwrap().to_string();
        assert!(error.contains("watch trim in y"), "{error}");
        // Equal sets notify no reader.
        let mut current = InstanceSet::default();
        assert!(replace(&mut current, set));
        assert!(!replace(
            &mut current,
            union.of([("x", &good), ("y", &bad)].into_iter())
        ));
        // A recovery does.
        assert!(replace(
            &mut current,
            union.of([("x", &good), ("y", &good)].into_iter())
        ));
    }

    #[test]
    fn the_first_set_waits_for_the_preferred_datacenter() {
        let unknown = InstanceSet::default();
        let empty = InstanceSet::confirmed([]);
        let some = InstanceSet::confirmed(instances(&["h1"]));
        let failed = InstanceSet::default().with_error(failure("x"));
        assert!(!is_settled(&[unknown.clone(), some.clone()]));
        assert!(!is_settled(&[empty, unknown.clone()]));
        assert!(is_settled(&[some.clone(), unknown]));
        assert!(is_settled(&[failed, some]));
    }
}
