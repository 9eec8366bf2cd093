//! `discovery doctor`: goes through the steps of a channel, and names for each that does not work the cause
//! and the remedy.
//!
//! | module | contents |
//! |---|---|
//! | `args`, `context` | the command line, and the facts that the steps share |
//! | `finding` | a finding, and the outcome of all |
//! | `report` | their text and JSON |
//! | `registry` | the registry: reached, credentials, clock |
//! | `service` | the service: known, near names, filters |
//! | `instance` | one instance: health, connection, protocol, gRPC, latency |
//! | `channel` | a real channel, at the end |
//! | `wire` | the protocol, default port and credentials of each kind of registry |
//! | `sniff` | the protocol of the server at an address: HTTP/1, HTTP/2, TLS |
//! | `certificate` | the reason for a refused certificate, and the end of a certificate's validity |
//! | `clock` | the difference between clocks |

mod args;
mod certificate;
mod channel;
mod clock;
mod context;
mod finding;
mod instance;
mod registry;
mod report;
mod service;
mod sniff;
mod wire;

use std::sync::Arc;

use discovery::Instance;
use futures_util::{StreamExt as _, stream};

pub(crate) use self::args::DoctorArgs;
use self::{
    clock::Skew,
    context::StepContext,
    finding::{Finding, Outcome},
    report::Report,
};
use crate::output;

/// Number of instances that are examined at the same time.
const AT_A_TIME: usize = 16;

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
    let http2 = args.connection.factory()?;
    let registry = match target.open() {
        Ok(registry) => registry,
        Err(error) => {
            let findings = vec![registry::not_opened(&error)];
            return Ok(Report::new(&target.service, None, findings, 0));
        }
    };
    let name = Some(registry.name());
    let skew = clock::of_registry(registry.name(), args.timeout).await;
    let context = StepContext { args, http2, skew };
    let (set, mut findings) = registry::examine(&context, &*registry).await;
    let Some(set) = set else {
        return Ok(Report::new(&target.service, name, findings, 0));
    };
    findings.extend(skew.and_then(Skew::finding));
    findings.extend(service::examine(&context, &*registry, &set).await);
    let examined: Vec<_> = stream::iter(set.instances.iter())
        .map(|instance| instance::examine(&context, instance))
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
        findings.push(channel::examine(&context, &registry, &set, usable.len()).await);
    }
    Ok(Report::new(&target.service, name, findings, usable.len()))
}
