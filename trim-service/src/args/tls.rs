//! The flags about TLS.

use std::path::PathBuf;

use bootstrap::{ClientAuth, ServerTls};
use clap::Args;
use discovery::registry::Registration;

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
#[allow(clippy::struct_field_names, reason = "the names of the flags")]
pub(crate) struct TlsArgs {
    /// Serve TLS with the certificate in this PEM file, and those of intermediate authorities after it.
    /// All TLS files are read again when they change; connections stay
    #[arg(long, env = "TRIM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, as a PEM file
    #[arg(long, env = "TRIM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities of the clients' certificates, as a PEM file [default: clients are not asked for one]
    #[arg(
        long,
        env = "TRIM_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_client_ca: Option<PathBuf>,
    /// Clients without a certificate of --tls-client-ca: refused (required) or served (optional)
    #[arg(
        long,
        env = "TRIM_TLS_CLIENT_AUTH",
        value_name = "AUTH",
        default_value = "required",
        requires = "tls_client_ca"
    )]
    tls_client_auth: ClientAuth,
}

impl TlsArgs {
    /// The TLS of the server; `None` without.
    pub(crate) fn server(&self) -> Option<ServerTls> {
        ServerTls::of_flags(
            self.tls_cert.as_ref(),
            self.tls_key.as_ref(),
            self.tls_client_ca.as_ref(),
            self.tls_client_auth,
        )
    }

    /// The registration, with the TLS settings that a registry and its checks need.
    pub(super) fn apply(&self, registration: Registration) -> Registration {
        if self.requires_certificates() {
            registration.with_client_certificates()
        } else if self.is_on() {
            registration.with_tls()
        } else {
            registration
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.tls_cert.is_some()
    }

    /// True if a client without a certificate is refused.
    fn requires_certificates(&self) -> bool {
        self.tls_client_ca.is_some() && self.tls_client_auth == ClientAuth::Required
    }
}
