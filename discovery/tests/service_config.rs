//! gRPC's service config: policy by method, read as gRPC reads it and replaced while calls are made.
//!
//! Servers are in memory and the clock is paused.

#![cfg(feature = "service-config")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashSet,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    CallError, CallErrorKind, Channel, ChannelBuilder, Deadline, EjectionPolicy, ServedBy,
    balance::Policy, config::ServiceConfig, registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient};
use support::memory::{Memory, MemoryServer};
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

const MS: Duration = Duration::from_millis(1);

fn config(json: &str) -> ServiceConfig {
    let config = ServiceConfig::parse(json).unwrap();
    assert_eq!(config.warnings(), [], "{json}");
    config
}

/// The config of the method that all tests call.
fn method(fields: &str) -> ServiceConfig {
    let name = r#""name": [{"service": "pb.Trim", "method": "TrimSpace"}]"#;
    config(&format!(r#"{{"methodConfig": [{{{name}, {fields}}}]}}"#))
}

fn retry(attempts: u32, codes: &str) -> String {
    format!(
        r#""timeout": "3600s", "retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "0.1s",
        "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": {codes}}}"#
    )
}

fn builder(memory: &Memory) -> ChannelBuilder {
    Channel::from_registry(Arc::new(memory.registry()), "trim_service")
        .factory(memory.clone())
        .ejection(EjectionPolicy::default().with_enabled(false))
}

async fn built(builder: ChannelBuilder) -> (Channel, TrimClient<Channel>) {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == channel.status().instances).await;
    (channel.clone(), TrimClient::new(channel))
}

async fn call(client: &mut TrimClient<Channel>) -> Result<String, Status> {
    let response = client.trim_space(TrimRequest { s: "x".into() }).await?;
    let served = response.extensions().get::<ServedBy>().unwrap();
    Ok(served.0.id.clone())
}

/// The times at which the servers receive calls, which they answer with this status.
fn failing(memory: &Memory, code: Code) -> Arc<Mutex<Vec<Instant>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    for server in memory.servers() {
        let times = Arc::clone(&times);
        server.behave(move |_| {
            times.lock().unwrap().push(Instant::now());
            async move { Err(Status::new(code, "as set")) }
        });
    }
    times
}

fn calls(memory: &Memory) -> usize {
    memory.servers().iter().map(MemoryServer::calls).sum()
}

#[test]
fn the_samples_of_grpcs_documents_are_accepted() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service_config/samples");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let config = ServiceConfig::parse(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        // What is known and has no effect here is said.
        let expected = match name.as_str() {
            "a37_fallback" | "a42_ring_hash" => 2,
            "a58_weighted_round_robin" => usize::from(cfg!(not(feature = "orca"))),
            _ => 0,
        };
        assert_eq!(
            config.warnings().len(),
            expected,
            "{name}: {:?}",
            config.warnings()
        );
        read += 1;
    }
    assert_eq!(read, 12);
}

