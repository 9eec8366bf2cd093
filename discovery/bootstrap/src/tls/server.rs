//! The TLS settings of a server.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::ValueEnum;
use rustls::{ServerConfig, server::WebPkiClientVerifier};

use super::{pem, rotation::Rotation, validity::Expiry};
use crate::serve::Protocol;

/// The certificates that clients of a server need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// A client without a certificate is refused
    Required,
    /// A client may have no certificate; one that it has must be valid
    Optional,
}

/// The TLS settings of a server: PEM files, which are read again when they change. Connections that exist
/// stay as they are.
///
/// ```
/// use bootstrap::{ClientAuth, Server, ServerTls};
///
/// let tls = ServerTls::new("server.pem", "server.key")
///     .with_client_ca("clients-ca.pem", ClientAuth::Required);
/// let server = Server::new().tls(tls);
/// ```
#[derive(Clone, Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<(PathBuf, ClientAuth)>,
}

impl ServerTls {
    /// A server with this certificate, and the certificates of intermediate authorities after it, and
    /// this private key (PKCS#8, PKCS#1 or SEC1).
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            clients: None,
        }
    }

    /// The settings of a program's flags; `None` without a certificate and a key.
    #[must_use]
    pub fn of_flags(
        certificate: Option<&PathBuf>,
        key: Option<&PathBuf>,
        client_ca: Option<&PathBuf>,
        auth: ClientAuth,
    ) -> Option<Self> {
        let tls = Self::new(certificate?, key?);
        Some(match client_ca {
            Some(file) => tls.with_client_ca(file, auth),
            None => tls,
        })
    }

    /// Asks clients for certificates of the authorities in this file. Default: clients are not asked.
    #[must_use]
    pub fn with_client_ca(mut self, file: impl Into<PathBuf>, auth: ClientAuth) -> Self {
        self.clients = Some((file.into(), auth));
        self
    }

    /// Reads the files.
    fn read(&self) -> anyhow::Result<(ServerConfig, Expiry)> {
        let provider = pem::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("the installed crypto provider supports neither TLS 1.2 nor TLS 1.3")?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some((file, auth)) => {
                let what = "client CA file";
                let text = pem::read(what, file)?;
                let roots = Arc::new(pem::authorities(what, file, &text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                let verifier = verifier
                    .build()
                    .with_context(|| format!("cannot use the client CA file {}", file.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let what = "TLS certificate";
        let text = pem::read(what, &self.certificate)?;
        let chain = pem::certificates(what, &self.certificate, &text)?;
        let expiry = Expiry::of(what, &self.certificate, &chain);
        let what = "TLS key";
        let text = pem::read(what, &self.key)?;
        let key = pem::private_key(what, &self.key, &text)?;
        let config = builder.with_single_cert(chain, key).with_context(|| {
            format!(
                "the TLS certificate {} and the key {} cannot be used together",
                self.certificate.display(),
                self.key.display()
            )
        })?;
        Ok((config, expiry))
    }

    /// Reads the files for the start, and follows them from then on.
    ///
    /// # Errors
    ///
    /// With the file and the reason, if one cannot be used.
    pub(crate) fn start(self) -> anyhow::Result<(Arc<Acceptor>, impl Future<Output = ()> + use<>)> {
        let mut files = vec![self.certificate.clone(), self.key.clone()];
        files.extend(self.clients.iter().map(|(file, _)| file.clone()));
        let rotation = Rotation::new("the TLS certificate of the server", files);
        let (config, expiry) = self.read()?;
        let acceptor = Arc::new(Acceptor::new(&config));
        let current = Arc::clone(&acceptor);
        let following = rotation.follow(expiry, move || {
            let (config, expiry) = self.read()?;
            current.replace(&config);
            Ok(expiry)
        });
        Ok((acceptor, following))
    }
}

/// The settings in use.
#[derive(Debug)]
pub(crate) struct Acceptor(ArcSwap<Configs>);

/// The settings of each kind of port, which differ in what ALPN offers.
#[derive(Debug)]
struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl Acceptor {
    fn new(config: &ServerConfig) -> Self {
        Self(ArcSwap::from_pointee(Configs::of(config)))
    }

    fn replace(&self, config: &ServerConfig) {
        self.0.store(Arc::new(Configs::of(config)));
    }

    /// The settings for a new connection.
    pub(super) fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let configs = self.0.load();
        Arc::clone(match protocol {
            Protocol::Grpc => &configs.grpc,
            Protocol::Http => &configs.http,
        })
    }
}

impl Configs {
    fn of(config: &ServerConfig) -> Self {
        let with = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            grpc: with(&[b"h2"]),
            http: with(&[b"h2", b"http/1.1"]),
        }
    }
}
