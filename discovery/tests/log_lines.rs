//! The number of log lines about large sets. The subscriber is the process's only one, so this is a test
//! binary of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{
    Channel, Instance,
    connection::{ConnectError, Connection, Factory},
    registry::StaticRegistry,
};
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::sleep};
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
};

const COUNT: u16 = 5_000;

/// Counts the lines that are written by default.
struct Counting(Arc<AtomicUsize>);

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Instances that are all up or all down.
struct Fleet {
    up: watch::Receiver<bool>,
    servers: support::memory::Memory,
}

impl Factory for Fleet {
    fn connect<'a>(&'a self, _: &'a Instance) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async {
            let mut up = self.up.clone();
            if !*up.borrow_and_update() {
                return Err(ConnectError::Connect("refused".into()));
            }
            let driver = async move {
                let _down = up.wait_for(|up| !up).await;
                Err("reset".into())
            };
            Ok(Connection::new(self.servers.servers()[0].clone(), driver))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_instances_that_go_and_return_write_few_lines() {
    let lines = Arc::<AtomicUsize>::default();
    tracing::subscriber::set_global_default(Counting(Arc::clone(&lines))).unwrap();
    let written = || lines.swap(0, Ordering::Relaxed);
    let (set_up, up) = watch::channel(true);
    let instance = |port| Instance::new("10.0.0.1", port).unwrap();
    let registry = StaticRegistry::new((1..=COUNT).map(instance));
    let channel = Channel::from_registry(Arc::new(registry.clone()), "fleet")
        .factory(Fleet {
            up,
            servers: support::memory::Memory::with_servers(1),
        })
        .build()
        .unwrap();
    let all = usize::from(COUNT);
    channel
        .wait_for(|status| status.ready == all)
        .await
        .unwrap();
    sleep(Duration::from_secs(60)).await;
    // Ten of those added, and the number of the others.
    assert_eq!(written(), 11);
    set_up.send_replace(false);
    sleep(Duration::from_secs(60)).await;
    // Lost, and unreachable.
    assert_eq!(written(), 22);
    // Further failures are not news.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(written(), 0);
    set_up.send_replace(true);
    channel
        .wait_for(|status| status.ready == all)
        .await
        .unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(written(), 11);
    // A few have a line each.
    registry.set((1..=COUNT - 3).map(instance));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(written(), 3);
}
