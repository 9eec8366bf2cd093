//! The flags about TLS: of the service's ports, and of its calls to trim instances.

use std::path::PathBuf;

use bootstrap::{ClientAuth, ClientTls, ServerTls, values::name};
use clap::Args;

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS")]
#[allow(clippy::struct_field_names, reason = "the names of the flags")]
pub(crate) struct TlsArgs {
    /// Serve TLS with the certificate in this PEM file, and those of intermediate authorities after it
    /// (--admin-listen stays without TLS).
    /// All TLS files are read again when they change; connections stay
    #[arg(long, env = "ADD_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert, as a PEM file
    #[arg(long, env = "ADD_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities of the clients' certificates, as a PEM file [default: clients are not asked for one]
    #[arg(
        long,
        env = "ADD_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_client_ca: Option<PathBuf>,
    /// Clients without a certificate of --tls-client-ca: refused (required) or served (optional)
    #[arg(
        long,
        env = "ADD_TLS_CLIENT_AUTH",
        value_name = "AUTH",
        default_value = "required",
        requires = "tls_client_ca"
    )]
    tls_client_auth: ClientAuth,
    /// Call trim instances with TLS, and trust the authorities in this PEM file [default: with another
    /// --trim-tls flag those of the system, else no TLS]
    #[arg(long, env = "ADD_TRIM_TLS_CA", value_name = "FILE")]
    trim_tls_ca: Option<PathBuf>,
    /// Certificate of this service for its calls to trim instances, as a PEM file
    #[arg(
        long,
        env = "ADD_TRIM_TLS_CERT",
        value_name = "FILE",
        requires = "trim_tls_key"
    )]
    trim_tls_cert: Option<PathBuf>,
    /// Private key of --trim-tls-cert, as a PEM file
    #[arg(
        long,
        env = "ADD_TRIM_TLS_KEY",
        value_name = "FILE",
        requires = "trim_tls_cert"
    )]
    trim_tls_key: Option<PathBuf>,
    /// Name in the certificates of the trim instances [default: the host of each, usually an IP address]
    #[arg(long, env = "ADD_TRIM_TLS_SERVER_NAME", value_name = "NAME", value_parser = name)]
    trim_tls_server_name: Option<String>,
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

    /// The TLS of the calls to trim instances; `None` without.
    pub(super) fn client(&self) -> Option<ClientTls> {
        ClientTls::of_flags(
            self.trim_tls_ca.as_ref(),
            self.trim_tls_cert.as_ref(),
            self.trim_tls_key.as_ref(),
            self.trim_tls_server_name.as_deref(),
        )
    }
}
