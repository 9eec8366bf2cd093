//! TLS to etcd.

use super::config::Config;
use crate::{
    connection::{Http2, Tls},
    error::chain,
    registry::{
        RegistryError,
        tls::{self, Settings},
    },
};

/// A factory of connections with TLS. Reads the certificate files.
pub(super) fn factory(config: &Config) -> Result<Http2, RegistryError> {
    let wrong = |reason| RegistryError::invalid_setting(config.name(), reason);
    let settings = Settings {
        ca_file: config.ca_file.as_deref(),
        ca_path: None,
        ca_setting: "ETCDCTL_CACERT",
        identity: config
            .client_cert
            .as_deref()
            .zip(config.client_key.as_deref()),
        server_name: config.tls_server_name.as_deref(),
        any_certificate: !config.tls_verify,
    };
    let tls = tls::client_config(&settings).map_err(wrong)?;
    let tls = Tls::new().with_config(tls);
    Http2::new().with_tls(tls).map_err(|e| wrong(chain(&e)))
}
