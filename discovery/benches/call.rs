//! CPU time that the client spends on one unary call, by client:
//!
//! * `1 bare`: a tonic channel to one server;
//! * `3 bare in turn`: three of them, used in turn. This is the minimum for three servers;
//! * `balance_list`: tonic's balancing over the three;
//! * `discovery`: this crate's channel over the three, with its default settings;
//! * `on hyper`: the same channel, whose connections are made by hyper's HTTP/2 client in place of
//!   [`Http2`](discovery::connection::Http2).
//!
//! The servers run in a process of their own (this program again), so that the time that the kernel
//! counts for this process is the client's. The clients take turns in short rounds within one run,
//! in changing order, and are compared round by round, so that other load on the machine affects
//! them alike.
//!
//! With many calls in flight, a single connection has an advantage that three cannot have: each
//! system call sends more requests.
//!
//! `--test` does one short round. Other arguments than flags select the rows whose name contains
//! one of them, for example `"one thread, 16"`.

#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]
#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{Instance, registry::StaticRegistry};
use hyper_factory::HyperFactory;
use nix::sys::resource::{UsageWho, getrusage};
use proto::{TrimRequest, trim_client::TrimClient, trim_server::TrimServer};
use testkit::{Table, Trimmer};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport;

mod hyper_factory;

/// The argument that makes this program the servers.
const SERVE: &str = "--serve";
const SERVERS: usize = 3;
const CALLERS: [usize; 3] = [1, 16, 64];
const CLIENTS: [&str; 5] = [
    "1 bare",
    "3 bare in turn",
    "balance_list",
    "discovery",
    "on hyper",
];
/// The limit for the cost of a call through discovery, relative to a bare one.
const TARGET: f64 = 1.0;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if args.iter().any(|arg| arg == SERVE) {
        return serve();
    }
    let (rounds, calls) = if args.iter().any(|arg| arg == "--test") {
        (1, 64)
    } else {
        (41, 3_200)
    };
    let servers = Servers::start();
    let mut header = vec!["client CPU time per unary call".to_owned()];
    header.extend(CLIENTS.map(str::to_owned));
    header.extend(
        [
            "discovery / 1 bare",
            "discovery / 3 bare",
            "target",
            "on hyper / discovery",
        ]
        .map(str::to_owned),
    );
    let mut table = Table::new(header);
    for (name, workers) in [("one thread", 0), ("two workers", 2)] {
        for callers in CALLERS {
            let name = format!("{name}, {callers} at once");
            if !selected(&name) {
                continue;
            }
            let runtime = runtime(workers);
            let samples = measure(&runtime, &servers.addresses, callers, rounds, calls);
            let [one, three, _, discovery, on_hyper] = &samples;
            let mut row = vec![name];
            for sample in &samples {
                let micros = median(sample.iter().copied()) * 1e6;
                row.push(format!("{micros:.2} us"));
            }
            for other in [one, three] {
                let ratio = median(discovery.iter().zip(other).map(|(a, b)| a / b));
                row.push(format!("{ratio:.3}"));
            }
            row.push(format!("<= {TARGET}"));
            let ratio = median(on_hyper.iter().zip(discovery).map(|(a, b)| a / b));
            row.push(format!("{ratio:.3}"));
            table.row(row);
        }
    }
    println!("\n{table}");
}

/// True if the arguments select this row.
fn selected(row: &str) -> bool {
    let mut rows = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .peekable();
    rows.peek().is_none() || rows.any(|selected| row.contains(&selected))
}

/// A runtime with this many workers; with 0, everything runs on the calling thread.
fn runtime(workers: usize) -> Runtime {
    let mut builder = if workers == 0 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder
        .worker_threads(workers.max(1))
        .enable_all()
        .build()
        .unwrap()
}

