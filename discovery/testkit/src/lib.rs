//! Real servers and processes for the workspace's tests.

mod consul;
pub mod fake;
mod table;

pub use self::{
    consul::{Consul, MASTER_TOKEN, Options},
    table::Table,
};
