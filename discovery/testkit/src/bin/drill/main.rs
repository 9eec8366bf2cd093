//! The fault drill: a real registry, five real trim services and a real add service under a steady
//! load, one fault at a time; then a table of the results on the side of the callers.
//!
//! Each row has its own environment (`env.rs`), a load that does not wait for answers (`load.rs`), and a
//! fault (`faults.rs`, `peers.rs`). The rows are in `rows.rs`, their requirements in `judge.rs`.
//! With `--gokit`, `mix.rs` runs the services beside a pair written with Go kit instead.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod client;
mod clock;
mod env;
mod faults;
mod fronts;
mod gokit;
mod judge;
mod load;
mod mix;
mod network;
mod observe;
mod peers;
mod protocol;
mod registry;
mod rows;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use testkit::Table;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    client::Client,
    judge::Outcome,
    protocol::Protocol,
    rows::{ROWS, Row},
};

/// Runs the fault drill and prints a table. Exits with 1 if a row failed.
#[derive(Debug, Parser)]
#[command(name = "drill.sh", max_term_width = 100)]
struct Args {
    /// Only this row, by its number or name; repeatable
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Registry of the rows; repeatable. Others than Consul have the rows about discovery only
    #[arg(long, value_name = "NAME", default_value = "consul")]
    registry: Vec<registry::Kind>,
    /// Client of the add service; repeatable. The results of others than the project's own are shown and
    /// not judged. They need Consul, and the services in Go that `GOKIT_BIN` names
    #[arg(long, value_name = "NAME", default_value = "discovery")]
    client: Vec<Client>,
    /// Protocol between the add service and the instances. Plain HTTP has rows 1 to 5 and 9, over Consul
    #[arg(long, value_name = "NAME", default_value = "grpc")]
    protocol: Protocol,
    /// Number of rows that run at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// Number of further runs of a row that failed, each alone: the machine may have been busy with
    /// another one
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=5))]
    rerun: u8,
    /// Length of each row's load, in seconds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..=600))]
    seconds: u64,
    /// Calls per second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=5_000))]
    rate: u32,
    /// Print one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
    /// Port of the add service of a row, for a Prometheus that scrapes it; repeatable
    #[arg(long, value_name = "ROW=PORT", value_parser = row_port)]
    http_port: Vec<(String, u16)>,
    /// Instead of the rows, run the services beside the Go kit pair, whose binary this is
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["only", "json", "list", "flags"])]
    gokit: Option<PathBuf>,
    /// List the rows with their faults
    #[arg(long)]
    list: bool,
    /// Flags for the add service, after --
    #[arg(last = true, value_name = "FLAG")]
    flags: Vec<String>,
}

impl Args {
    fn http_port(&self, row: &Row) -> Option<u16> {
        let mut given = self.http_port.iter();
        let (_row, port) = given.find(|(number, _)| number == row.number)?;
        Some(*port)
    }
}