/// Seconds per call in every round, in the order of [`CLIENTS`].
fn measure(
    runtime: &Runtime,
    addresses: &[SocketAddr],
    callers: usize,
    rounds: usize,
    calls: usize,
) -> [Vec<f64>; 5] {
    let (bare, balance_list, discovery, on_hyper) = runtime.block_on(async {
        let endpoint = |address: &SocketAddr| {
            transport::Endpoint::from_shared(format!("http://{address}")).unwrap()
        };
        let mut bare = Vec::new();
        for address in addresses {
            let channel = endpoint(address).connect().await.unwrap();
            bare.push(TrimClient::new(channel));
        }
        let balance_list = transport::Channel::balance_list(addresses.iter().map(endpoint));
        let instances = addresses
            .iter()
            .map(|address| Instance::new(address.ip().to_string(), address.port()).unwrap());
        let registry = Arc::new(StaticRegistry::new(instances));
        let builder = || {
            let registry = Arc::clone(&registry);
            discovery::Channel::from_registry(registry, "trim_service")
        };
        let discovery = builder().build().unwrap();
        let on_hyper = builder().factory(HyperFactory).build().unwrap();
        for channel in [&discovery, &on_hyper] {
            while channel.status().ready < addresses.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        (
            bare,
            [TrimClient::new(balance_list)],
            [TrimClient::new(discovery)],
            [TrimClient::new(on_hyper)],
        )
    });
    let mut samples: [Vec<f64>; 5] = Default::default();
    // The first round is a warm-up and is not counted.
    for round in 0..=rounds {
        for step in 0..samples.len() {
            let client = (round + step) % samples.len();
            let before = cpu_time();
            runtime.block_on(async {
                match client {
                    0 => run(&bare[..1], callers, calls).await,
                    1 => run(&bare, callers, calls).await,
                    2 => run(&balance_list, callers, calls).await,
                    3 => run(&discovery, callers, calls).await,
                    _ => run(&on_hyper, callers, calls).await,
                }
            });
            let used = cpu_time().saturating_sub(before);
            #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
            let seconds = used.as_secs_f64() / calls as f64;
            if round > 0 {
                samples[client].push(seconds);
            }
        }
    }
    samples
}

/// Makes `calls` calls from `callers` tasks, through these clients in turn. Every answer is
/// checked.
async fn run<C>(clients: &[TrimClient<C>], callers: usize, calls: usize)
where
    C: tonic::client::GrpcService<tonic::body::Body> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<tonic::codegen::StdError>,
    C::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <C::ResponseBody as http_body::Body>::Error: Into<tonic::codegen::StdError> + Send,
{
    let turn = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let mut clients = clients.to_vec();
        let turn = Arc::clone(&turn);
        tasks.spawn(async move {
            for _ in 0..calls / callers {
                let next = turn.fetch_add(1, Ordering::Relaxed) % clients.len();
                let request = TrimRequest {
                    s: " a b ".to_owned(),
                };
                let answer = clients[next].trim_space(request).await.unwrap();
                assert_eq!(answer.into_inner().s, "ab");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The CPU time of this process, in user and kernel mode.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .into_iter()
        .map(|time| {
            Duration::from_micros(
                time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs(),
            )
        })
        .sum()
}

/// The servers' process. Its standard input is a pipe from this process, with which it ends.
struct Servers {
    process: Child,
    addresses: Vec<SocketAddr>,
}

impl Servers {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let addresses = lines
            .take(SERVERS)
            .map(|line| line.unwrap().parse().unwrap())
            .collect();
        Self { process, addresses }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

fn serve() {
    std::thread::spawn(|| {
        let mut stdout = std::io::stdout();
        runtime(0).block_on(async {
            let mut servers = JoinSet::new();
            for _ in 0..SERVERS {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                writeln!(stdout, "{}", listener.local_addr().unwrap()).unwrap();
                let server = transport::Server::builder()
                    .add_service(TrimServer::new(Trimmer))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                servers.spawn(server);
            }
            stdout.flush().unwrap();
            servers.join_all().await
        })
    });
    // End of file comes when the client ends.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
