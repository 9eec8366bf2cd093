//! A client of ZooKeeper: sessions, and requests over one connection at a time.
//!
//! [`Ensemble`] opens a connection to one of the servers, [`Connection`] sends requests over it and
//! receives events. A connection that breaks is not repaired: its user opens another one with the
//! same [`Session`](super::protocol::handshake::Session), and reads everything again.

mod connection;
mod driver;
mod ensemble;
mod error;
mod handshake;
mod stream;

pub(super) use self::{
    connection::Connection,
    ensemble::Ensemble,
    error::{Failure, Lost},
};

#[cfg(test)]
mod tests;
