//! A channel that watches the trim service's health sees its shutdown at once, without a registry.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use discovery::{Channel, ChannelEventKind, Instance, registry::StaticRegistry};
use proto::{TrimRequest, trim_client::TrimClient};
use testkit::{Signal, trim_service};

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
