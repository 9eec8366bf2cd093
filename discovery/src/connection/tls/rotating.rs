//! TLS settings that are replaced while connections are made with them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Settings, Tls, TlsError, explain};
use crate::{connection::ConnectError, instance::Instance};

/// TLS settings that can be replaced, for certificates that are renewed while the process runs. Clones
/// share them.
///
/// Connections that exist stay as they are; new ones are made with the new settings.
///
/// ```no_run
/// use discovery::connection::{Http2, RotatingTls, Tls};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// fn read() -> std::io::Result<Tls> {
///     Ok(Tls::new()
///         .with_ca_pem(std::fs::read("ca.pem")?)
///         .with_identity_pem(std::fs::read("client.pem")?, std::fs::read("client.key")?))
/// }
///
/// let tls = RotatingTls::new(read()?)?;
/// let http2 = Http2::new().with_rotating_tls(&tls);
/// // Later, when the files have changed. After an error the settings are the old ones.
/// tls.replace(read()?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RotatingTls(Arc<ArcSwap<Settings>>);

impl RotatingTls {
    /// Settings to begin with.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    pub fn new(tls: Tls) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(tls.settings()?))))
    }

    /// Replaces the settings for all connections that are made from now on.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used. The old settings stay.
    pub fn replace(&self, tls: Tls) -> Result<(), TlsError> {
        self.0.store(Arc::new(tls.settings()?));
        Ok(())
    }

    /// Performs the handshake of an HTTP/2 connection.
    pub(in crate::connection) async fn handshake<S>(
        &self,
        stream: S,
        instance: &Instance,
    ) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.handshake_offering(stream, instance, &[b"h2"]).await
    }

    /// Performs the handshake of a connection for which these protocols are offered (ALPN), the preferred
    /// one first.
    pub(in crate::connection) async fn handshake_offering<S>(
        &self,
        stream: S,
        instance: &Instance,
        protocols: &[&[u8]],
    ) -> Result<TlsStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = self.0.load_full();
        let name = match &settings.domain {
            Some(name) => name.clone(),
            None => ServerName::try_from(instance.host.clone())
                .map_err(|error| ConnectError::Handshake(error.into()))?,
        };
        let protocols = protocols.iter().map(|protocol| protocol.to_vec());
        TlsConnector::from(Arc::clone(&settings.config))
            .with_alpn(protocols.collect())
            .connect(name.clone(), stream)
            .await
            .map_err(|error| explain::handshake(error, &name))
    }
}
