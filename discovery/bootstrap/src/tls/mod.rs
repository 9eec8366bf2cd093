//! TLS of the servers and of the calls that a service makes, from PEM files that are read again when they
//! change.
//!
//! `server` and `client` are the settings, `pem` reads the files, `rotation` follows them, `validity` reads
//! the end of a certificate's validity. `handshake` is the server's part of a connection.

mod client;
mod handshake;
mod pem;
mod rotation;
mod server;
mod validity;

pub use self::{
    client::ClientTls,
    server::{ClientAuth, ServerTls},
};
pub(crate) use self::{
    handshake::{HANDSHAKE, accept},
    server::Acceptor,
};
