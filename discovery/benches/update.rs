//! What a large set costs: time until a channel has taken in that one of 10 000 instances came or
//! went, and memory per instance that nobody has called yet.
//!
//! The registry is a fixed list, and no socket is opened: a factory hands out connections that
//! exist in memory only. The time holds all that lies between the registry's new answer and the
//! moment a call picks from the new set; sorting the answer and comparing 10 000 instances field
//! by field is most of it.
//!
//! `--test` takes a hundred instances and one round.

#![allow(missing_docs, reason = "a program")]
#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]
#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use discovery::{
    Channel, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    registry::StaticRegistry,
};
use futures_util::future::{BoxFuture, FutureExt as _, pending, ready};
use http::{Request, Response};
use testkit::Table;

/// What an endpoint that waits for its first call may take.
const TARGET_BYTES: u64 = 8 * 1024;

fn main() {
    let test = std::env::args().any(|arg| arg == "--test");
    let (instances, rounds) = if test { (100, 1) } else { (10_000, 101) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut table = Table::new(["what", "measured", "target"]);
    // First, while nothing freed before hides what is taken now.
    let bytes = runtime.block_on(async { memory(instances) });
    table.row([
        format!("memory per idle endpoint, of {instances}"),
        format!("{bytes} bytes"),
        format!("<= {TARGET_BYTES} bytes"),
    ]);
    for (eager, name) in [(false, "idle"), (true, "connected")] {
        let taken = runtime.block_on(update(instances, rounds, eager));
        table.row([
            format!("one of {instances} comes or goes, all {name}"),
            format!("{:.2} ms", taken.as_secs_f64() * 1e3),
            String::new(),
        ]);
    }
    println!("\n{table}");
}

fn fleet(count: u16) -> Vec<Instance> {
    (1..=count)
        .map(|port| Instance::named("fleet", [127, 0, 0, 1].into(), port).unwrap())
        .collect()
}

fn channel(registry: &StaticRegistry, eager: bool) -> Channel {
    Channel::from_registry(Arc::new(registry.clone()), "fleet")
        .factory(Nowhere)
        .eager(eager)
        .build()
        .unwrap()
}

/// What the process grows by with so many instances in a channel, by each of them.
fn memory(instances: u16) -> u64 {
    // Whatever a first channel sets up once is none of the instances' cost.
    let small = StaticRegistry::new(fleet(1));
    let _first = channel(&small, false);
    let before = resident();
    let registry = StaticRegistry::new(fleet(instances));
    let channel = channel(&registry, false);
    assert_eq!(channel.status().instances, usize::from(instances));
    resident().saturating_sub(before) / u64::from(instances)
}

/// Bytes of memory in use, as the kernel counts them.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

/// The median time from a registry's new answer to a set that shows it.
async fn update(instances: u16, rounds: usize, eager: bool) -> Duration {
    let all = fleet(instances);
    let without_one = all[1..].to_vec();
    let registry = StaticRegistry::new(all.clone());
    let channel = channel(&registry, eager);
    while eager && channel.status().ready < usize::from(instances) {
        tokio::task::yield_now().await;
    }
    let mut samples = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let next = if round % 2 == 0 { &without_one } else { &all };
        let expected = next.len();
        let next = next.clone();
        let begun = Instant::now();
        registry.set(next);
        while channel.status().instances != expected {
            tokio::task::yield_now().await;
        }
        samples.push(begun.elapsed());
    }
    samples.sort();
    samples[samples.len() / 2]
}

/// Connects at once, to nothing.
struct Nowhere;

impl Factory for Nowhere {
    fn connect<'a>(&'a self, _: &'a Instance) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        ready(Ok(Connection::new(Self, pending()))).boxed()
    }
}

impl Transport for Nowhere {
    fn send(
        &self,
        _: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        ready(Err(SendError::unprocessed("there is no server"))).boxed()
    }

    fn is_closed(&self) -> bool {
        false
    }
}
