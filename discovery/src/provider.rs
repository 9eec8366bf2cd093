//! The cryptography of all TLS in this crate.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The reason why there is no [`provider`].
pub(crate) const NO_PROVIDER: &str = "no TLS crypto provider; enable the feature tls-ring or \
     tls-aws-lc of the crate discovery, or install a rustls CryptoProvider";

/// The provider that the application installed, or else the one that a feature compiled in.
///
/// `ClientConfig::builder()` is not an option: it panics if the build contains two providers and
/// none is installed, and a build gets a second one by any other dependency.
pub(crate) fn provider() -> Option<Arc<CryptoProvider>> {
    let provider = CryptoProvider::get_default().cloned();
    #[cfg(feature = "tls-ring")]
    let provider = provider.or_else(|| Some(Arc::new(rustls::crypto::ring::default_provider())));
    #[cfg(feature = "tls-aws-lc")]
    let provider =
        provider.or_else(|| Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider())));
    provider
}
