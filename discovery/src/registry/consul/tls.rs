//! TLS to Consul.

use rustls::ClientConfig;

use super::config::Config;
use crate::registry::{
    RegistryError,
    tls::{self, Settings},
};

pub(super) fn client_config(config: &Config) -> Result<ClientConfig, RegistryError> {
    let wrong = |reason| RegistryError::InvalidSetting {
        registry: config.name(),
        reason,
    };
    if !config.tls {
        return tls::unused().map_err(wrong);
    }
    let mut tls = tls::client_config(&Settings {
        ca_file: config.ca_file.as_deref(),
        ca_path: config.ca_path.as_deref(),
        ca_setting: "CONSUL_CACERT",
        identity: config
            .client_cert
            .as_deref()
            .zip(config.client_key.as_deref()),
        server_name: config.tls_server_name.as_deref(),
        any_certificate: !config.tls_verify,
    })
    .map_err(wrong)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
