//! Real servers and processes for the workspace's tests.

mod consul;
pub mod fake;

pub use self::consul::{Consul, MASTER_TOKEN, Options};
