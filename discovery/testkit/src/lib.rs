//! Servers, processes and helpers for the workspace's tests, and two programs: the fault drill and
//! the simulation.

mod consul;
pub mod fake;
pub mod faulty;
mod http_client;
mod process;
mod reflection;
mod response;
mod services;
pub mod simulation;
mod table;
mod wait;

pub use self::{
    consul::{Consul, MASTER_TOKEN, Options},
    http_client::{http_client, http_client_builder},
    process::{Process, Signal},
    reflection::reflected_services,
    response::{grpc_message, grpc_status},
    services::{AddService, TrimService, add_service, service_binary, trim_service},
    table::Table,
    wait::{Look, eventually},
};
