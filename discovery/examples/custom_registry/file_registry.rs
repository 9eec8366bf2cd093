//! A registry in a file that is read every second, with a unit test that needs no network.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use discovery::watch;
use discovery::{
    Instance,
    registry::{
        InstanceSet, Instancer, Query, Registration, RegistrationClient, Registry, RegistryError,
    },
};
use tokio::time::sleep;

/// Instances by their addresses.
pub(crate) struct FileRegistry(PathBuf);

struct FileInstancer(watch::Receiver<InstanceSet>);

impl FileRegistry {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Registry for FileRegistry {
    fn name(&self) -> &'static str {
        "the instance file"
    }

    fn instancer(&self, _query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let (sets, watch) = watch::channel(InstanceSet::default());
        let path = self.0.clone();
        tokio::spawn(async move {
            // Ends with the last channel that watches.
            while !sets.is_closed() {
                sets.send_modify(|set| update(set, fs::read_to_string(&path)));
                sleep(Duration::from_secs(1)).await;
            }
        });
        Ok(Arc::new(FileInstancer(watch)))
    }

    fn registration(&self, of: Registration) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        Err(RegistryError::Unsupported {
            registry: self.name().to_owned(),
            action: format!("register {}", of.instance.id),
        })
    }
}

impl Instancer for FileInstancer {
    fn watch(&self) -> watch::Receiver<InstanceSet> {
        self.0.clone()
    }
}

/// Takes what was read. A malformed line does not hide the others; a failure keeps the last good set.
fn update(set: &mut InstanceSet, read: io::Result<String>) {
    *set = match read {
        Ok(text) => InstanceSet::confirmed(text.lines().filter_map(|l| Instance::parse(l).ok())),
        Err(error) => set.clone().with_error(RegistryError::Unreachable {
            registry: "the instance file".to_owned(),
            action: "read the instances".to_owned(),
            source: error.into(),
        }),
    };
}

#[test]
fn a_failed_read_keeps_the_last_good_set() {
    let mut set = InstanceSet::default();
    update(&mut set, Ok("10.0.0.1:80\nnonsense\n".to_owned()));
    assert_eq!(set.instances.len(), 1);
    update(&mut set, Err(io::ErrorKind::NotFound.into()));
    assert_eq!(set.instances[0].host, "10.0.0.1");
    assert!(set.error.is_some());
}
