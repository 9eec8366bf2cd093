//! A client that watches the trim service's health sees its shutdown at once, without a registry: a channel,
//! and grpc-go's client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use discovery::{Channel, ChannelEventKind, Instance, registry::StaticRegistry};
use proto::{TrimRequest, trim_client::TrimClient};
use testkit::{Process, Signal, registries::skip, trim_service};

use crate::support::LIMIT;

#[tokio::test]
async fn after_sigterm_a_channel_that_watches_health_sends_nothing_more_and_loses_no_call() {
    // Nothing listens there: they serve all the same. The list never changes.
    let flags = ["--consul", "127.0.0.1:1", "--drain", "4s"];
    let mut leaving = trim_service(&flags).await.unwrap();
    let staying = trim_service(&flags).await.unwrap();
    let instances =
        [&leaving, &staying].map(|trim| Instance::parse(&trim.grpc.to_string()).unwrap());
    let registry = StaticRegistry::new(instances);
    let channel = Channel::from_registry(Arc::new(registry), "trim_service")
        .health_service("pb.Trim")
        // Retries would hide a lost call.
        .retry_max(1)
        .retry_timeout(LIMIT)
        .build()
        .unwrap();
    let ready = channel.wait_for(|status| status.ready == 2);
    ready.await.unwrap();
    let mut events = channel.events();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, stop) = (TrimClient::new(channel.clone()), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.trim_space(TrimRequest { s: " a".into() }).await?;
                    calls += 1;
                }
                Ok::<usize, tonic::Status>(calls)
            })
        })
        .collect();
    let served = |port: u16| {
        let all = channel.endpoints();
        let one = all.into_iter().find(|one| one.instance.port == port);
        one.map_or(0, |one| one.calls.ended)
    };
    let port = leaving.grpc.port();
    testkit::eventually("calls to both", LIMIT, async || {
        served(port) > 50 && served(staying.grpc.port()) > 50
    })
    .await
    .unwrap();

    let begun = Instant::now();
    leaving.process.signal(Signal::SIGTERM).unwrap();
    let event = events.next().await.unwrap().kind;
    assert!(
        matches!(&event, ChannelEventKind::NotServing { instance, .. } if instance.port == port),
        "{event:?}"
    );
    // It still accepts calls for a quarter of the drain, and closes its connections later.
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Calls that were picked before may be on their way.
    testkit::eventually("no calls on their way", LIMIT, async || {
        let all = channel.endpoints();
        let on_their_way = all.iter().find(|one| one.instance.port == port);
        on_their_way.is_none_or(|one| one.in_flight == 0)
    })
    .await
    .unwrap();
    let (before, others) = (served(port), served(staying.grpc.port()));
    testkit::eventually("more calls", LIMIT, async || {
        served(staying.grpc.port()) > others + 200
    })
    .await
    .unwrap();
    assert_eq!(served(port), before, "calls after the report");
    let status = leaving.process.exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0));
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap().unwrap() > 0);
    }
}

#[tokio::test]
async fn after_sigterm_grpc_gos_client_sends_nothing_more_if_it_watches_health() {
    let Some(binary) = env::var_os("HEALTH_PEER_BIN") else {
        let reason =
            "HEALTH_PEER_BIN is not set; set it to what scripts/get-go-peer.sh health prints";
        return skip("grpc-go's health watching", reason).unwrap();
    };
    // Longer than the test: the server that leaves takes calls until its end.
    let flags = ["--consul", "127.0.0.1:1", "--drain", "10m"];
    let mut leaving = trim_service(&flags).await.unwrap();
    let staying = trim_service(&flags).await.unwrap();
    let addresses = [leaving.grpc.to_string(), staying.grpc.to_string()];
    let client = |flags: &[&str]| {
        let arguments = [&["call"], flags, &addresses.each_ref().map(String::as_str)].concat();
        Process::spawn(Path::new(&binary), arguments).unwrap()
    };
    // The one that does not watch shows that calls still could be sent.
    let (watching, other) = (client(&["--watch", "pb.Trim"]), client(&[]));
    let calls = |client: &Process, to: &str| {
        let output = client.stdout();
        output.lines().filter(|address| *address == to).count()
    };
    testkit::eventually("calls to both", LIMIT, async || {
        [&watching, &other].into_iter().all(|client| {
            let both = addresses.each_ref();
            both.into_iter().all(|address| calls(client, address) > 20)
        })
    })
    .await
    .unwrap();

    leaving.process.signal(Signal::SIGTERM).unwrap();
    let [to_leaving, to_staying] = addresses.each_ref();
    testkit::eventually("no calls to the one that leaves", LIMIT, async || {
        let output = watching.stdout();
        let latest: Vec<_> = output.lines().rev().take(100).collect();
        latest.iter().all(|address| *address == to_staying)
    })
    .await
    .unwrap();
    let before = [&watching, &other].map(|client| calls(client, to_leaving));
    let others = calls(&watching, to_staying);
    testkit::eventually("more calls", LIMIT, async || {
        calls(&watching, to_staying) > others + 100 && calls(&other, to_leaving) > before[1] + 20
    })
    .await
    .unwrap();
    assert_eq!(
        calls(&watching, to_leaving),
        before[0],
        "calls after the report"
    );
    // A second signal ends it at once.
    leaving.process.signal(Signal::SIGTERM).unwrap();
    leaving.process.exit(LIMIT).await.unwrap();
}