fn row_port(text: &str) -> Result<(String, u16), String> {
    let pair = text.split_once('=').and_then(|(row, port)| {
        let known = ROWS.iter().any(|known| known.number == row);
        Some((row.to_owned(), port.parse().ok()?)).filter(|_| known)
    });
    pair.ok_or_else(|| "expected a row's number, =, and a port".to_owned())
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        for row in ROWS {
            println!("{:4} {:18} {}", row.number, row.name, row.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&Row> = ROWS
        .iter()
        .filter(|row| {
            args.only.is_empty()
                || args.only.iter().any(|only| {
                    only == row.name
                        || only == row.number
                        || row.number.trim_end_matches(char::is_alphabetic) == only
                })
        })
        .collect();
    ensure!(!chosen.is_empty(), "no such row; --list names them");
    ensure!(
        args.protocol == Protocol::Grpc || args.registry == [registry::Kind::Consul],
        "plain HTTP has rows over Consul only"
    );
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    // In every case the processes and the network of the running row end with its future.
    let drill = async {
        let length = Duration::from_secs(args.seconds);
        let held = match &args.gokit {
            Some(binary) => mix::run(binary, length, args.rate).await?,
            None => drill(&args, &chosen).await?,
        };
        Ok(if held {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    };
    tokio::select! {
        result = drill => result,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
    }
}

/// A row over one registry.
#[derive(Clone, Copy)]
struct Run<'a> {
    row: &'a Row,
    client: Client,
    registry: registry::Kind,
}

impl Run<'_> {
    fn registry(&self) -> String {
        name_of(&self.registry)
    }

    fn client(&self) -> String {
        name_of(&self.client)
    }

    /// Its result, or the reason why it cannot run here.
    async fn outcome(&self, args: &Args) -> Result<Result<Outcome, String>> {
        let Row {
            number, name, what, ..
        } = self.row;
        let title = format!(
            "{number:4} {name} of {} over {}",
            self.client(),
            self.registry()
        );
        // A row that cannot run here is not a failure (it needs root), but is reported.
        let cannot_run = self.row.cannot_run(self.registry);
        if let Some(reason) = cannot_run.or_else(|| self.client.unavailable()) {
            eprintln!("{title}: SKIPPED: {reason}");
            return Ok(Err(reason));
        }
        eprintln!("{title}: {what}");
        let length = Duration::from_secs(args.seconds);
        let run = self.row.run(rows::Settings {
            length,
            rate: args.rate,
            registry: self.registry,
            client: self.client,
            protocol: args.protocol,
            flags: &args.flags,
            http_port: args.http_port(self.row),
        });
        let mut outcome = run.await.with_context(|| title.clone())?;
        if self.client != Client::Discovery {
            outcome.complaints.clear();
        }
        for complaint in &outcome.complaints {
            eprintln!("{title}: FAILED: {complaint}");
        }
        if args.json {
            println!(
                "{}",
                outcome.json(self.row, &self.client(), &self.registry())
            );
        }
        Ok(Ok(outcome))
    }
}

/// Runs the rows over each registry. Returns true if every row met its requirements.
async fn drill(args: &Args, chosen: &[&Row]) -> Result<bool> {
    let mut table = Table::new([
        "row",
        "client",
        "registry",
        "calls",
        "failed",
        "p50 ms",
        "p99 ms",
        "worst ms",
        "faulty calls",
        "noticed ms",
        "recovered ms",
        "affected ms",
        "",
    ]);
    let only_consul = args.registry == [registry::Kind::Consul];
    ensure!(
        only_consul || args.client == [Client::Discovery],
        "the clients in Go find instances in Consul only: name no other --registry"
    );
    ensure!(
        args.protocol == Protocol::Grpc || args.client == [Client::Discovery],
        "the clients in Go speak gRPC only: name no other --protocol"
    );
    let mut runs = Vec::new();
    for registry in args.registry.iter().copied() {
        let all = registry == registry::Kind::Consul;
        let rows = chosen
            .iter()
            .filter(|row| all || row.is_for_every_registry())
            .filter(|row| args.protocol == Protocol::Grpc || row.is_for_http());
        for row in rows {
            runs.extend(args.client.iter().map(|client| Run {
                row,
                client: *client,
                registry,
            }));
        }
    }
    ensure!(
        !runs.is_empty(),
        "no such row over this registry or protocol"
    );
    let mut outcomes = stream::iter(&runs)
        .map(async |run| Ok::<_, anyhow::Error>((run, run.outcome(args).await?)))
        .buffered(usize::from(args.jobs));
    let mut ended = Vec::new();
    while let Some((run, outcome)) = outcomes.try_next().await? {
        ended.push((run, outcome, 1));
    }
    for (run, outcome, runs) in &mut ended {
        while *runs <= args.rerun && failed(outcome) {
            *outcome = run.outcome(args).await?;
            *runs += 1;
        }
    }
    let held = !ended.iter().any(|(_, outcome, _)| failed(outcome));
    for (run, outcome, runs) in ended {
        let Row { number, name, .. } = run.row;
        let title = [format!("{number} {name}"), run.client(), run.registry()];
        match outcome {
            Err(_reason) => {
                let cells = std::iter::repeat_n("-", 9).chain(["SKIPPED"]);
                table.row(title.into_iter().chain(cells.map(str::to_owned)));
            }
            Ok(outcome) => table.row(title.into_iter().chain(cells(run, &outcome, runs))),
        }
    }
    if !args.json {
        println!("{table}");
    }
    Ok(held)
}

/// True if the row ran and did not meet its requirements.
fn failed(outcome: &Result<Outcome, String>) -> bool {
    outcome.as_ref().is_ok_and(|it| !it.complaints.is_empty())
}

fn name_of(value: &impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn cells(run: &Run<'_>, outcome: &Outcome, runs: u8) -> Vec<String> {
    let millis = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let maybe =
        |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |t| t.as_millis().to_string());
    vec![
        outcome.calls.to_string(),
        outcome.failed.to_string(),
        millis(outcome.p50),
        millis(outcome.p99),
        millis(outcome.worst),
        outcome
            .faulty_calls
            .map_or_else(|| "-".to_owned(), |calls| calls.to_string()),
        maybe(outcome.noticed),
        maybe(outcome.recovered),
        maybe(outcome.affected),
        match (outcome.complaints.is_empty(), runs) {
            _ if run.client != Client::Discovery => "reported".to_owned(),
            (true, 1) => "held".to_owned(),
            (true, runs) => format!("held in run {runs}"),
            (false, _) => "FAILED".to_owned(),
        },
    ]
}
