//! The connections to instances: with TLS or without.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use discovery::connection::{Http2, Tls};

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
        self.tls || self.tls_ca.is_some() || self.tls_cert.is_some() || self.tls_domain.is_some()
    }

    /// The factory of connections.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or used.
    pub(crate) fn factory(&self) -> anyhow::Result<Http2> {
        if !self.is_tls() {
            return Ok(Http2::new());
        }
        let mut tls = match &self.tls_ca {
            Some(file) => Tls::new().with_ca_pem(read("--tls-ca", file)?),
            None => Tls::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let certificate = read("--tls-cert", certificate)?;
            tls = tls.with_identity_pem(certificate, read("--tls-key", key)?);
        }
        if let Some(name) = &self.tls_domain {
            tls = tls.with_domain(name);
        }
        Http2::new().with_tls(tls).context("the TLS settings")
    }
}

fn read(flag: &str, file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let text = fs::read(file).with_context(|| format!("{flag} {}", file.display()))?;
    if text.is_empty() {
        bail!("{flag} {}: the file is empty", file.display());
    }
    Ok(text)
}