#[tokio::test(start_paused = true)]
async fn a_methods_timeout_ends_its_calls_and_the_earlier_of_all_limits_holds() {
    let memory = Memory::with_servers(1);
    memory.servers()[0].behave(|_| pending());
    for (builders, callers, expected) in [
        (None, None, 300),
        (Some(200), None, 200),
        (Some(400), None, 300),
        (None, Some(100), 100),
        (None, Some(900), 300),
    ] {
        let mut builder = builder(&memory).service_config(method(r#""timeout": "0.3s""#));
        if let Some(limit) = builders {
            builder = builder.retry_timeout(limit * MS);
        }
        let (_, mut client) = built(builder).await;
        let mut request = Request::new(TrimRequest::default());
        if let Some(limit) = callers {
            request.extensions_mut().insert(Deadline::after(limit * MS));
        }
        let begun = Instant::now();
        let error = client.trim_space(request).await.unwrap_err();
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
async fn a_retry_policy_retries_its_codes_with_its_attempts_and_backoffs() {
    let memory = Memory::with_servers(5);
    let times = failing(&memory, Code::ResourceExhausted);
    let config = method(&retry(4, "[\"unavailable\", 8]"));
    let (_, mut client) = built(builder(&memory).service_config(config)).await;
    let error = call(&mut client).await.unwrap_err();
    let report = CallError::of(&error).unwrap();
    assert_eq!(report.kind, CallErrorKind::AttemptsExhausted);
    assert_eq!(report.attempts.len(), 4);
    let times = std::mem::take(&mut *times.lock().unwrap());
    for (pair, backoff) in times.windows(2).zip([100, 200, 400]) {
        let waited = (pair[1] - pair[0]).as_millis();
        let (least, most) = (backoff * 8 / 10, backoff * 12 / 10 + 5);
        assert!(
            (least..=most).contains(&waited),
            "{waited} ms, not about {backoff}"
        );
    }
    failing(&memory, Code::Aborted);
    let before = calls(&memory);
    assert_eq!(call(&mut client).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(calls(&memory) - before, 1, "ABORTED is not in the list");
}

#[tokio::test(start_paused = true)]
async fn the_builders_maximum_of_attempts_limits_that_of_the_config() {
    let memory = Memory::with_servers(5);
    failing(&memory, Code::Unavailable);
    let config = method(&retry(5, "[14]"));
    let (_, mut client) = built(builder(&memory).retry_max(2).service_config(config)).await;
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hedging_policy_begins_an_attempt_after_each_delay_and_the_first_answer_wins() {
    let memory = Memory::with_servers(4);
    let begun = Instant::now();
    for server in memory.servers() {
        // Whatever begins later than 40 ms answers at 70 ms.
        server.behave(move |_| async move {
            if begun.elapsed() < 45 * MS {
                return pending().await;
            }
            sleep(20 * MS).await;
            Ok(())
        });
    }
    let policy =
        r#""timeout": "10s", "hedgingPolicy": {"maxAttempts": 4, "hedgingDelay": "0.02s"}"#;
    let (_, mut client) = built(builder(&memory).service_config(method(policy))).await;
    let connected = begun.elapsed();
    let begun = Instant::now();
    call(&mut client).await.unwrap();
    let waited = begun.elapsed();
    assert!(waited < 90 * MS, "{waited:?} after {connected:?}");
    assert!((3..=4).contains(&calls(&memory)), "{}", calls(&memory));
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_ends_with_a_fatal_status_and_outlives_others() {
    let memory = Memory::with_servers(3);
    let policy = r#""timeout": "10s", "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "5s",
        "nonFatalStatusCodes": ["UNAVAILABLE"]}"#;
    let (_, mut client) = built(builder(&memory).service_config(method(policy))).await;
    failing(&memory, Code::Unavailable);
    let begun = Instant::now();
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory), 3, "each failure begins the next attempt");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    failing(&memory, Code::PermissionDenied);
    assert_eq!(
        call(&mut client).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(calls(&memory), 4);
}

#[tokio::test(start_paused = true)]
async fn retry_throttling_stops_retries_at_half_of_its_tokens() {
    let memory = Memory::with_servers(3);
    failing(&memory, Code::Unavailable);
    let json = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], {}}}],
        "retryThrottling": {{"maxTokens": 10, "tokenRatio": 0.5}}}}"#,
        retry(2, "[14]")
    );
    let (_, mut client) = built(builder(&memory).service_config(config(&json))).await;
    for _ in 0..20 {
        call(&mut client).await.unwrap_err();
    }
    // Each failed attempt takes a token: two calls take four, and the third has no retry.
    assert_eq!(calls(&memory), 22);
    memory.servers().iter().for_each(MemoryServer::recover);
    for _ in 0..12 {
        call(&mut client).await.unwrap();
    }
    failing(&memory, Code::Unavailable);
    let before = calls(&memory);
    call(&mut client).await.unwrap_err();
    assert_eq!(
        calls(&memory) - before,
        1,
        "5 of 6 tokens are left, which is half"
    );
    for server in memory.servers() {
        server.recover();
    }
    for _ in 0..4 {
        call(&mut client).await.unwrap();
    }
    failing(&memory, Code::Unavailable);
    let before = calls(&memory);
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_is_answered_by_the_first_instance_that_appears() {
    let memory = Memory::with_servers(1);
    let registry = StaticRegistry::new([]);
    let builder = |wait: bool| {
        let json = format!(r#""timeout": "60s", "waitForReady": {wait}"#);
        Channel::from_registry(Arc::new(registry.clone()), "trim_service")
            .factory(memory.clone())
            .service_config(method(&json))
    };
    let mut hasty = TrimClient::new(builder(false).build().unwrap());
    let error = call(&mut hasty).await.unwrap_err();
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::NoInstances
    );

    let mut patient = TrimClient::new(builder(true).build().unwrap());
    let begun = Instant::now();
    let error = call(&mut patient).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(
        error
            .message()
            .contains("waited 60s (retry_timeout) for an instance: no instance")
    );

    let waiting = tokio::spawn(async move { call(&mut patient).await });
    sleep(20_000 * MS).await;
    assert!(!waiting.is_finished());
    registry.set(memory.servers().iter().map(MemoryServer::instance));
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_above_its_limit_ends_the_call_without_a_retry() {
    let memory = Memory::with_servers(2);
    let limits = |request: usize, response: usize| {
        let limits = format!(
            r#""maxRequestMessageBytes": {request}, "maxResponseMessageBytes": {response}"#
        );
        method(&format!("{limits}, {}", retry(3, "[14, 8]")))
    };
    let (channel, mut client) = built(builder(&memory).service_config(limits(3, 0))).await;
    call(&mut client).await.unwrap();
    let long = TrimRequest { s: "four".into() };
    let error = client.trim_space(long.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error
            .message()
            .contains("a message of 6 bytes is longer than the 3 bytes"),
        "{error}"
    );
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::MessageTooLong
    );
    assert_eq!(calls(&memory), 1, "it was not sent");
    channel.set_service_config(limits(6, 0)).unwrap();
    client.trim_space(long).await.unwrap();
}

