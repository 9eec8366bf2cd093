//! ZooKeeper's wire protocol: jute records in frames. No I/O.
//!
//! A frame is its length as four bytes, and a record. The client sends one record to open a session
//! ([`handshake`]) and then [`Request`]s with rising numbers (`xid`). The server answers them in order,
//! and sends [`Event`]s of watches in between.
//!
//! `zookeeper.jute` in ZooKeeper's source defines the records.

mod code;
mod frame;
pub(super) mod handshake;
mod reader;
mod reply;
mod request;
mod writer;

pub use self::request::Access;
pub(super) use self::{
    code::Code,
    frame::take_frame,
    reader::Malformed,
    reply::{Event, Received, Stat, children, data_and_stat, received, stat},
    request::{Lifetime, Request, ping},
};
