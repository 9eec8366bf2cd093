//! Real servers and processes for the workspace's tests.

mod consul;
pub mod fake;
pub mod faulty;
mod process;
mod reflection;
mod services;
mod table;
mod wait;

pub use self::{
    consul::{Consul, MASTER_TOKEN, Options, http_client, http_client_builder},
    process::{Process, Signal},
    reflection::reflected_services,
    services::{AddService, TrimService, add_service, service_binary, trim_service},
    table::Table,
    wait::eventually,
};
