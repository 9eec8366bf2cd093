//! TLS to Eureka.

use rustls::ClientConfig;

use super::config::Config;
use crate::registry::{
    RegistryError,
    tls::{self, Settings},
};

/// The TLS settings of the HTTP client. Reads the certificate files.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, RegistryError> {
    let wrong = |reason| RegistryError::InvalidSetting {
        registry: config.name(),
        reason,
    };
    if !config.tls {
        return tls::unused().map_err(wrong);
    }
    let identity = config.client_cert.as_deref();
    let mut tls = tls::client_config(&Settings {
        ca_file: config.ca_file.as_deref(),
        ca_setting: "ca",
        identity: identity.zip(config.client_key.as_deref()),
        ..Settings::default()
    })
    .map_err(wrong)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
