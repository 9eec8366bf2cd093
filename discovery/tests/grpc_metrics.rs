//! gRPC's own metrics of a channel, and the context that each attempt carries.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{Channel, ChannelBuilder, Hedge, metrics::grpc_text};
use http::HeaderValue;
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    TrimServer, fixed,
    grpc_series::{count, value},
    memory::Memory,
};
use tonic::Status;

/// A channel to servers in memory. The targets differ from test to test, as their metrics are those of the
/// process.
fn builder(memory: &Memory, service: &str) -> ChannelBuilder {
    Channel::from_registry(Arc::new(memory.registry()), service)
        .factory(memory.clone())
        .idempotent(["/pb.Trim/TrimSpace"])
}

async fn ready(builder: ChannelBuilder, count: usize) -> Channel {
    let channel = builder.build().unwrap();
    support::eventually(|| channel.status().ready == count).await;
    channel
}

async fn call(channel: &Channel, text: &str) -> Result<(), Status> {
    let mut client = TrimClient::new(channel.clone());
    let request = TrimRequest { s: text.into() };
    client.trim_space(request).await.map(drop)
}

const OK: &str = "grpc_status=\"OK\"";
const UNAVAILABLE: &str = "grpc_status=\"UNAVAILABLE\"";
const CANCELLED: &str = "grpc_status=\"CANCELLED\"";
const STARTED: &str = "grpc_client_attempt_started_total";
const ATTEMPTS: &str = "grpc_client_attempt_duration_seconds_count";
const CALLS: &str = "grpc_client_call_duration_seconds_count";

#[tokio::test(start_paused = true)]
async fn a_retried_call_counts_each_attempt_by_its_status_and_one_retry() {
    let memory = Memory::with_servers(2);
    let channel = ready(builder(&memory, "retried"), 2).await;
    let count = |name: &str, labels: &[&str]| count("retried", name, labels);
    call(&channel, "12345").await.unwrap();
    assert_eq!((count(STARTED, &[]), count(ATTEMPTS, &[OK])), (1, 1));
    assert_eq!(count(CALLS, &[OK]), 1);
    for server in memory.servers() {
        let failures = AtomicUsize::new(0);
        server.behave(move |_| {
            let is_first = failures.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if is_first {
                    Err(Status::unavailable("not now"))
                } else {
                    Ok(())
                }
            }
        });
    }
    call(&channel, "12345").await.unwrap();
    assert_eq!(count(ATTEMPTS, &[UNAVAILABLE]), 2);
    assert_eq!((count(STARTED, &[]), count(ATTEMPTS, &[OK])), (4, 2));
    assert_eq!((count(CALLS, &[OK]), count(CALLS, &[UNAVAILABLE])), (2, 0));
    let retries = "grpc_client_call_retries";
    assert_eq!(count(&format!("{retries}_sum"), &[]), 2);
    assert_eq!(count(&format!("{retries}_bucket"), &["le=\"1\""]), 0);
    assert_eq!(count(&format!("{retries}_bucket"), &["le=\"2\""]), 1);
    assert_eq!(count("grpc_client_call_hedges_count", &[]), 0);
    // The second retry waits for the backoff.
    let delay = value("retried", "grpc_client_call_retry_delay_seconds_sum", &[]);
    assert!(delay > 0.0 && delay < 0.3, "{delay}");
    // A text of five bytes has a tag and a length before it, and its answer is empty.
    let sent = "grpc_client_attempt_sent_total_compressed_message_size_bytes_sum";
    let received = "grpc_client_attempt_rcvd_total_compressed_message_size_bytes_sum";
    assert_eq!(count(sent, &[OK]), 2 * 7);
    assert_eq!(count(received, &[OK]), 0);

    assert_eq!(count("grpc_subchannel_open_connections", &[]), 2);
    drop(channel);
    let gone = || !grpc_text().contains("/retried\"");
    support::eventually(gone).await;
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_counts_a_hedge_and_a_cancelled_attempt_and_a_dropped_call_is_cancelled() {
    let memory = Memory::with_servers(2);
    let hedged = builder(&memory, "hedged").hedge(Hedge::After(Duration::from_millis(20)));
    let channel = ready(hedged, 2).await;
    let count = |name: &str, labels: &[&str]| count("hedged", name, labels);
    for server in memory.servers() {
        server.behave(|nth| async move {
            if nth == 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        });
    }
    // Both servers are slow once: the hedge of the first call is slow too, and the answer is the first one's.
    call(&channel, "").await.unwrap();
    assert_eq!(count("grpc_client_call_hedges_sum", &[]), 1);
    assert_eq!((count(STARTED, &[]), count(ATTEMPTS, &[OK])), (2, 1));
    assert_eq!(count(ATTEMPTS, &[CANCELLED]), 1);
    assert_eq!((count(CALLS, &[OK]), count(CALLS, &[CANCELLED])), (1, 0));

    for server in memory.servers() {
        server.fall_silent();
    }
    let limit = Duration::from_millis(5);
    tokio::time::timeout(limit, call(&channel, ""))
        .await
        .unwrap_err();
    assert_eq!(count(ATTEMPTS, &[CANCELLED]), 2);
    assert_eq!((count(CALLS, &[OK]), count(CALLS, &[CANCELLED])), (1, 1));
}

#[tokio::test]
async fn each_attempt_carries_a_context_of_its_own() {
    let servers = TrimServer::start_many(2).await;
    for server in &servers {
        server.behave(|nth| async move {
            match nth {
                0 => Err(Status::unavailable("not now")),
                _ => Ok(()),
            }
        });
    }
    let attempts = AtomicUsize::new(0);
    let channel = Channel::from_registry(Arc::new(fixed(&servers)), "context")
        .propagate(move |headers| {
            let number = attempts.fetch_add(1, Ordering::SeqCst);
            headers.insert("traceparent", HeaderValue::from(number));
        })
        .build()
        .unwrap();
    support::eventually(|| channel.status().ready == 2).await;
    call(&channel, "x").await.unwrap();
    let mut seen: Vec<_> = servers
        .iter()
        .flat_map(|server| server.metadata("traceparent"))
        .collect();
    seen.sort();
    let expected: Vec<_> = (0..seen.len()).map(|number| number.to_string()).collect();
    assert!(seen.len() >= 2, "{seen:?}");
    assert_eq!(seen, expected);
}