/// Over sockets: the servers in memory have empty answers only.
#[tokio::test]
async fn an_answer_above_its_limit_is_not_asked_for_elsewhere_and_ejects_nobody() {
    let servers = support::TrimServer::start_many(2).await;
    let ejection = EjectionPolicy::default().with_consecutive_transport(1);
    let limit = r#""maxResponseMessageBytes": 4, "discovery": {"idempotent": true}"#;
    let builder = Channel::from_registry(Arc::new(support::fixed(&servers)), "trim_service")
        .ejection(ejection)
        .service_config(method(limit));
    let (channel, mut client) = built(builder).await;
    for _ in 0..6 {
        client
            .trim_space(TrimRequest { s: "ab".into() })
            .await
            .unwrap();
        let long = TrimRequest { s: "a b c".into() };
        let error = client.trim_space(long).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        let message = error.message();
        assert!(
            message.contains("a message of 5 bytes is longer than the 4 bytes"),
            "{error}"
        );
    }
    assert_eq!(
        servers
            .iter()
            .map(support::TrimServer::calls)
            .sum::<usize>(),
        12
    );
    assert!(channel.endpoints().iter().all(|endpoint| !endpoint.ejected));
}

#[tokio::test(start_paused = true)]
async fn another_config_holds_for_new_calls_and_loses_no_call_and_no_connection() {
    let memory = Memory::with_servers(3);
    for server in memory.servers() {
        server.behave(|_| async {
            sleep(200 * MS).await;
            Ok(())
        });
    }
    let slow = method(r#""timeout": "1s""#);
    let (channel, mut client) = built(builder(&memory).service_config(slow)).await;
    let mut under_way = client.clone();
    let under_way = tokio::spawn(async move { call(&mut under_way).await });
    sleep(50 * MS).await;
    channel
        .set_service_config(method(r#""timeout": "0.1s""#))
        .unwrap();
    let error = call(&mut client).await.unwrap_err();
    assert!(error.message().contains("within 100ms"), "{error}");
    under_way.await.unwrap().unwrap();

    memory.servers().iter().for_each(MemoryServer::recover);
    for json in [
        r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#,
        r#"{"discovery": {"balancer": "least-request", "retryBudget": {"reserve": 1}}}"#,
        r#"{"discovery": {"locality": {"zone": "a"}, "ejection": {"slowStart": "1s"}}}"#,
        r#"{"loadBalancingConfig": [{"ring_hash_experimental": {}}]}"#,
        "{}",
    ] {
        channel.set_service_config(config(json)).unwrap();
        let mut served = HashSet::new();
        for _ in 0..60 {
            served.insert(call(&mut client).await.unwrap());
        }
        assert_eq!(served.len(), 3, "{json}");
    }
    for server in memory.servers() {
        assert_eq!(server.connections_made(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_subset_connects_to_its_instances_only() {
    let memory = Memory::with_servers(8);
    let subset = |size: u32| {
        let child = r#""childPolicy": [{"round_robin": {}}]"#;
        config(&format!(
            r#"{{"loadBalancingConfig": [{{"random_subsetting": {{"subsetSize": {size}, {child}}}}}]}}"#
        ))
    };
    let (channel, mut client) = built(builder(&memory).service_config(subset(3))).await;
    assert_eq!(channel.endpoints().len(), 3);
    for size in [6, 2] {
        let before: Vec<_> = channel
            .endpoints()
            .iter()
            .map(|e| e.instance.id.clone())
            .collect();
        channel.set_service_config(subset(size)).unwrap();
        let size = size as usize;
        support::eventually(|| channel.status().ready == size && channel.endpoints().len() == size)
            .await;
        let after: Vec<_> = channel
            .endpoints()
            .iter()
            .map(|e| e.instance.id.clone())
            .collect();
        let same = after.iter().filter(|id| before.contains(id)).count();
        assert_eq!(same, size.min(before.len()), "{before:?} became {after:?}");
        let mut served = HashSet::new();
        for _ in 0..20 {
            served.insert(call(&mut client).await.unwrap());
        }
        assert_eq!(served.len(), size);
    }
}

#[tokio::test(start_paused = true)]
async fn ejection_that_is_turned_off_brings_ejected_instances_back() {
    let memory = Memory::with_servers(2);
    let ejecting = r#"{"discovery": {"ejection": {"enabled": true, "consecutiveStatus": 2, "baseTime": "60s"}}}"#;
    let (channel, mut client) = built(builder(&memory).service_config(config(ejecting))).await;
    let faulty = &memory.servers()[0];
    faulty.behave(|_| async { Err(Status::unavailable("faulty")) });
    for _ in 0..8 {
        call(&mut client).await.unwrap();
    }
    let ejected = || channel.endpoints().iter().filter(|it| it.ejected).count();
    support::eventually(|| ejected() == 1).await;
    faulty.recover();
    let before = faulty.calls();
    channel.set_service_config(config("{}")).unwrap();
    support::eventually(|| ejected() == 0).await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(faulty.calls() - before, 5);
}

#[tokio::test(start_paused = true)]
async fn a_config_that_cannot_work_with_the_builders_settings_is_refused_and_the_old_one_stays() {
    let memory = Memory::with_servers(1);
    let hour = r#"{"discovery": {"ejection": {"baseTime": "3600s"}}}"#;
    let error = builder(&memory)
        .service_config(config(hour))
        .build()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ejection base_time is 3600s: must be at most"),
        "{error}"
    );
    let (channel, _) = built(builder(&memory).balancer(Policy::Random)).await;
    let before = channel.effective_config();
    assert!(channel.set_service_config(config(hour)).is_err());
    assert_eq!(channel.effective_config(), before);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_config_is_an_event_and_one_that_is_equal_or_refused_is_not() {
    let memory = Memory::with_servers(1);
    let (channel, _) = built(builder(&memory)).await;
    let mut events = channel.events();
    let changed = method(r#""timeout": "0.1s""#);
    channel.set_service_config(changed.clone()).unwrap();
    channel.set_service_config(changed).unwrap();
    let refused = config(r#"{"discovery": {"ejection": {"baseTime": "3600s"}}}"#);
    assert!(channel.set_service_config(refused).is_err());
    channel.set_service_config(config("{}")).unwrap();
    drop(channel);
    let mut seen = Vec::new();
    while let Ok(event) = events.next().await {
        assert!(event.kind.instance().is_none());
        seen.push(format!("{:?}", event.kind));
    }
    assert_eq!(seen, ["ConfigChanged", "ConfigChanged"]);
}

#[tokio::test(start_paused = true)]
async fn the_policy_in_effect_is_a_config_that_has_the_same_effect() {
    let memory = Memory::with_servers(1);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service_config/samples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let json = std::fs::read_to_string(&path).unwrap();
        let given = ServiceConfig::parse(&json).unwrap();
        let (channel, _) = built(builder(&memory).service_config(given)).await;
        let effective = channel.effective_config();
        let again = config(&effective);
        let (channel, _) = built(builder(&memory).service_config(again)).await;
        assert_eq!(channel.effective_config(), effective, "{}", path.display());
    }
    let (channel, _) = built(builder(&memory)).await;
    let effective = channel.effective_config();
    for field in [
        "\"balancer\": \"round-robin\"",
        "\"maxAttempts\": 3",
        "\"reserve\": 10",
    ] {
        assert!(effective.contains(field), "{effective}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_registrys_query_and_the_connections_are_set_by_the_config_the_channel_is_built_with() {
    let memory = Memory::with_servers(1);
    let json = r#"{"discovery": {"passingOnly": false, "datacenters": ["eu", "us"],
        "subset": 1, "subsetId": "host-1", "connections": {"eager": false, "timeout": "2s",
        "initialBackoff": "0.2s", "maxBackoff": "3s", "parallel": 7}}}"#;
    let url = Channel::builder("static://127.0.0.1:1", "svc");
    let error = url.service_config(config(json)).build().unwrap_err();
    assert!(error.to_string().contains("datacenter"), "{error}");
    let without = json.replace(r#""datacenters": ["eu", "us"],"#, "");
    let lazy = builder(&memory).service_config(config(&without));
    let channel = lazy.build().unwrap();
    let settings = channel.snapshot().policy.settings;
    assert!(!settings.passing_only && !settings.eager);
    assert_eq!(settings.connect_timeout, Duration::from_secs(2));
    assert_eq!(settings.connect_backoff.first, Duration::from_millis(200));
    assert_eq!(settings.connect_backoff.ceiling, Duration::from_secs(3));
    assert_eq!(settings.connect_parallel, 7);
    let effective = channel.effective_config();
    for field in [
        r#""subsetId": "host-1""#,
        r#""parallel": 7"#,
        r#""eager": false"#,
    ] {
        assert!(effective.contains(field), "{effective}");
    }
    // A later config does not change them, and its other settings are applied.
    let later = r#"{"discovery": {"connections": {"parallel": 9}, "subset": 2}}"#;
    channel.set_service_config(config(later)).unwrap();
    let settings = channel.snapshot().policy.settings;
    assert_eq!((settings.connect_parallel, settings.subset), (7, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn pings_are_set_by_the_config_for_the_crates_own_factory_only() {
    let json = r#"{"discovery": {"connections": {"keepAlive": "30s", "tcpKeepAlive": "0s"}}}"#;
    let own = Channel::builder("static://127.0.0.1:1", "svc").service_config(config(json));
    let effective = own.build().unwrap().effective_config();
    for field in [
        r#""keepAlive": "30s""#,
        r#""keepAliveTimeout": "5s""#,
        r#""tcpKeepAlive": "0s""#,
    ] {
        assert!(effective.contains(field), "{effective}");
    }
    let memory = Memory::with_servers(1);
    let other = builder(&memory).service_config(config(json));
    let error = other.build().unwrap_err().to_string();
    assert!(
        error.contains("connections is given with keepAlive"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn each_setting_of_the_retries_stands_by_itself() {
    let memory = Memory::with_servers(1);
    let json = r#"{"methodConfig": [{"name": [{}], "discovery": {"retryCodes": [], "maxBackoff":
        "0.005s", "backoffMultiplier": 3}}], "discovery": {"requestHashHeader": "x-user"}}"#;
    let (channel, _) = built(builder(&memory).service_config(config(json))).await;
    let effective = channel.effective_config();
    for field in [
        r#""retryCodes": []"#,
        r#""initialBackoff": "0.005s""#,
        r#""backoffMultiplier": 3.0"#,
        r#""maxAttempts": 3"#,
        r#""requestHashHeader": "x-user""#,
    ] {
        assert!(effective.contains(field), "{effective}");
    }
    let header = channel.request_hash_header();
    assert_eq!(
        header.as_ref().map(http::HeaderName::as_str),
        Some("x-user")
    );
}

/// Three servers, of which the third has the tag `canary` and the version 2.
fn with_canary(memory: &Memory) -> StaticRegistry {
    let numbered = memory.servers().iter().enumerate();
    StaticRegistry::new(numbered.map(|(number, server)| {
        let is_canary = number == 2;
        server
            .instance()
            .with_id(number.to_string())
            .with_tags(is_canary.then_some("canary"))
            .with_meta([("version", if is_canary { "2" } else { "1" })])
    }))
}

#[tokio::test(start_paused = true)]
async fn a_split_of_95_to_5_is_kept_over_20_000_calls() {
    let memory = Memory::with_servers(3);
    let split = r#"{"discovery": {"routes": [{"name": [{"service": "pb.Trim"}], "split": [
        {"weight": 95, "metadata": {"version": "1"}}, {"weight": 5, "metadata": {"version": "2"}}]}]}}"#;
    let builder = Channel::from_registry(Arc::new(with_canary(&memory)), "trim_service")
        .factory(memory.clone())
        .service_config(config(split));
    let (_, mut client) = built(builder).await;
    for _ in 0..20_000 {
        call(&mut client).await.unwrap();
    }
    let canary = memory.servers()[2].calls();
    assert!(canary.abs_diff(1_000) <= 100, "{canary} of 20000 calls");
}

#[tokio::test(start_paused = true)]
async fn a_header_sends_a_call_to_the_canary_and_elsewhere_while_it_cannot_take_it() {
    let memory = Memory::with_servers(3);
    let registry = with_canary(&memory);
    let routes = r#"{"discovery": {"routes": [
        {"metadata": {"x-canary": "strict"}, "split": [{"tags": ["canary"], "fallback": false}]},
        {"metadata": {"x-canary": null}, "split": [{"tags": ["canary"]}]},
        {"split": [{"metadata": {"version": "1"}}]}
    ]}}"#;
    let builder = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(memory.clone())
        .service_config(config(routes));
    let (channel, client) = built(builder).await;
    let call = async |canary: Option<&'static str>| {
        let mut request = Request::new(TrimRequest::default());
        if let Some(canary) = canary {
            request
                .metadata_mut()
                .insert("x-canary", canary.parse().unwrap());
        }
        let response = client.clone().trim_space(request).await?;
        let served = response.extensions().get::<ServedBy>().unwrap();
        Ok::<_, Status>(served.0.id.clone())
    };
    for _ in 0..20 {
        assert_eq!(call(Some("yes")).await.unwrap(), "2");
        assert_eq!(call(Some("strict")).await.unwrap(), "2");
        assert_ne!(call(None).await.unwrap(), "2");
    }
    memory.servers()[2].behave(|_| async { Err(Status::unavailable("as set")) });
    assert_ne!(call(Some("yes")).await.unwrap(), "2");
    assert!(call(Some("strict")).await.is_err());
    registry.set(memory.servers()[..2].iter().map(MemoryServer::instance));
    support::eventually(|| channel.endpoints().len() == 2).await;
    call(Some("yes")).await.unwrap();
    let error = call(Some("strict")).await.unwrap_err();
    assert!(
        error.message().contains("is one that the call requires"),
        "{error}"
    );
}
