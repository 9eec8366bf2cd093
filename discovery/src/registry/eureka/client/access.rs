//! The HTTP client. It is made anew when a certificate file has changed.
//!
//! Certificates are rotated while a process runs. A file that cannot be used, for example in the middle of
//! a rotation, leaves the client as it is until the file changes again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::{info, warn};

#[cfg(feature = "tls")]
use crate::registry::eureka::tls;
use crate::{
    error::chain,
    registry::{
        RegistryError,
        eureka::config::Config,
        http::{Version, client_builder},
    },
};

/// Idle connections that are kept for each peer.
const IDLE_PER_PEER: usize = 4;

/// See the [module](self).
pub(super) struct Access {
    config: Arc<Config>,
    current: ArcSwap<Current>,
}

struct Current {
    http: reqwest::Client,
    files: Vec<Option<Version>>,
}

impl Access {
    /// Reads the certificate files.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` when a file cannot be used.
    pub(super) fn open(config: Arc<Config>) -> Result<Self, RegistryError> {
        let files = files(&config);
        let http = http(&config)?;
        Ok(Self {
            config,
            current: ArcSwap::from_pointee(Current { http, files }),
        })
    }

    /// The HTTP client. Reads the files if one has changed.
    pub(super) fn http(&self) -> reqwest::Client {
        let current = self.current.load();
        let files = files(&self.config);
        if current.files == files {
            return current.http.clone();
        }
        let registry = self.config.name();
        let http = match http(&self.config) {
            Ok(http) => {
                info!(registry, "read the certificates again, whose files changed");
                http
            }
            Err(error) => {
                let reason = chain(&error);
                warn!(
                    registry,
                    "kept the certificates, because the changed files cannot be used: {reason}"
                );
                current.http.clone()
            }
        };
        self.current.store(Arc::new(Current {
            http: http.clone(),
            files,
        }));
        http
    }
}

fn files(config: &Config) -> Vec<Option<Version>> {
    if !config.tls {
        return Vec::new();
    }
    let files = [&config.ca_file, &config.client_cert, &config.client_key];
    let given = files.into_iter().flatten();
    given.map(|file| Version::of(file)).collect()
}

fn http(config: &Config) -> Result<reqwest::Client, RegistryError> {
    let builder = client_builder(config.connect_timeout);
    #[cfg(feature = "tls")]
    let builder = builder.tls_backend_preconfigured(tls::client_config(config)?);
    builder
        .pool_max_idle_per_host(IDLE_PER_PEER)
        .build()
        .map_err(|error| RegistryError::invalid_setting(config.name(), chain(&error)))
}
