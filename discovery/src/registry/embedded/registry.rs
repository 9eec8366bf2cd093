//! A folder as a registry.

use std::{path::PathBuf, sync::Arc};

use super::{folder::Folder, register::FileRegistration, watch::FolderSource};
use crate::{
    future::BoxFuture,
    registry::{
        Instancer, Query, Registration, RegistrationClient, Registry, RegistryError, RegistryUrl,
        WatchDriver, shared,
    },
};

/// A registry in a folder of this machine.
///
/// Every process that uses the same folder sees the same instances. Nothing is created before a watch or
/// a registration starts.
///
/// ```
/// use discovery::registry::{Registry, embedded::Embedded};
///
/// let registry = Embedded::new("/run/services");
/// assert_eq!(registry.name(), "embedded:///run/services");
/// ```
#[derive(Clone, Debug)]
pub struct Embedded {
    folder: Folder,
    name: String,
}

impl Embedded {
    /// The registry in `folder`, which is created where it is missing.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::of(Folder::given(folder))
    }

    /// The registry in `folder`, which is refused when it is used if it is a link, belongs to another
    /// user or can be written by others. For a place whose name other users can take.
    pub fn private(folder: impl Into<PathBuf>) -> Self {
        Self::of(Folder::private(folder))
    }

    /// The registry of the user: in `$XDG_RUNTIME_DIR/discovery`, or else in `discovery-UID` in the
    /// temporary folder. A folder that other users can write to is refused when it is used.
    #[must_use]
    pub fn of_user() -> Self {
        Self::of(Folder::of_user())
    }

    /// The registry at `embedded://[FOLDER]`, by default that [of the user](Self::of_user).
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] for credentials or settings, which a folder does not have.
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        let url = RegistryUrl::parse(url)?;
        url.finish(&[])?;
        if url.user().is_some() {
            return Err(url.invalid("a folder has no user; expected embedded://[FOLDER]"));
        }
        let folder = format!("{}{}", url.authority(), url.path());
        Ok(if folder.is_empty() {
            Self::of_user()
        } else {
            Self::new(folder)
        })
    }

    fn of(folder: Folder) -> Self {
        Self {
            name: format!("embedded://{}", folder.path().display()),
            folder,
        }
    }
}

impl Registry for Embedded {
    fn name(&self) -> &str {
        &self.name
    }

    /// Tags and datacenter are compared with the entry's. Every listed instance is alive.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidSetting`] for an empty service name, and for several datacenters.
    /// [`RegistryError::NoRuntime`] outside a tokio runtime.
    fn instancer(&self, query: &Query) -> Result<Arc<dyn Instancer>, RegistryError> {
        let invalid = |reason| RegistryError::invalid_setting(self.name.clone(), reason);
        if query.service.is_empty() {
            return Err(invalid("the service name is empty".to_owned()));
        }
        query.check_datacenter().map_err(invalid)?;
        let key = shared::watch_key(self, &[], query);
        shared::join_or_start(key, &query.service, || {
            let source = FolderSource::new(&self.name, self.folder.clone(), query.clone());
            WatchDriver::start(&self.name, &query.service, source)
        })
    }

    fn registration(
        &self,
        registration: Registration,
    ) -> Result<Arc<dyn RegistrationClient>, RegistryError> {
        let registration = FileRegistration::new(&self.name, &self.folder, &registration)?;
        Ok(Arc::new(registration))
    }
    /// Services with an entry in their folder, which may be that of a process that has ended.
    fn services(&self) -> BoxFuture<'_, Result<Vec<String>, RegistryError>> {
        let services = self.folder.services();
        let unreadable = |source: std::io::Error| RegistryError::Unreachable {
            registry: self.name.clone(),
            action: "list the services".to_owned(),
            source: source.into(),
        };
        Box::pin(std::future::ready(services.map_err(unreadable)))
    }
}
