//! TLS to Eureka.

use rustls::ClientConfig;

use super::config::Config;
use crate::registry::{
    RegistryError,
    tls::{self, Settings},
};

/// The TLS settings of the HTTP client. Reads the certificate files.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, RegistryError> {
    let identity = config.client_cert.as_deref();
    let settings = Settings {
        ca_file: config.ca_file.as_deref(),
        ca_setting: "ca",
        identity: identity.zip(config.client_key.as_deref()),
        ..Settings::default()
    };
    tls::http_config(config.tls.then_some(&settings))
        .map_err(|reason| RegistryError::invalid_setting(config.name(), reason))
}
