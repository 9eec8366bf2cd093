//! Limits of concurrent calls per instance: a call over the limit goes elsewhere, fails at once or waits.
//!
//! Servers are in memory. The clock is paused, except where several threads make calls.

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
    CallError, CallErrorKind, CallOptions, Channel, ChannelBuilder, EjectionPolicy, InstanceFilter,
    limit::{ConcurrencyLimit, LearntLimit},
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::memory::{Memory, MemoryServer};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet, yield_now},
    time::{Instant, sleep},
};
use tonic::{Code, Request, Status};

const MS: Duration = Duration::from_millis(1);
/// Time that each call takes.
const CALL: Duration = Duration::from_millis(100);

/// Each test has a service of its own, as the counts of a service are those of all its channels.
fn builder(memory: &Memory) -> ChannelBuilder {
    static SERVICES: AtomicUsize = AtomicUsize::new(0);
    let number = SERVICES.fetch_add(1, Ordering::Relaxed);
    for server in memory.servers() {
        server.behave(|_| async {
            sleep(CALL).await;
            Ok(())
        });
    }
    let service = format!("trim_service_{number}");
    Channel::from_registry(Arc::new(memory.registry()), service).factory(memory.clone())
}

async fn ready(builder: ChannelBuilder, count: usize) -> Channel {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == count).await;
    channel
}

fn limit(text: &str) -> ConcurrencyLimit {
    text.parse().unwrap()
}

/// Begins a call with these options.
fn begin(channel: &Channel, options: CallOptions) -> JoinHandle<Result<(), Status>> {
    let mut client = TrimClient::new(channel.clone());
    let mut request = Request::new(TrimRequest::default());
    request.extensions_mut().insert(options);
    tokio::spawn(async move { client.trim_space(request).await.map(drop) })
}

/// Makes so many calls at the same time. Returns those that failed.
async fn at_once(channel: &Channel, calls: usize, options: &CallOptions) -> Vec<Status> {
    let calls: Vec<_> = (0..calls)
        .map(|_| begin(channel, options.clone()))
        .collect();
    let mut failed = Vec::new();
    for call in calls {
        failed.extend(call.await.unwrap().err());
    }
    failed
}

fn calls(memory: &Memory) -> Vec<usize> {
    memory.servers().iter().map(MemoryServer::calls).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_over_an_instances_limit_goes_to_another_instance() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory).concurrency_limit(limit("3")), 2).await;
    // These go to one instance, whichever the balancer would pick.
    let port = memory.servers()[0].instance().port;
    let first = InstanceFilter::of(move |instance| instance.port == port);
    let pinned = CallOptions::default().require(first);
    let busy: Vec<_> = (0..3).map(|_| begin(&channel, pinned.clone())).collect();
    support::eventually(|| calls(&memory) == [3, 0]).await;
    assert_eq!(channel.endpoints()[0].concurrency_limit, Some(3));
    assert_eq!(at_once(&channel, 3, &CallOptions::default()).await.len(), 0);
    assert_eq!(calls(&memory), [3, 3]);
    for call in busy {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_limits_of_all_instances_fails_at_once() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory).concurrency_limit(limit("3")), 2).await;
    let before = channel.snapshot().calls.limited;
    let failed = at_once(&channel, 10, &CallOptions::default()).await;
    assert_eq!(calls(&memory), [3, 3]);
    assert_eq!(failed.len(), 4);
    for error in failed {
        assert_eq!(error.code(), Code::ResourceExhausted);
        let kind = CallError::of(&error).unwrap().kind;
        assert_eq!(kind, CallErrorKind::ConcurrencyLimit);
        assert!(error.message().contains("concurrency limit"), "{error}");
    }
    assert_eq!(channel.snapshot().calls.limited - before, 4);
    // Nothing is left behind.
    assert_eq!(at_once(&channel, 6, &CallOptions::default()).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_waits_until_a_call_ends() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory).concurrency_limit(limit("2")), 2).await;
    let waiting = CallOptions::default().with_wait_for_ready(true);
    let begun = Instant::now();
    assert_eq!(at_once(&channel, 12, &waiting).await.len(), 0);
    // Three rounds of four calls, without a look at a clock between them.
    let took = begun.elapsed();
    assert!(took >= 3 * CALL && took < 3 * CALL + 10 * MS, "{took:?}");
    assert_eq!(calls(&memory).iter().sum::<usize>(), 12);

    let late = waiting.with_timeout(CALL / 2);
    let busy: Vec<_> = (0..4)
        .map(|_| begin(&channel, CallOptions::default()))
        .collect();
    support::eventually(|| calls(&memory).iter().sum::<usize>() == 16).await;
    let error = at_once(&channel, 1, &late).await.remove(0);
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("concurrency limit"), "{error}");
    for call in busy {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_asks_for_one_instance_does_not_exceed_its_limit() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory).concurrency_limit(limit("2")), 2).await;
    let port = memory.servers()[0].instance().port;
    let first = InstanceFilter::of(move |instance| instance.port == port);
    let only = CallOptions::default().require(first.clone());
    let failed = at_once(&channel, 3, &only).await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].code(), Code::ResourceExhausted);
    assert_eq!(calls(&memory), [2, 0]);
    // With a fallback, the others go elsewhere.
    let failed = at_once(&channel, 4, &CallOptions::default().prefer(first)).await;
    assert_eq!(failed.len(), 0);
    assert_eq!(calls(&memory), [4, 2]);
}

