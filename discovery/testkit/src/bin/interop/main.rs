//! gRPC's interop tests: `discovery::Channel` against the servers of grpc-go, grpc-java and tonic, and
//! grpc-go's clients against our servers.
//!
//! Each peer is a process that serves the test service on three ports (`peer.rs`). `target.rs` is a channel
//! to one, two or three of them, `cases.rs` lists the cases that run through it. `grpc_go.rs` runs
//! grpc-go's clients, `server.rs` is our own test service. `scripts/interop.sh` makes the peers and starts
//! this program.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod cases;
mod grpc_go;
mod messages;
mod peer;
mod report;
mod server;
mod target;
mod wire;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    cases::{CASES, Case, unsupported},
    peer::{Peer, Running},
    report::{Outcome, Report},
    server::Stack,
    target::Target,
};

/// The numbers of servers that a channel has.
const SERVERS: [usize; 3] = [1, 2, 3];
/// Time for one repetition of a case, however busy the machine is.
const CASE: Duration = Duration::from_secs(120);

/// Runs gRPC's interop tests and prints a table. Exits with 1 if a case failed.
#[derive(Debug, Parser)]
#[command(name = "interop.sh", max_term_width = 100)]
struct Args {
    /// Only this case; repeatable
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// The program built from `scripts/interop/go`
    #[arg(long, value_name = "FILE", hide = true)]
    go: Option<PathBuf>,
    /// The class path of `scripts/interop/java`
    #[arg(long, value_name = "PATHS", hide = true)]
    java: Option<OsString>,
    /// A peer that is not there, and why
    #[arg(long, value_name = "PEER=REASON", hide = true)]
    skip: Vec<String>,
    #[command(subcommand)]
    serve: Option<Serve>,
}

#[derive(Debug, Subcommand)]
enum Serve {
    /// Serves the test service on free ports
    #[command(hide = true)]
    Serve { stack: Stack, servers: usize },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Serve::Serve { stack, servers }) = args.serve {
        server::serve(stack, servers).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list {
        for name in all_names() {
            println!("{name}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    for only in &args.only {
        ensure!(
            all_names().any(|name| name == only),
            "no case {only:?}; --list names them"
        );
    }
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    // In every case the peers end with the future that runs them.
    tokio::select! {
        result = interop(&args) => result,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

/// The names of all cases, each once.
fn all_names() -> impl Iterator<Item = &'static str> {
    let ours = CASES.iter().map(|case| case.name);
    let theirs = grpc_go::CASES.iter().map(|(name, _)| *name);
    let theirs = theirs.filter(|name| CASES.iter().all(|case| case.name != *name));
    ours.chain(theirs).chain(grpc_go::STANDARD)
}

async fn interop(args: &Args) -> Result<ExitCode> {
    let chosen = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let ours = [Peer::tonic()?, Peer::bootstrap()?];
    let go = args.go.as_deref();
    let theirs = [
        ("grpc-go", go.map(Peer::grpc_go)),
        ("grpc-java", args.java.as_deref().map(Peer::grpc_java)),
    ];

    let names = CASES.iter().map(|case| case.name);
    let mut reports = vec![Report::new(
        "discovery's channel",
        names.filter(|n| chosen(n)),
    )];
    for (name, peer) in theirs {
        match peer {
            Some(peer) => against(&peer, &chosen, &mut reports[0]).await?,
            None => reports[0].skip_column(name, &args.reason(name)?),
        }
    }
    for peer in &ours {
        against(peer, &chosen, &mut reports[0]).await?;
    }
    if let Some(go) = go {
        reports.push(grpc_go::cases(go, &ours, &chosen).await?);
        reports.push(grpc_go::standard(go, &chosen).await?);
    }

    let mut totals = [0; 3];
    for report in reports.iter().filter(|report| !report.is_empty()) {
        println!("{report}");
        for (total, count) in totals.iter_mut().zip(report.totals()) {
            *total += count;
        }
    }
    let [passed, failed, skipped] = totals;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Args {
    /// The reason why a peer is not there.
    fn reason(&self, peer: &str) -> Result<String> {
        let mut skipped = self.skip.iter().filter_map(|skip| skip.split_once('='));
        match skipped.find(|(name, _)| *name == peer) {
            Some((_, reason)) => Ok(reason.to_owned()),
            None => bail!("{peer} is neither given nor skipped; start scripts/interop.sh"),
        }
    }
}

/// Runs the cases through channels to one, two and three servers of a peer.
async fn against(peer: &Peer, chosen: &dyn Fn(&str) -> bool, report: &mut Report) -> Result<()> {
    let cases = || CASES.iter().filter(|case| chosen(case.name));
    if cases().next().is_none() {
        return Ok(());
    }
    eprintln!("{}", peer.name);
    let most = SERVERS.into_iter().max().unwrap_or(1);
    let servers = peer.start(most).await?;
    for count in SERVERS {
        report.column(format!("{} x{count}", peer.name));
        let mut target = Target::connect(&servers, count).await?;
        for case in cases() {
            let outcome = match unsupported(peer.name, case.name) {
                Some(reason) => Outcome::Skipped(reason.to_owned()),
                None => match run(case, &target).await {
                    Ok(()) => Outcome::Passed,
                    Err(error) => {
                        eprintln!("FAILED: {} ({} x{count}): {error:#}", case.name, peer.name);
                        // The next case begins with a channel that is in order.
                        target = fresh(&servers, count).await?;
                        Outcome::Failed(format!("{error:#}"))
                    }
                },
            };
            report.note(case.name, outcome);
        }
    }
    Ok(())
}

async fn fresh(servers: &Running, count: usize) -> Result<Target<'_>> {
    let target = Target::connect(servers, count).await;
    target.context("after a failed case")
}

/// Runs a case once from each server on.
async fn run(case: &Case, target: &Target<'_>) -> Result<()> {
    for repetition in 0..target.count() {
        let once = async {
            target.move_on(repetition).await?;
            (case.run)(target).await?;
            target.check().await
        };
        let ended = timeout(CASE, once).await;
        ended.with_context(|| format!("no end within {CASE:?}"))??;
    }
    Ok(())
}
