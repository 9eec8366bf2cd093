//! `discovery doctor`: goes through the steps of a channel, and names for each that does not work the cause
//! and the remedy.
//!
//! | module | contents |
//! |---|---|
//! | `finding` | a finding, and the outcome of all |
//! | `report` | their text and JSON |
//! | `registry` | the registry: reached, credentials, clock |
//! | `service` | the service: known, near names, filters |
//! | `instance` | one instance: health, connection, protocol, gRPC, latency |
//! | `channel` | a real channel, at the end |
//! | `sniff` | what speaks at an address: HTTP/1, HTTP/2, TLS |
//! | `certificate` | why a certificate is refused, and when it ends |
//! | `clock` | the difference between clocks |

mod certificate;
mod channel;
mod clock;
mod finding;
mod instance;
mod registry;
mod report;
mod service;
mod sniff;

use std::{sync::Arc, time::Duration};

use bootstrap::values::{name, positive_duration};
use clap::Args;
use discovery::{Instance, connection::Http2};
use futures_util::{StreamExt as _, stream};

use self::{
    clock::Skew,
    finding::{Finding, Outcome},
    report::Report,
};
use crate::{
    output,
    target::{ConnectionArgs, Filters, Target},
};

/// Number of instances that are examined at the same time.
const AT_A_TIME: usize = 16;

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    target: Target,
    /// gRPC service that the instances must offer, for example pb.Trim [default: any]
    #[arg(long, value_name = "NAME", env = "DISCOVERY_GRPC_SERVICE", value_parser = name)]
    grpc_service: Option<String>,
    /// Time limit of each step
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_TIMEOUT", default_value = "3s", value_parser = positive_duration)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The facts that the steps share.
struct Patient<'a> {
    args: &'a DoctorArgs,
    http2: Http2,
    /// The difference between the registry's clock and this machine's, if it is known.
    skew: Option<Skew>,
}

/// Prints the findings. Returns 0 if all is well, 1 with warnings, 2 if calls do not work.
///
/// # Errors
///
/// When a file of the TLS settings cannot be used.
pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<u8> {
    let report = examine(&args).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::print(&report.text())?;
    }
    Ok(report.outcome.exit_code())
}

async fn examine(args: &DoctorArgs) -> anyhow::Result<Report> {
    let target = &args.target;
    let mut patient = Patient {
        args,
        http2: args.connection.factory()?,
        skew: None,
    };
    let registry = match target.open() {
        Ok(registry) => registry,
        Err(error) => {
            let findings = vec![registry::not_opened(&error)];
            return Ok(Report::new(&target.service, None, findings, 0));
        }
    };
    let name = Some(registry.name());
    let skew = clock::of_registry(registry.name(), args.timeout).await;
    patient.skew = skew;
    let (set, mut findings) = registry::examine(&patient, &*registry).await;
    let Some(set) = set else {
        return Ok(Report::new(&target.service, name, findings, 0));
    };
    findings.extend(skew.and_then(Skew::finding));
    findings.extend(service::examine(&patient, &*registry, &set).await);
    let examined: Vec<_> = stream::iter(set.instances.iter())
        .map(|instance| instance::examine(&patient, instance))
        .buffered(AT_A_TIME)
        .collect()
        .await;
    let usable: Vec<Arc<Instance>> = examined
        .iter()
        .filter_map(|one| one.usable.clone())
        .collect();
    let foreign = instance::differing(&examined);
    findings.extend(examined.into_iter().flat_map(|one| one.findings));
    findings.extend(foreign);
    if !set.instances.is_empty() {
        findings.push(channel::examine(&patient, &registry, &set, usable.len()).await);
    }
    Ok(Report::new(&target.service, name, findings, usable.len()))
}
