//! Options of one call: they hold for that call only, and say which instances it may use.
//!
//! Servers are in memory and the clock is paused.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{collections::HashSet, future::pending, sync::Arc, time::Duration};

use discovery::{
    CallError, CallErrorKind, CallOptions, Channel, Deadline, EjectionPolicy, HashKey, Instance,
    InstanceFilter, RetryPolicy, ServedBy, registry::StaticRegistry, retry::Hedge,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    memory::{Memory, MemoryServer},
    recorder::Recorder,
};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

const MS: Duration = Duration::from_millis(1);

/// The servers as instances with the IDs `0`, `1` and so on; these have the tag `canary`.
fn instances(memory: &Memory, canaries: &[usize]) -> Vec<Instance> {
    let numbered = memory.servers().iter().enumerate();
    numbered
        .map(|(number, server)| {
            let tag = canaries.contains(&number).then_some("canary");
            server.instance().with_id(number.to_string()).with_tags(tag)
        })
        .collect()
}

async fn client(memory: &Memory, registry: &StaticRegistry) -> (Channel, TrimClient<Channel>) {
    client_of("trim_service", memory, registry).await
}

async fn client_of(
    service: &str,
    memory: &Memory,
    registry: &StaticRegistry,
) -> (Channel, TrimClient<Channel>) {
    let mut retry = RetryPolicy::default();
    retry.budget.reserve = 1_000;
    let channel = Channel::from_registry(Arc::new(registry.clone()), service)
        .factory(memory.clone())
        .retry(retry)
        .ejection(EjectionPolicy::default().with_base_time(Duration::from_secs(60)))
        .build()
        .unwrap();
    support::eventually(|| channel.status().ready == memory.servers().len()).await;
    (channel.clone(), TrimClient::new(channel))
}

fn request(options: CallOptions) -> Request<TrimRequest> {
    let mut request = Request::new(TrimRequest { s: "x".into() });
    request.extensions_mut().insert(options);
    request
}

