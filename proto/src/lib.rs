//! The wire contract (package `pb`): what a client of either service sends and what it gets back.
//!
//! The sources are `pb/trim.proto` and `pb/add.proto`. [`trim_client::TrimClient`] and
//! [`add_client::AddClient`] take any channel, `discovery::Channel` among them.

/// The encoded `FileDescriptorSet` of both files, for the gRPC reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod codec;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
    include!(concat!(env!("OUT_DIR"), "/servers/pb.rs"));
}

pub use generated::*;
