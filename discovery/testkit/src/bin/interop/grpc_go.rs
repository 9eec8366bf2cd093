//! grpc-go's clients against our servers: the cases of its interop client, and its clients of health and
//! reflection against the services.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use testkit::{Process, add_service, trim_service};

use crate::{
    peer::Peer,
    report::{Outcome, Report},
};

/// Time for one case. The program has a shorter one of its own.
const LIMIT: Duration = Duration::from_secs(90);

/// Cases of grpc-go's client, and how often each is repeated.
pub(crate) const CASES: [(&str, u32); 16] = [
    ("empty_unary", 1),
    ("large_unary", 10),
    ("large_unary_gzip", 10),
    ("client_streaming", 10),
    ("server_streaming", 10),
    ("ping_pong", 10),
    ("ping_pong_gzip", 10),
    ("empty_stream", 10),
    ("custom_metadata", 10),
    ("status_code_and_message", 10),
    ("special_status_message", 10),
    ("unimplemented_method", 10),
    ("unimplemented_service", 10),
    ("cancel_after_begin", 10),
    ("cancel_after_first_response", 10),
    ("timeout_on_sleeping_server", 200),
];

/// Cases of health and reflection.
pub(crate) const STANDARD: [&str; 5] = [
    "health_check",
    "health_watch",
    "health_watch_unknown",
    "reflection_list",
    "reflection_file",
];

/// Runs the cases of grpc-go's client against our test services.
pub(crate) async fn cases(
    program: &Path,
    peers: &[Peer],
    chosen: &dyn Fn(&str) -> bool,
) -> Result<Report> {
    let names = CASES.iter().map(|(name, _)| *name);
    let mut report = Report::new("grpc-go's client", names.filter(|name| chosen(name)));
    for peer in peers {
        let servers = peer.start(1).await?;
        report.column(peer.name);
        for (name, times) in CASES {
            if chosen(name) {
                let address = servers.addresses[0].to_string();
                let arguments = ["call", &address, name, &times.to_string()];
                report.note(name, outcome(program, &arguments).await?);
            }
        }
    }
    Ok(report)
}

/// Runs the cases of health and reflection against both services.
pub(crate) async fn standard(program: &Path, chosen: &dyn Fn(&str) -> bool) -> Result<Report> {
    let names = STANDARD.into_iter().filter(|name| chosen(name));
    let mut report = Report::new("grpc-go's health and reflection", names);
    // Nothing listens there: the services serve all the same.
    let unreachable = ["--consul", "127.0.0.1:1"];
    let trim = trim_service(&unreachable).await?;
    let add = add_service(&["--static", &trim.grpc.to_string()]).await?;
    for (column, service, address) in [
        ("trim-service", "pb.Trim", trim.grpc),
        ("add-service", "pb.Add", add.grpc),
    ] {
        report.column(column);
        for name in STANDARD {
            if chosen(name) {
                report.note(name, standard_case(program, name, address, service).await?);
            }
        }
    }
    Ok(report)
}

async fn standard_case(
    program: &Path,
    name: &str,
    address: SocketAddr,
    service: &str,
) -> Result<Outcome> {
    let address = address.to_string();
    outcome(program, &["standard", &address, name, service]).await
}

/// Runs the program; it passes if it exits with 0.
async fn outcome(program: &Path, arguments: &[&str]) -> Result<Outcome> {
    let mut process = Process::spawn(program, arguments)?;
    let status = match process.exit(LIMIT).await {
        Ok(status) => status,
        Err(error) => return Ok(Outcome::Failed(format!("{error:#}"))),
    };
    if status.success() {
        return Ok(Outcome::Passed);
    }
    let output = process.stderr();
    let reason = output.lines().last().unwrap_or("no output");
    Ok(Outcome::Failed(format!("{status}: {reason}")))
}
