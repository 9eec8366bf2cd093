//! The cost of large sets: an add service with thousands of instances, some or all of them unreachable,
//! under a steady load; then a table of its CPU time, memory and file descriptors.
//!
//! The live instances are small gRPC servers in this process, the dead ones are addresses on which nothing
//! listens. The add service reads all of them from a file of the embedded registry.
//!
//! With `--viewers N`, its page has that many viewers in every second slice of the load. The ratio of the CPU
//! time with them to that without them is the cost of looking.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::{time::clock_getcpuclockid, unistd::Pid};
use proto::trim_server::TrimServer;
use serde_json::json;
use tempfile::TempDir;
use testkit::{Process, Table, Trimmer, http_client_builder, service_binary};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Nothing of this project listens there.
const DEAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Time for the set to settle: every instance was tried, and those that refuse are tried ever more rarely.
const SETTLE: Duration = Duration::from_secs(20);
/// Length of a slice of the load, with or without viewers. The page has two frames a second.
const SLICE: Duration = Duration::from_secs(2);

/// Measures the add service with large sets of instances.
#[derive(Debug, Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// A set, as LIVE+DEAD or LIVE+DEAD/DESCRIPTORS (the limit of open files); repeatable
    #[arg(long, value_name = "SET", required = true)]
    set: Vec<Set>,
    /// Length of each load, in seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Calls per second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Viewers of the page in every second slice of two seconds of the load
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=32))]
    viewers: u32,
}

/// The instances of one row.
#[derive(Clone, Copy, Debug)]
struct Set {
    live: u16,
    dead: u16,
    descriptors: Option<u64>,
}

impl std::str::FromStr for Set {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (instances, descriptors) = match text.split_once('/') {
            Some((instances, limit)) => (instances, Some(limit.parse()?)),
            None => (text, None),
        };
        let (live, dead) = instances
            .split_once('+')
            .context("expected LIVE+DEAD or LIVE+DEAD/DESCRIPTORS")?;
        Ok(Self {
            live: live.parse()?,
            dead: dead.parse()?,
            descriptors,
        })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut table = Table::new([
        "live",
        "dead",
        "descriptors",
        "calls",
        "failed",
        "p99 ms",
        "CPU at rest",
        "CPU under load",
        "viewed / not",
        "memory",
        "open files",
    ]);
    for set in &args.set {
        table.row(row(*set, &args).await?);
    }
    println!("{table}");
    Ok(())
}

async fn row(set: Set, args: &Args) -> Result<Vec<String>> {
    let mut servers = JoinSet::new();
    let mut addresses = Vec::new();
    for _ in 0..set.live {
        addresses.push(serve(&mut servers).await?);
    }
    addresses.extend((1..=set.dead).map(|port| SocketAddr::new(IpAddr::V4(DEAD), port)));
    let folder = TempDir::new()?;
    write(folder.path(), &addresses)?;
    let add = start(folder.path(), set.descriptors).await?;
    let http = http(&add).await?;
    sleep(SETTLE).await;
    let (before, begun) = (cpu(&add)?, Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let at_rest = share(cpu(&add)?.saturating_sub(before), begun);
    let (before, begun) = (cpu(&add)?, Instant::now());
    let (calls, viewed) = tokio::try_join!(load(&http, args), looked_at(&add, &http, args))?;
    let under_load = share(cpu(&add)?.saturating_sub(before), begun);
    let failed = calls.iter().filter(|call| call.is_none()).count();
    let mut latencies: Vec<_> = calls.iter().flatten().copied().collect();
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100);
    Ok(vec![
        set.live.to_string(),
        set.dead.to_string(),
        set.descriptors
            .map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
        calls.len().to_string(),
        failed.to_string(),
        p99.map_or_else(
            || "-".to_owned(),
            |time| format!("{:.1}", time.as_secs_f64() * 1e3),
        ),
        at_rest,
        under_load,
        viewed.map_or_else(
            || "-".to_owned(),
            |[median, low, high]| format!("{median:.3} ({low:.2}..{high:.2})"),
        ),
        format!("{} MB", memory(&add)? / 1_000),
        fs::read_dir(format!("/proc/{}/fd", add.id()))?
            .count()
            .to_string(),
    ])
}

async fn serve(servers: &mut JoinSet<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    servers.spawn(async move {
        let server = Server::builder().add_service(TrimServer::new(Trimmer));
        // It ends when the set is dropped.
        let _ended = server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await;
    });
    Ok(address)
}

