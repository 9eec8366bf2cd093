//! TLS to Consul.

use rustls::ClientConfig;

use super::config::Config;
use crate::registry::{
    RegistryError,
    tls::{self, Settings},
};

/// The TLS settings of the HTTP client. Reads the certificate files.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, RegistryError> {
    let settings = Settings {
        ca_file: config.ca_file.as_deref(),
        ca_path: config.ca_path.as_deref(),
        ca_setting: "CONSUL_CACERT",
        identity: config
            .client_cert
            .as_deref()
            .zip(config.client_key.as_deref()),
        server_name: config.tls_server_name.as_deref(),
        any_certificate: !config.tls_verify,
    };
    tls::http_config(config.tls.then_some(&settings))
        .map_err(|reason| RegistryError::invalid_setting(config.name(), reason))
}
