//! One registration: a locked file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{
    entry::Entry,
    files,
    folder::{Folder, encode},
    notify::Changes,
    watch::{blocking, failed},
};
use crate::{
    future::BoxFuture,
    registry::{Check, Registration, RegistrationClient, RegistryError},
};

pub(super) struct FileRegistration {
    registry: String,
    id: String,
    file: Arc<EntryFile>,
}

/// The instance's file, and the lock on it.
struct EntryFile {
    folder: Folder,
    service: String,
    /// The file's name in the service's folder.
    name: String,
    json: Bytes,
    /// The open file, whose lock this process holds.
    held: Mutex<Option<File>>,
}

impl FileRegistration {
    /// # Errors
    ///
    /// `Unsupported` for a check that nothing in a folder can make, `InvalidSetting` for an instance that
    /// cannot be written.
    pub(super) fn new(
        registry: &str,
        folder: &Folder,
        registration: &Registration,
    ) -> Result<Self, RegistryError> {
        let instance = &registration.instance;
        let id = instance.id.clone();
        instance.validate()?;
        match registration.check {
            Check::Default | Check::None => {}
            Check::Grpc(_) => return Err(unsupported(registry, &id, "a gRPC check")),
            Check::Ttl { .. } => return Err(unsupported(registry, &id, "a TTL check")),
        }
        let invalid = |reason: String| {
            RegistryError::invalid_setting(registry, format!("cannot register {id:?}: {reason}"))
        };
        let name = format!("{}.json", encode(&id));
        // The temporary name has five characters more.
        if name.len() > 250 || encode(&instance.service).len() > 255 {
            return Err(invalid(
                "the ID or the service name is too long for a file name".to_owned(),
            ));
        }
        if instance.service.is_empty() || id.is_empty() {
            return Err(invalid("the ID or the service name is empty".to_owned()));
        }
        let json = serde_json::to_vec(&Entry::of(instance)).map_err(|e| invalid(e.to_string()))?;
        Ok(Self {
            registry: registry.to_owned(),
            file: Arc::new(EntryFile {
                folder: folder.clone(),
                service: instance.service.clone(),
                name,
                json: json.into(),
                held: Mutex::new(None),
            }),
            id,
        })
    }

    async fn put(&self) -> Result<(), RegistryError> {
        let action = format!("register {}", self.id);
        need_runtime(&action)?;
        let file = Arc::clone(&self.file);
        match blocking(move || file.write()).await {
            Ok(Written::Done) => Ok(()),
            Ok(Written::Other { found }) => Err(RegistryError::Overwritten {
                registry: self.registry.clone(),
                id: self.id.clone(),
                found,
            }),
            Err(error) => Err(failed(&self.registry, action, error)),
        }
    }

    /// Ends when the file is no longer at its place.
    async fn until_lost(&self) -> RegistryError {
        let action = format!("keep {} registered", self.id);
        if let Err(error) = need_runtime(&action) {
            return error;
        }
        let folder = self.file.folder.service(&self.file.service);
        let mut changes = Changes::new(&folder);
        loop {
            changes.follow(&folder);
            let file = Arc::clone(&self.file);
            match blocking(move || file.is_held()).await {
                Ok(true) => changes.next().await,
                Ok(false) => {
                    return RegistryError::Forgotten {
                        registry: self.registry.clone(),
                        id: self.id.clone(),
                    };
                }
                Err(error) => return failed(&self.registry, action, error),
            }
        }
    }

    async fn remove(&self) -> Result<(), RegistryError> {
        let action = format!("deregister {}", self.id);
        need_runtime(&action)?;
        let file = Arc::clone(&self.file);
        blocking(move || file.remove())
            .await
            .map_err(|error| failed(&self.registry, action, error))
    }
}

fn need_runtime(action: &str) -> Result<(), RegistryError> {
    match Handle::try_current() {
        Ok(_) => Ok(()),
        Err(_) => Err(RegistryError::NoRuntime {
            action: action.to_owned(),
        }),
    }
}

/// The result of writing a file.
enum Written {
    Done,
    /// A live process has the file of this ID.
    Other {
        found: String,
    },
}

impl EntryFile {
    fn write(&self) -> io::Result<Written> {
        let folder = self.folder.create(&self.service)?;
        let path = folder.join(&self.name);
        if self.is_at(&path)? {
            return Ok(Written::Done);
        }
        if let Some(found) = other_owner(&path)? {
            return Ok(Written::Other { found });
        }
        let temporary = folder.join(format!(".{}.tmp", self.name));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o644)
            .open(&temporary)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                let found = "another process is registering it now".to_owned();
                return Ok(Written::Other { found });
            }
        }
        // The file may be the rest of a process that died here.
        file.set_len(0)?;
        file.write_all(&self.json)?;
        fs::rename(&temporary, &path)?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(Written::Done)
    }

    fn is_held(&self) -> io::Result<bool> {
        self.is_at(&self.folder.service(&self.service).join(&self.name))
    }

    /// True if this process holds the file at `path`.
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        match &*self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => files::is_at(path, file),
            None => Ok(false),
        }
    }

    fn remove(&self) -> io::Result<()> {
        let path: PathBuf = self.folder.service(&self.service).join(&self.name);
        if self.is_at(&path)? {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

/// The entry of another live process at `path`, for messages.
fn other_owner(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => Ok(Some(format!(
            "{} belongs to another live process",
            path.display()
        ))),
    }
}

fn unsupported(registry: &str, id: &str, check: &str) -> RegistryError {
    RegistryError::Unsupported {
        registry: registry.to_owned(),
        action: format!(
            "register {id} with {check}: a file's lock shows that its process lives; use the default check"
        ),
    }
}

impl RegistrationClient for FileRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        &self.registry
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
}
