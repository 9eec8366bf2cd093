//! Servers, processes and helpers for the workspace's tests, and two programs: the fault drill and
//! the simulation.

mod aged;
mod browser;
mod ca;
pub mod conformance;
mod consul;
pub mod fake;
pub mod faulty;
mod http;
mod ports;
mod process;
mod reflection;
pub mod registries;
mod response;
mod service_manager;
mod services;
mod signal;
pub mod simulation;
mod table;
mod trim;
mod wait;

pub use self::{
    aged::AgedServer,
    browser::Browser,
    ca::TestCa,
    consul::{Consul, MASTER_TOKEN, Options},
    http::{http_client, http_client_builder},
    ports::free_ports,
    process::{Process, Signal},
    reflection::reflected_services,
    response::{grpc_message, grpc_status},
    service_manager::ServiceManager,
    services::{
        AddService, TrimService, add_service, cargo, http_add_service, http_trim_service,
        service_binary, trim_service,
    },
    table::Table,
    trim::Trimmer,
    wait::{Look, eventually},
};
