//! What large sets of instances cost a client: CPU at rest, memory, file descriptors, and the time of
//! calls beside them. On real sockets of the loopback interface.
//!
//! ```text
//! cargo run --release -p testkit --bin fleet [ROW...]
//! ```
//!
//! Each row runs in a process of its own, against servers in another one. Rows are selected by a part
//! of their name.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use discovery::{Channel, Instance, registry::StaticRegistry};
use futures_util::stream::select_all;
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{SysconfVar, sysconf},
};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use testkit::Table;
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const SERVE: &str = "--serve";
const MEASURE: &str = "--measure";
/// Time for which the CPU at rest is measured.
const REST: Duration = Duration::from_secs(20);
/// Time before it, in which first attempts end.
const SETTLE: Duration = Duration::from_secs(10);
const CALLS: usize = 2_000;
/// The port of instances that nothing listens for. The kernel gives it to no other program.
const PORT: u16 = 61_009;

/// One row of the table.
struct Row {
    name: &'static str,
    /// Instances that nothing listens for.
    dead: u16,
    live: usize,
    /// Limit of open files.
    limit: Option<u64>,
}

const ROWS: [Row; 5] = [
    Row {
        name: "5 live",
        dead: 0,
        live: 5,
        limit: None,
    },
    Row {
        name: "5000 dead, 5 live",
        dead: 5_000,
        live: 5,
        limit: None,
    },
    Row {
        name: "5000 dead",
        dead: 5_000,
        live: 0,
        limit: None,
    },
    Row {
        name: "5000 live",
        dead: 0,
        live: 5_000,
        limit: None,
    },
    Row {
        name: "1200 live, 1024 descriptors",
        dead: 0,
        live: 1_200,
        limit: Some(1_024),
    },
];

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(SERVE) => {
            let count = args.get(1).context("no count")?.parse()?;
            runtime()?.block_on(serve(count))
        }
        Some(MEASURE) => {
            let name = args.get(1).context("no row")?;
            let row = ROWS.iter().find(|row| row.name == name);
            runtime()?.block_on(measure(row.context("no such row")?))
        }
        _ => {
            let mut table = Table::new([
                "instances",
                "CPU at rest",
                "memory",
                "descriptors",
                "connected",
                "calls failed",
                "p50",
                "p99",
                "one that returns is found by calls after",
            ]);
            for row in &ROWS {
                if args.is_empty() || args.iter().any(|part| row.name.contains(part.as_str())) {
                    table.row(run(row)?);
                }
            }
            println!("\n{table}");
            Ok(())
        }
    }
}

/// Runs a row in a process of its own. Returns its cells.
fn run(row: &Row) -> Result<Vec<String>> {
    let output = Command::new(env::current_exe()?)
        .args([MEASURE, row.name])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(line) = text.lines().last().filter(|_| output.status.success()) else {
        bail!("{}: {}: {text}", row.name, output.status);
    };
    Ok(line.split('\t').map(str::to_owned).collect())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(runtime)
}

struct Echo;

#[tonic::async_trait]
impl Trim for Echo {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let s = request.into_inner().s;
        Ok(Response::new(TrimResponse { s }))
    }
}

/// Serves on so many ports, which are printed.
async fn serve(count: usize) -> Result<()> {
    raise_limit()?;
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    for listener in &listeners {
        println!("{}", listener.local_addr()?.port());
    }
    println!();
    let incoming = select_all(listeners.into_iter().map(TcpListenerStream::new));
    let server = Server::builder().add_service(TrimServer::new(Echo));
    Ok(server.serve_with_incoming(incoming).await?)
}

fn raise_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

/// The process with the servers, until it is dropped.
struct Servers(Child);

impl Servers {
    fn start(count: usize) -> Result<(Self, Vec<u16>)> {
        let mut child = Command::new(env::current_exe()?)
            .args([SERVE, &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let servers = Self(child);
        let mut ports = Vec::new();
        for line in output.lines() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            ports.push(line.parse()?);
        }
        ensure!(ports.len() == count, "{} of {count} servers", ports.len());
        Ok((servers, ports))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Measures a row, and prints its cells.
async fn measure(row: &Row) -> Result<()> {
    match row.limit {
        Some(limit) => setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?,
        None => raise_limit()?,
    }
    let (_servers, ports) = Servers::start(row.live)?;
    // Every address of 127.0.0.0/8 is this machine's. Nothing listens on this port.
    let dead = |n: u16| {
        let [high, low] = n.to_be_bytes();
        Instance::new(format!("127.1.{high}.{low}"), PORT)
    };
    let mut instances = (0..row.dead).map(dead).collect::<Result<Vec<_>, _>>()?;
    for port in ports {
        instances.push(Instance::new("127.0.0.1", port)?);
    }
    let registry = StaticRegistry::new(instances.clone());
    let channel = Channel::from_registry(Arc::new(registry.clone()), "fleet").build()?;
    let mut client = TrimClient::new(channel.clone());
    let usable = row
        .limit
        .map_or(row.live, |limit| row.live.min(limit as usize / 2));
    let begun = Instant::now();
    while channel.status().ready < usable {
        ensure!(
            begun.elapsed() < Duration::from_secs(300),
            "{:?}",
            channel.status()
        );
        sleep(Duration::from_millis(50)).await;
    }
    sleep(SETTLE).await;
    let (before, rested) = (cpu()?, Instant::now());
    sleep(REST).await;
    let share = (cpu()? - before) / rested.elapsed().as_secs_f64();
    let (memory, descriptors) = (resident()?, fs::read_dir("/proc/self/fd")?.count());
    let connected = channel.status().ready;
    let mut cells = vec![
        row.name.to_owned(),
        format!("{:.2} %", share * 100.0),
        format!("{:.1} MiB", memory as f64 / f64::from(1 << 20)),
        descriptors.to_string(),
        connected.to_string(),
    ];
    if row.live > 0 {
        let mut times = Vec::with_capacity(CALLS);
        let mut failed = 0;
        // Round robin connects to each on the way.
        for _ in 0..CALLS {
            let begun = Instant::now();
            let s = "a".to_owned();
            failed += usize::from(client.trim_space(TrimRequest { s }).await.is_err());
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let at = |share: f64| format!("{:.2?}", times[(CALLS as f64 * share) as usize]);
        cells.extend([failed.to_string(), at(0.5), at(0.99), String::new()]);
    } else {
        // One that is in the set, and never answered.
        let listener = TcpListener::bind(("127.1.9.9", PORT)).await;
        let found = match listener {
            Ok(listener) => {
                let server = Server::builder().add_service(TrimServer::new(Echo));
                tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
                let begun = Instant::now();
                while client.trim_space(TrimRequest::default()).await.is_err() {
                    ensure!(begun.elapsed() < Duration::from_secs(60), "not found");
                    sleep(Duration::from_millis(10)).await;
                }
                format!("{:.2?}", begun.elapsed())
            }
            Err(error) => error.to_string(),
        };
        cells.extend([String::new(), String::new(), String::new(), found]);
    }
    println!("{}", cells.join("\t"));
    Ok(())
}

/// CPU time of this process, in seconds.
fn cpu() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The 14th and 15th of all fields (proc_pid_stat(5)).
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock")?;
    Ok(ticks / per_second as f64)
}

/// Resident memory in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .context("no VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024)
}