async fn call(
    client: &mut TrimClient<Channel>,
    request: Request<TrimRequest>,
) -> Result<usize, Status> {
    let response = client.trim_space(request).await?;
    let served = response.extensions().get::<ServedBy>().unwrap();
    Ok(served.0.id.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_one_call_may_be_shorter_or_longer_than_its_methods() {
    let memory = Memory::with_servers(1);
    memory.servers()[0].behave(|_| pending());
    let registry = StaticRegistry::new(instances(&memory, &[]));
    let (_, mut client) = client(&memory, &registry).await;
    for (options, deadline, expected) in [
        (CallOptions::new(), None, 500),
        (CallOptions::new().with_timeout(50 * MS), None, 50),
        (CallOptions::new().with_timeout(2_000 * MS), None, 2_000),
        (CallOptions::new().with_timeout(2_000 * MS), Some(100), 100),
    ] {
        let mut request = request(options);
        if let Some(deadline) = deadline {
            request
                .extensions_mut()
                .insert(Deadline::after(deadline * MS));
        }
        let begun = Instant::now();
        let error = call(&mut client, request).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        let waited = begun.elapsed();
        let expected = expected * MS;
        assert!(
            waited >= expected && waited < expected + 5 * MS,
            "{waited:?}, {expected:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_may_be_declared_idempotent_and_hedged() {
    let memory = Memory::with_servers(2);
    let registry = StaticRegistry::new(instances(&memory, &[]));
    let (_, mut client) = client(&memory, &registry).await;
    memory.servers()[0].behave(|_| async { Err(Status::internal("as set")) });
    let mut failed = 0;
    for _ in 0..4 {
        failed += u32::from(
            call(&mut client, request(CallOptions::new()))
                .await
                .is_err(),
        );
    }
    assert_eq!(failed, 2, "calls that the first server failed");
    for _ in 0..4 {
        let idempotent = CallOptions::new().with_idempotent(true);
        assert_eq!(call(&mut client, request(idempotent)).await.unwrap(), 1);
    }

    memory.servers()[0].behave(|_| pending());
    let hedged = CallOptions::new()
        .with_idempotent(true)
        .with_hedge(Hedge::After(20 * MS));
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(call(&mut client, request(hedged.clone())).await.unwrap(), 1);
        assert!(begun.elapsed() < 30 * MS, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_call_waits_for_an_instance_and_others_fail_at_once() {
    let memory = Memory::with_servers(1);
    let registry = StaticRegistry::new([]);
    let channel = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(memory.clone())
        .build()
        .unwrap();
    let mut client = TrimClient::new(channel);
    let error = call(&mut client, request(CallOptions::new()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let patient = CallOptions::new()
        .with_wait_for_ready(true)
        .with_timeout(60_000 * MS);
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { call(&mut other, request(patient)).await });
    sleep(30_000 * MS).await;
    registry.set(instances(&memory, &[]));
    assert_eq!(waiting.await.unwrap().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_pinned_to_an_instance_goes_nowhere_else() {
    let memory = Memory::with_servers(3);
    let registry = StaticRegistry::new(instances(&memory, &[]));
    let (channel, mut client) = client(&memory, &registry).await;
    let pinned = || request(CallOptions::new().require(InstanceFilter::id("1")));
    for _ in 0..6 {
        assert_eq!(call(&mut client, pinned()).await.unwrap(), 1);
    }
    // Its failures are retried there, and it is used even while it is ejected.
    memory.servers()[1].behave(|_| async { Err(Status::unavailable("as set")) });
    let before = memory.servers()[1].calls();
    let error = call(&mut client, pinned()).await.unwrap_err();
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::AttemptsExhausted
    );
    assert_eq!(memory.servers()[1].calls() - before, 3);
    for _ in 0..30 {
        call(&mut client, request(CallOptions::new()))
            .await
            .unwrap();
    }
    let ejected = || channel.endpoints().iter().any(|endpoint| endpoint.ejected);
    support::eventually(ejected).await;
    memory.servers()[1].recover();
    assert_eq!(call(&mut client, pinned()).await.unwrap(), 1);
    assert_eq!(
        memory.servers()[0].calls() + memory.servers()[2].calls(),
        30
    );

    let absent = CallOptions::new().require(InstanceFilter::id("9"));
    let error = call(&mut client, request(absent)).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let expected = "none of the 3 instances of trim_service is one that the call requires";
    assert!(error.message().contains(expected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_prefers_the_canary_falls_back_when_there_is_none_and_this_is_counted() {
    let recorder = Recorder::default();
    let _local = metrics::set_default_local_recorder(&recorder);
    // Metrics of a service are those of the process.
    let service = "with_a_canary";
    let fallbacks = || recorder.sum("discovery_fallbacks_total");
    let memory = Memory::with_servers(4);
    let registry = StaticRegistry::new(instances(&memory, &[1, 2]));
    let (channel, mut client) = client_of(service, &memory, &registry).await;
    let canary = || request(CallOptions::new().prefer(InstanceFilter::tag("canary")));
    let mut served = HashSet::new();
    for _ in 0..40 {
        served.insert(call(&mut client, canary()).await.unwrap());
    }
    assert_eq!(served, HashSet::from([1, 2]));
    // A failure of one is retried at the other, and a failure of both elsewhere.
    memory.servers()[1].behave(|_| async { Err(Status::unavailable("as set")) });
    for _ in 0..3 {
        assert_eq!(call(&mut client, canary()).await.unwrap(), 2);
    }
    memory.servers()[2].behave(|_| async { Err(Status::unavailable("as set")) });
    let served = call(&mut client, canary()).await.unwrap();
    assert!([0, 3].contains(&served), "{served}");
    memory.servers().iter().for_each(MemoryServer::recover);

    registry.set(instances(&memory, &[]));
    let retagged = || {
        channel
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.instance.tags.is_empty())
    };
    support::eventually(retagged).await;
    sleep(2_000 * MS).await;
    let before = fallbacks();
    assert_eq!(before, 1, "the one call whose two canaries failed");
    for _ in 0..8 {
        call(&mut client, canary()).await.unwrap();
    }
    sleep(2_000 * MS).await;
    assert_eq!(fallbacks() - before, 8);
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_calls_with_one_of_the_preferred_instances() {
    let memory = Memory::with_servers(5);
    let registry = StaticRegistry::new(instances(&memory, &[0, 2, 4]));
    let (_, mut client) = client(&memory, &registry).await;
    let mut used = HashSet::new();
    for key in 0..30_u8 {
        let keyed = || {
            let filter = InstanceFilter::tag("canary");
            let mut request = request(CallOptions::new().prefer(filter));
            request.extensions_mut().insert(HashKey::of(&[key]));
            request
        };
        let first = call(&mut client, keyed()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(call(&mut client, keyed()).await.unwrap(), first);
        }
        used.insert(first);
    }
    assert_eq!(used, HashSet::from([0, 2, 4]));
}
