//! The command line of `discovery doctor`.

use std::time::Duration;

use bootstrap::values::{name, positive_duration};
use clap::Args;

use crate::target::{ConnectionArgs, Filters, Target};

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(super) target: Target,
    /// gRPC service that the instances must offer, for example pb.Trim [default: any]
    #[arg(long, value_name = "NAME", env = "DISCOVERY_GRPC_SERVICE", value_parser = name)]
    pub(super) grpc_service: Option<String>,
    /// Time limit of each step
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_TIMEOUT", default_value = "3s", value_parser = positive_duration)]
    pub(super) timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) filters: Filters,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}