/// Counts the calls that a server processes at the same time.
#[derive(Default)]
struct Processing {
    calls: AtomicUsize,
    most: AtomicUsize,
}

impl Processing {
    fn observe(server: &MemoryServer) -> Arc<Self> {
        let processing = Arc::new(Self::default());
        let counts = Arc::clone(&processing);
        server.behave(move |_| {
            let counts = Arc::clone(&counts);
            async move {
                let calls = counts.calls.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most.fetch_max(calls, Ordering::SeqCst);
                sleep(MS).await;
                counts.calls.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        processing
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_from_many_threads_at_once_do_not_exceed_the_limit_of_any_instance() {
    let memory = Memory::with_servers(2);
    let builder = builder(&memory).concurrency_limit(limit("3"));
    let processing: Vec<_> = memory.servers().iter().map(Processing::observe).collect();
    let channel = ready(builder, 2).await;
    let waiting = CallOptions::default()
        .with_wait_for_ready(true)
        .with_timeout(Duration::from_secs(60));
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (channel, waiting) = (channel.clone(), waiting.clone());
        callers.spawn(async move {
            for _ in 0..50 {
                begin(&channel, waiting.clone()).await.unwrap().unwrap();
            }
        });
    }
    callers.join_all().await;
    let most: Vec<_> = processing
        .iter()
        .map(|processing| processing.most.load(Ordering::SeqCst))
        .collect();
    assert_eq!(most, [3, 3]);
    assert_eq!(calls(&memory).iter().sum::<usize>(), 64 * 50);
    assert!(channel.endpoints().iter().all(|it| it.in_flight == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_their_callers_cancel_give_their_places_back() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory).concurrency_limit(limit("3")), 2).await;
    let waiting = CallOptions::default().with_wait_for_ready(true);
    let mut callers = JoinSet::new();
    for number in 0..64 {
        let (channel, waiting) = (channel.clone(), waiting.clone());
        callers.spawn(async move {
            // At every step: before the pick, while they wait for a place, and while they have one.
            for step in 0..20 {
                let call = begin(&channel, waiting.clone());
                for _ in 0..(number + step) % 8 {
                    yield_now().await;
                }
                call.abort();
                let _cancelled = call.await;
                for endpoint in channel.endpoints() {
                    assert!(endpoint.in_flight <= 3, "{endpoint:?}");
                }
            }
        });
    }
    callers.join_all().await;
    assert!(channel.endpoints().iter().all(|it| it.in_flight == 0));
    // All places can be taken again.
    assert_eq!(at_once(&channel, 6, &CallOptions::default()).await.len(), 0);
}

/// So many callers that call again and again until this time.
async fn callers(channel: &Channel, callers: usize, end: Instant) {
    let mut running = JoinSet::new();
    for _ in 0..callers {
        let mut client = TrimClient::new(channel.clone());
        running.spawn(async move {
            while Instant::now() < end {
                if client.trim_space(TrimRequest::default()).await.is_err() {
                    sleep(100 * MS).await;
                }
            }
        });
    }
    running.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_learnt_limit_settles_by_instance_at_what_each_can_process() {
    let memory = Memory::with_servers(2);
    let learnt = LearntLimit::default().with_initial(20);
    let builder = builder(&memory)
        .retry_max(1)
        .ejection(EjectionPolicy::default().with_enabled(false))
        .concurrency_limit(ConcurrencyLimit::Learnt(learnt));
    let channel = ready(builder, 2).await;
    for (server, workers) in memory.servers().iter().zip([3, 8]) {
        let workers = Arc::new(Semaphore::new(workers));
        server.behave(move |_| {
            let workers = Arc::clone(&workers);
            async move {
                let _worker = workers.acquire().await.unwrap();
                sleep(10 * MS).await;
                Ok(())
            }
        });
    }
    let begun = Instant::now();
    let end = begun + Duration::from_secs(20);
    let load = callers(&channel, 200, end);
    // A look at the baseline lowers a limit for a moment, so the median counts.
    let watch = async {
        sleep(Duration::from_secs(10)).await;
        let mut seen = [Vec::new(), Vec::new()];
        while Instant::now() < end {
            for (seen, one) in seen.iter_mut().zip(channel.endpoints()) {
                seen.push(one.concurrency_limit.unwrap());
            }
            sleep(50 * MS).await;
        }
        seen
    };
    let ((), mut seen) = tokio::join!(load, watch);
    let limits = seen.each_mut().map(|limits| {
        limits.sort_unstable();
        limits[limits.len() / 2]
    });
    println!("{limits:?}");
    assert!((3..=10).contains(&limits[0]), "{limits:?}");
    assert!((8..=21).contains(&limits[1]), "{limits:?}");
    assert!(channel.snapshot().calls.limited > 100);
}

#[cfg(feature = "service-config")]
#[tokio::test(start_paused = true)]
async fn the_service_config_sets_and_removes_the_limit() {
    use discovery::config::ServiceConfig;

    let memory = Memory::with_servers(1);
    let channel = ready(builder(&memory), 1).await;
    assert_eq!(channel.endpoints()[0].concurrency_limit, None);
    for (json, expected) in [
        (r#"{"discovery": {"concurrencyLimit": 7}}"#, Some(7)),
        (r#"{"discovery": {"concurrencyLimit": "auto"}}"#, Some(20)),
        (
            r#"{"discovery": {"concurrencyLimit": {"initial": 30, "max": 50}}}"#,
            Some(30),
        ),
        (r#"{"discovery": {"concurrencyLimit": "off"}}"#, None),
    ] {
        let config = ServiceConfig::parse(json).unwrap();
        assert_eq!(config.warnings(), []);
        for config in [config.clone(), config] {
            channel.set_service_config(config).unwrap();
            support::eventually(|| channel.endpoints()[0].concurrency_limit == expected).await;
            // What is in effect is a config with the same effect.
            let again = ServiceConfig::parse(&channel.effective_config()).unwrap();
            assert_eq!(again.warnings(), []);
            channel.set_service_config(again).unwrap();
            sleep(MS).await;
            assert_eq!(channel.endpoints()[0].concurrency_limit, expected, "{json}");
        }
    }
    for (json, reason) in [
        (
            r#"{"discovery": {"concurrencyLimit": 0}}"#,
            "expected \"off\", \"auto\"",
        ),
        (
            r#"{"discovery": {"concurrencyLimit": {"initial": 2}}}"#,
            "concurrency_limit initial is 2: must be from min to max",
        ),
        (
            r#"{"discovery": {"concurrencyLimit": {"tolerance": 0.5}}}"#,
            "must be a number of at least 1",
        ),
    ] {
        let error = ServiceConfig::parse(json).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
