//! gRPC's service config: policy by method, read as gRPC reads it and replaced while calls are made.
//!
//! Servers are in memory and the clock is paused.

#![cfg(feature = "service-config")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod methods;
mod replacing;
mod routes;
#[path = "../support/mod.rs"]
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
        // Known fields without an effect here give a warning.
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
