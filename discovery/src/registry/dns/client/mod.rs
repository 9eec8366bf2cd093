//! The way to DNS servers: which to ask, and a conversation with one.

mod conversation;
mod failure;
mod servers;

pub(super) use self::{conversation::Conversation, failure::Failure, servers::Servers};
