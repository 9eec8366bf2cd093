//! Cost of a large set: time until a channel uses a set of 10 000 instances of which one was added or
//! removed, and memory per instance without calls.
//!
//! The registry is static, and the factory's connections exist in memory only. The time is measured
//! from the registry's new answer to the moment from which calls pick from the new set. Most of it is
//! spent on sorting the answer and comparing 10 000 instances field by field.
//!
//! With `--test` it runs one round with a hundred instances.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]
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

/// Maximum memory of an endpoint without calls.
const TARGET_BYTES: u64 = 8 * 1024;

fn main() {
    let test = std::env::args().any(|arg| arg == "--test");
    let (instances, rounds) = if test { (100, 1) } else { (10_000, 101) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut table = Table::new(["what", "measured", "target"]);
    // Memory is measured first: memory freed by an earlier part would be reused.
    let bytes = runtime.block_on(async { memory(instances) });
    table.row([
        format!("memory per idle endpoint, of {instances}"),
        format!("{bytes} bytes"),
        format!("<= {TARGET_BYTES} bytes"),
    ]);
    for (eager, name) in [(false, "idle"), (true, "connected")] {
        let taken = runtime.block_on(update(instances, rounds, eager));
        table.row([
            format!("one of {instances} added or removed, all {name}"),
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
        .factory(InMemory)
        .eager(eager)
        .build()
        .unwrap()
}

/// Growth of the process per instance of a channel.
fn memory(instances: u16) -> u64 {
    // A first channel allocates what is shared and does not depend on the number of instances.
    let small = StaticRegistry::new(fleet(1));
    let _first = channel(&small, false);
    let before = resident();
    let registry = StaticRegistry::new(fleet(instances));
    let channel = channel(&registry, false);
    assert_eq!(channel.status().instances, usize::from(instances));
    resident().saturating_sub(before) / u64::from(instances)
}

/// Resident memory of the process in bytes.
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

/// The median time from a registry's new answer to the set that contains it.
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

/// Makes connections without a server.
struct InMemory;

impl Factory for InMemory {
    fn connect<'a>(&'a self, _: &'a Instance) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        ready(Ok(Connection::new(Self, pending()))).boxed()
    }
}

impl Transport for InMemory {
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
