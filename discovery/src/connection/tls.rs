//! TLS settings of the connections to instances.

pub(super) mod explain;
mod rotating;

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName,
        pem::{self, PemObject as _},
    },
};

pub use self::rotating::RotatingTls;
use crate::provider::{NO_PROVIDER, provider};

/// TLS settings, for [`Http2::with_tls`](super::Http2::with_tls): which servers are trusted, and
/// how this client identifies itself.
///
/// ```no_run
/// use discovery::connection::{Http2, Tls};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::new()
///     .with_ca_pem(std::fs::read("ca.pem")?)
///     .with_identity_pem(std::fs::read("client.pem")?, std::fs::read("client.key")?)
///     .with_domain("trim.example");
/// let http2 = Http2::new().with_tls(tls)?;
/// # Ok(())
/// # }
/// ```
///
/// The cryptography is that of the process's default provider
/// (`rustls::crypto::CryptoProvider::install_default`). If none is installed, it is ring (feature
/// `tls-ring`) or AWS-LC (feature `tls-aws-lc`).
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Vec<Vec<u8>>,
    native_roots: bool,
    /// The certificate chain and its key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    domain: Option<String>,
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Settings that trust no certificate authority yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificate authorities in this PEM text, in addition to others.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.authorities.push(pem.as_ref().to_vec());
        self
    }

    /// Trusts the certificate authorities of the system, in addition to others.
    #[must_use]
    pub fn with_native_roots(mut self) -> Self {
        self.native_roots = true;
        self
    }

    /// Identifies this client by a certificate chain and its private key (PKCS#8, PKCS#1 or SEC1),
    /// both as PEM. Default: no client certificate.
    #[must_use]
    pub fn with_identity_pem(
        mut self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Self {
        self.identity = Some((certificate.as_ref().to_vec(), key.as_ref().to_vec()));
        self
    }

    /// Verifies every instance's certificate against this name, which is also sent as SNI. Default:
    /// the host of the instance.
    ///
    /// Registries list IP addresses, certificates usually name the service: set it then.
    #[must_use]
    pub fn with_domain(mut self, name: impl Into<String>) -> Self {
        self.domain = Some(name.into());
        self
    }

    /// Uses a `rustls` configuration in place of the certificate settings. Its ALPN list is
    /// replaced by HTTP/2.
    #[must_use]
    pub fn with_config(mut self, config: ClientConfig) -> Self {
        self.config = Some(Arc::new(config));
        self
    }

    fn settings(self) -> Result<Settings, TlsError> {
        let domain = match self.domain {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|source| TlsError::Domain { name, source })?,
            ),
        };
        let certificates =
            !self.authorities.is_empty() || self.native_roots || self.identity.is_some();
        let config = match self.config {
            Some(_) if certificates => return Err(TlsError::Conflict),
            Some(config) => config,
            None => client_config(&self.authorities, self.native_roots, self.identity)?.into(),
        };
        Ok(Settings { config, domain })
    }
}

impl fmt::Debug for Tls {
    /// Leaves out the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.len())
            .field("native_roots", &self.native_roots)
            .field("identity", &self.identity.is_some())
            .field("domain", &self.domain)
            .field("config", &self.config.is_some())
            .finish()
    }
}

fn client_config(
    authorities: &[Vec<u8>],
    native_roots: bool,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider().ok_or(TlsError::NoProvider)?)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_root_certificates(roots(authorities, native_roots)?);
    let Some((certificate, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&certificate).map_err(TlsError::ClientCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(TlsError::ClientKey)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(TlsError::Identity)
}

fn roots(authorities: &[Vec<u8>], native: bool) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        for certificate in certificates(pem).map_err(TlsError::CaPem)? {
            roots.add(certificate).map_err(TlsError::Ca)?;
        }
    }
    if native {
        let mut system = rustls_native_certs::load_native_certs();
        // A system store may hold certificates that rustls cannot read; the others count.
        let (added, _unreadable) = roots.add_parsable_certificates(system.certs);
        if added == 0 {
            return Err(TlsError::NativeRoots(system.errors.pop()));
        }
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    Ok(roots)
}

/// All certificates of a PEM text, of which there must be one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(pem::Error::NoItemsFound);
    }
    Ok(certificates)
}

/// TLS settings that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A CA certificate's PEM text.
    #[error("invalid PEM of a CA certificate")]
    CaPem(#[source] pem::Error),
    /// A CA certificate.
    #[error("invalid CA certificate")]
    Ca(#[source] rustls::Error),
    /// The system has no usable CA certificates.
    #[error("no usable CA certificate on this system; use with_ca_pem")]
    NativeRoots(#[source] Option<rustls_native_certs::Error>),
    /// No server could be trusted.
    #[error("no trusted certificate authority; use with_ca_pem or with_native_roots")]
    NoAuthority,
    /// The client certificate's PEM text.
    #[error("invalid PEM of the client certificate")]
    ClientCertificate(#[source] pem::Error),
    /// The client key's PEM text.
    #[error("invalid PEM of the client's private key")]
    ClientKey(#[source] pem::Error),
    /// The client certificate and its key.
    #[error("unusable client certificate or private key")]
    Identity(#[source] rustls::Error),
    /// The name to verify.
    #[error("invalid TLS domain {name:?}; expected a DNS name or an IP address")]
    Domain {
        /// The name as given.
        name: String,
        /// The reason.
        source: InvalidDnsNameError,
    },
    /// `with_config` beside other certificate settings.
    #[error("with_config cannot be combined with CA certificates or an identity")]
    Conflict,
    /// No cryptography.
    #[error("{NO_PROVIDER}")]
    NoProvider,
    /// The process's crypto provider.
    #[error("the installed rustls CryptoProvider supports neither TLS 1.2 nor TLS 1.3")]
    Provider(#[source] rustls::Error),
}

/// Settings that were checked.
#[derive(Debug)]
struct Settings {
    config: Arc<ClientConfig>,
    /// The name to verify in place of the instance's host.
    domain: Option<ServerName<'static>>,
}
