//! The byte stream to one server: TCP, or TLS over it.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::registry::{RegistryError, zookeeper::config::Config};

/// A byte stream of any transport.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to servers.
pub(super) struct Dialer {
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsConnector>,
}

#[cfg(feature = "tls")]
impl Dialer {
    /// Reads the certificate files.
    pub(super) fn new(config: &Config) -> Result<Self, RegistryError> {
        use std::sync::Arc;

        use crate::registry::tls;

        if !config.tls {
            return Ok(Self { tls: None });
        }
        let identity = config
            .client_cert
            .as_deref()
            .zip(config.client_key.as_deref());
        let tls = tls::client_config(&tls::Settings {
            ca_file: config.ca_file.as_deref(),
            ca_setting: "ca in the registry's URL",
            identity,
            ..tls::Settings::default()
        });
        let tls = tls.map_err(|reason| RegistryError::invalid_setting(config.name(), reason))?;
        Ok(Self {
            tls: Some(Arc::new(tls).into()),
        })
    }

    /// Connects to a server.
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        use rustls::pki_types::ServerName;

        let stream = connect(host, port).await?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

#[cfg(not(feature = "tls"))]
impl Dialer {
    /// # Errors
    ///
    /// `InvalidSetting` for TLS, which this build does not have.
    pub(super) fn new(config: &Config) -> Result<Self, RegistryError> {
        crate::registry::checks::check_tls(config.tls)
            .map_err(|reason| RegistryError::invalid_setting(config.name(), reason))?;
        Ok(Self {})
    }

    /// Connects to a server.
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(connect(host, port).await?))
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Requests are written whole, and each waits for its answer.
    stream.set_nodelay(true)?;
    Ok(stream)
}
