//! The protocol of a row.

use clap::ValueEnum;

/// The protocol between the add service and the instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    #[default]
    Grpc,
    /// Plain HTTP/1.1, between servers on axum
    Http,
}
