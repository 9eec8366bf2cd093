//! HTTP clients for tests.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

/// A client for plain HTTP. `reqwest::Client::new` panics in this workspace, which has no default TLS
/// provider.
///
/// # Errors
///
/// When it cannot be made.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(http_client_builder()?.build()?)
}

/// The builder of [`http_client`], for a client with other settings.
///
/// # Errors
///
/// When it cannot be made.
pub fn http_client_builder() -> Result<reqwest::ClientBuilder> {
    // Not used, but the client panics without a provider.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls);
    Ok(builder.timeout(Duration::from_secs(10)))
}
