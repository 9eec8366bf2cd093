//! The TLS settings of the calls that a service makes.

use std::path::PathBuf;

use anyhow::Context as _;
use discovery::connection::{RotatingTls, Tls};

use super::{pem, rotation::Rotation, validity::Expiry};

/// The TLS settings of a client: PEM files, which are read again when they change.
///
/// ```no_run
/// use bootstrap::ClientTls;
/// use discovery::connection::Http2;
///
/// # async fn example() -> anyhow::Result<()> {
/// let tls = ClientTls::new()
///     .with_ca("ca.pem")
///     .with_identity("client.pem", "client.key")
///     .with_server_name("trim.example");
/// let http2 = Http2::new().with_rotating_tls(&tls.start()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
}

impl ClientTls {
    /// A client that trusts the authorities of the system and has no certificate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file, and not those of the system.
    #[must_use]
    pub fn with_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Identifies this client by a certificate and its private key. Default: no certificate.
    #[must_use]
    pub fn with_identity(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name in the certificates of all servers. Default: the host of each.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    fn read(&self) -> anyhow::Result<(Tls, Expiry)> {
        let mut tls = match &self.ca {
            None => Tls::new().with_native_roots(),
            Some(file) => {
                // For an error that names the file.
                pem::authorities("CA file", file)?;
                Tls::new().with_ca_pem(pem::read("CA file", file)?)
            }
        };
        let mut expiry = Expiry::default();
        if let Some((certificate, key)) = &self.identity {
            let what = "TLS client certificate";
            let chain = pem::read(what, certificate)?;
            expiry = Expiry::of(
                what,
                certificate,
                &pem::certificates(what, certificate, &chain)?,
            );
            pem::private_key("TLS client key", key)?;
            tls = tls.with_identity_pem(chain, pem::read("TLS client key", key)?);
        }
        if let Some(name) = &self.server_name {
            tls = tls.with_domain(name);
        }
        Ok((tls, expiry))
    }

    fn unusable(&self) -> String {
        match &self.identity {
            Some((certificate, key)) => format!(
                "cannot use the TLS client certificate {} with the key {}",
                certificate.display(),
                key.display()
            ),
            None => "cannot use the TLS settings of the client".to_owned(),
        }
    }

    /// Reads the files, and follows them in a task of its own until the runtime ends. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// With the file and the reason, if one cannot be used; outside a runtime.
    pub fn start(self) -> anyhow::Result<RotatingTls> {
        tokio::runtime::Handle::try_current().context("cannot follow the TLS files")?;
        let pair = self.identity.iter().flat_map(|(a, b)| [a, b]);
        let files = self.ca.iter().chain(pair).cloned().collect();
        let rotation = Rotation::new("the TLS certificates of the client", files);
        let (tls, expiry) = self.read()?;
        let rotating = RotatingTls::new(tls).with_context(|| self.unusable())?;
        let current = rotating.clone();
        tokio::spawn(rotation.follow(expiry, move || {
            let (tls, expiry) = self.read()?;
            current.replace(tls).with_context(|| self.unusable())?;
            Ok(expiry)
        }));
        Ok(rotating)
    }
}
