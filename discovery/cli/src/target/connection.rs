//! The connections to instances: with TLS or without.

use std::path::PathBuf;

use anyhow::Context as _;
use bootstrap::ClientTls;
use clap::Args;
use discovery::connection::Http2;

/// The flags about connections to instances.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections to instances")]
pub(crate) struct ConnectionArgs {
    /// Use TLS; each of the flags below implies it [default: no TLS]
    #[arg(long, env = "DISCOVERY_TLS")]
    tls: bool,
    /// File of certificate authorities to trust, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "DISCOVERY_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// File of the client's certificate chain, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "DISCOVERY_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// File of the client's private key, in PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "DISCOVERY_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Name that the instances' certificates must have [default: each instance's host]
    #[arg(long, value_name = "NAME", env = "DISCOVERY_TLS_DOMAIN")]
    tls_domain: Option<String>,
}

impl ConnectionArgs {
    /// True if connections use TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// The TLS of the connections; `None` without.
    fn tls(&self) -> Option<ClientTls> {
        let given = ClientTls::of_flags(
            self.tls_ca.as_ref(),
            self.tls_cert.as_ref(),
            self.tls_key.as_ref(),
            self.tls_domain.as_deref(),
        );
        given.or_else(|| self.tls.then(ClientTls::new))
    }

    /// The factory of connections.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub(crate) fn factory(&self) -> anyhow::Result<Http2> {
        match self.tls() {
            None => Ok(Http2::new()),
            Some(tls) => {
                let http2 = Http2::new().with_tls(tls.load()?);
                http2.context("cannot use the TLS settings")
            }
        }
    }
}