/// Writes the list of the embedded registry.
fn write(folder: &Path, addresses: &[SocketAddr]) -> Result<()> {
    let service = folder.join("trim_service");
    fs::create_dir(&service)?;
    let targets: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    fs::write(
        service.join("fleet.static.json"),
        json!([{ "targets": targets }]).to_string(),
    )?;
    Ok(())
}

/// Starts the add service with this limit of open files, or with that of this process.
async fn start(folder: &Path, descriptors: Option<u64>) -> Result<Process> {
    let binary = service_binary("add-service").await?;
    let limit = descriptors.map_or_else(String::new, |limit| format!("ulimit -n {limit} && "));
    let script = format!("{limit}exec \"$0\" \"$@\"");
    let url = format!("embedded://{}", folder.display());
    let binary = binary
        .to_str()
        .context("the target folder's name is not UTF-8")?;
    let flags = [
        "--registry",
        &url,
        "--log-level",
        "error",
        "--listen",
        "127.0.0.1",
        "--http-port",
        "0",
        "--grpc-port",
        "0",
    ];
    Process::spawn(
        Path::new("sh"),
        ["-c", &script, binary].iter().chain(&flags),
    )
}

/// The address of its HTTP port.
async fn http(add: &Process) -> Result<String> {
    let line = add
        .stdout_line("listening", Duration::from_secs(30))
        .await?;
    let field = line
        .split(' ')
        .find_map(|field| field.strip_prefix("http="));
    Ok(field
        .with_context(|| format!("no http= in {line:?}"))?
        .to_owned())
}

/// Makes calls at a fixed rate. The latency of each, from its due time; `None` if it failed.
async fn load(http: &str, args: &Args) -> Result<Vec<Option<Duration>>> {
    let client = http_client_builder()?.pool_max_idle_per_host(256).build()?;
    let url = format!("http://{http}/concat");
    let (gap, begun) = (Duration::from_secs(1) / args.rate, Instant::now());
    let mut calls = JoinSet::new();
    for number in 0..u32::try_from(args.seconds)? * args.rate {
        let due = begun + gap * number;
        sleep_until(due).await;
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .body(r#"{"a":"1 0","b":"2 0"}"#)
            .send();
        calls.spawn(async move {
            let answer = request.await.ok()?;
            answer.status().is_success().then(|| due.elapsed())
        });
    }
    Ok(calls.join_all().await)
}

/// The ratio of the CPU time of the service with viewers to that without, by slices in turn: the median, and
/// the quartiles, which show how quiet the machine is.
async fn looked_at(add: &Process, http: &str, args: &Args) -> Result<Option<[f64; 3]>> {
    if args.viewers == 0 {
        return Ok(None);
    }
    let client = http_client_builder()?.build()?;
    let url = format!("http://{http}/debug/live");
    let mut shares = [Vec::new(), Vec::new()];
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut has_viewers = false;
    while Instant::now() + SLICE <= end {
        let mut viewers = JoinSet::new();
        for _ in 0..if has_viewers { args.viewers } else { 0 } {
            let request = client.get(&url).send();
            viewers.spawn(async move {
                let mut stream = request.await?.error_for_status()?;
                let mut bytes = 0;
                while let Some(part) = stream.chunk().await? {
                    bytes += part.len();
                }
                anyhow::bail!("the stream ended after {bytes} bytes")
            });
        }
        let (before, begun) = (cpu(add)?, Instant::now());
        tokio::select! {
            Some(ended) = viewers.join_next() => return ended?,
            () = sleep(SLICE) => {}
        }
        let used = cpu(add)?.saturating_sub(before).as_secs_f64();
        shares[usize::from(has_viewers)].push(used / begun.elapsed().as_secs_f64());
        has_viewers = !has_viewers;
    }
    let mut ratios: Vec<_> = shares[1]
        .iter()
        .zip(&shares[0])
        .map(|(viewed, not)| viewed / not)
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let quarter = |n: usize| ratios.get(ratios.len() * n / 4).copied();
    let quarters = (quarter(2), quarter(1), quarter(3));
    let (Some(median), Some(low), Some(high)) = quarters else {
        anyhow::bail!("--seconds is too short for a slice with viewers and one without");
    };
    Ok(Some([median, low, high]))
}

/// The CPU time of the service so far.
fn cpu(add: &Process) -> Result<Duration> {
    Ok(clock_getcpuclockid(Pid::from_raw(add.id()))?.now()?.into())
}

fn share(cpu: Duration, begun: Instant) -> String {
    format!(
        "{:.1} %",
        100.0 * cpu.as_secs_f64() / begun.elapsed().as_secs_f64()
    )
}

/// The resident memory of the service, in kilobytes.
fn memory(add: &Process) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", add.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}
