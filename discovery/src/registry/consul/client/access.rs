//! The HTTP client and the token. They are made anew when a file that they came from changes.
//!
//! Tokens and certificates are rotated while a process runs. A file that cannot be used, for example in
//! the middle of a rotation, leaves the credentials as they are until it changes again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use reqwest::header::HeaderValue;
use tracing::{info, warn};

#[cfg(feature = "tls")]
use crate::registry::consul::tls;
use crate::{
    error::chain,
    registry::{
        RegistryError,
        consul::config::Config,
        http::{Version, client_builder},
    },
};

/// The credentials in use.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) http: reqwest::Client,
    pub(super) token: Option<HeaderValue>,
    token_file: Option<Version>,
    tls_files: Vec<Option<Version>>,
}

/// See the [module](self).
pub(super) struct Access {
    config: Config,
    current: ArcSwap<Credentials>,
}

impl Access {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// `InvalidSetting` when a file or the token cannot be used.
    pub(super) fn open(config: &Config) -> Result<Self, RegistryError> {
        let (token_file, tls_files) = (token_version(config), tls_versions(config));
        let credentials = Credentials {
            http: http(config)?,
            token: token(config)?,
            token_file,
            tls_files,
        };
        Ok(Self {
            config: config.clone(),
            current: ArcSwap::from_pointee(credentials),
        })
    }

    /// The credentials. Reads the files that have changed.
    pub(super) fn current(&self) -> Arc<Credentials> {
        let current = self.current.load_full();
        let (token_file, tls_files) = (token_version(&self.config), tls_versions(&self.config));
        if current.token_file == token_file && current.tls_files == tls_files {
            return current;
        }
        let mut next = (*current).clone();
        if current.token_file != token_file {
            next.token_file = token_file;
            self.adopt("token", token(&self.config), &mut next.token);
        }
        if current.tls_files != tls_files {
            next.tls_files = tls_files;
            self.adopt("certificates", http(&self.config), &mut next.http);
        }
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        next
    }

    /// The credentials after Consul denied a request with `used`, if the token's file has another token
    /// now.
    pub(super) fn after_denial(&self, used: &Credentials) -> Option<Arc<Credentials>> {
        let token_file = token_version(&self.config);
        let token = token(&self.config).ok()?;
        if token == used.token {
            return None;
        }
        info!(
            registry = self.config.name(),
            "read the token again after a denial"
        );
        let next = Arc::new(Credentials {
            token,
            token_file,
            ..(*self.current.load_full()).clone()
        });
        self.current.store(Arc::clone(&next));
        Some(next)
    }

    fn adopt<T>(&self, what: &str, new: Result<T, RegistryError>, place: &mut T) {
        let registry = self.config.name();
        match new {
            Ok(new) => {
                info!(registry, "read the {what} again, whose files changed");
                *place = new;
            }
            Err(error) => warn!(
                registry,
                "kept the {what}, because the changed files cannot be used: {}",
                chain(&error)
            ),
        }
    }
}

fn token_version(config: &Config) -> Option<Version> {
    Version::of(config.token_file.as_ref()?)
}

fn tls_versions(config: &Config) -> Vec<Option<Version>> {
    if !config.tls {
        return Vec::new();
    }
    let files = [
        &config.ca_file,
        &config.ca_path,
        &config.client_cert,
        &config.client_key,
    ];
    let given = files.into_iter().flatten();
    given.map(|file| Version::of(file)).collect()
}

fn wrong(config: &Config, reason: String) -> RegistryError {
    RegistryError::invalid_setting(config.name(), reason)
}

/// The ACL token of the configuration: the one in the file, else the one given.
fn token(config: &Config) -> Result<Option<HeaderValue>, RegistryError> {
    let mut token = config.token.clone();
    if let Some(file) = &config.token_file {
        let unreadable = |e| wrong(config, format!("token file {}: {e}", file.display()));
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let text = text.trim();
        if !text.is_empty() {
            token = Some(text.to_owned());
        }
    }
    let header = |token: String| {
        let mut value = HeaderValue::from_str(&token).map_err(|_| {
            let reason = "the ACL token contains a control character";
            wrong(config, reason.to_owned())
        })?;
        value.set_sensitive(true);
        Ok(value)
    };
    token.map(header).transpose()
}

fn http(config: &Config) -> Result<reqwest::Client, RegistryError> {
    let builder = client_builder(config.connect_timeout);
    #[cfg(unix)]
    let builder = match config.socket() {
        Some(path) => builder.unix_socket(path),
        None => builder,
    };
    #[cfg(feature = "tls")]
    let builder = builder.tls_backend_preconfigured(tls::client_config(config)?);
    builder
        // Consul allows 200 connections per client address, idle ones included.
        .pool_max_idle_per_host(2)
        .build()
        .map_err(|e| wrong(config, chain(&e)))
}
