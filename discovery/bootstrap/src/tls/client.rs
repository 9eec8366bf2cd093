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

    /// The settings of a program's flags; `None` if none of them is given.
    #[must_use]
    pub fn of_flags(
        ca: Option<&PathBuf>,
        certificate: Option<&PathBuf>,
        key: Option<&PathBuf>,
        server_name: Option<&str>,
    ) -> Option<Self> {
        let tls = Self {
            ca: ca.cloned(),
            identity: certificate.cloned().zip(key.cloned()),
            server_name: server_name.map(str::to_owned),
        };
        let is_given = tls.ca.is_some() || tls.identity.is_some() || tls.server_name.is_some();
        is_given.then_some(tls)
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

    /// Reads the files once.
    ///
    /// # Errors
    ///
    /// With the file and the reason, if one cannot be read or has another content.
    pub fn load(&self) -> anyhow::Result<Tls> {
        Ok(self.read()?.0)
    }

    fn read(&self) -> anyhow::Result<(Tls, Expiry)> {
        let mut tls = match &self.ca {
            None => Tls::new().with_native_roots(),
            Some(file) => {
                let what = "CA file";
                let authorities = pem::read(what, file)?;
                // For an error that names the file.
                pem::authorities(what, file, &authorities)?;
                Tls::new().with_ca_pem(authorities)
            }
        };
        let mut expiry = Expiry::default();
        if let Some((certificate, key)) = &self.identity {
            let what = "TLS client certificate";
            let chain = pem::read(what, certificate)?;
            let certificates = pem::certificates(what, certificate, &chain)?;
            expiry = Expiry::of(what, certificate, &certificates);
            let what = "TLS client key";
            let text = pem::read(what, key)?;
            pem::private_key(what, key, &text)?;
            tls = tls.with_identity_pem(chain, text);
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
