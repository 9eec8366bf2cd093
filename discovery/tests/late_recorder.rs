//! A recorder that is installed after the channel was built. It is the process's only one, so this is a
//! test binary of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::Channel;
use proto::{TrimRequest, trim_client::TrimClient};
use support::{
    memory::{Memory, MemoryServer},
    recorder::Recorder,
};
use tonic::Status;

#[tokio::test(start_paused = true)]
async fn a_recorder_installed_late_has_what_was_counted_before() {
    let memory = Memory::with_servers(2);
    let channel = Channel::from_registry(Arc::new(memory.registry()), "trim")
        .factory(memory.clone())
        .retry_max(1)
        .build()
        .unwrap();
    support::eventually(|| channel.status().ready == 2).await;
    let mut client = TrimClient::new(channel.clone());
    let mut call = async || {
        let request = TrimRequest { s: "x".into() };
        client.trim_space(request).await.map(drop)
    };
    for _ in 0..3 {
        call().await.unwrap();
    }
    // A status of the server is an answer; a call without an answer in time is a failure.
    for server in memory.servers() {
        server.fall_silent();
    }
    call().await.unwrap_err();
    memory.servers().iter().for_each(MemoryServer::recover);

    let recorder = Recorder::default();
    metrics::set_global_recorder(recorder.clone()).unwrap_or_else(|_| panic!("there is another"));
    // The documented bound.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counter = |name: &str, labels: &str| {
        recorder.counter(&format!("discovery_{name}_total{{service=trim{labels}}}"))
    };
    assert_eq!(counter("calls", ",outcome=ok"), Some(3));
    assert_eq!(counter("calls", ",outcome=failed"), Some(1));
    assert_eq!(counter("attempts", ",outcome=ok"), Some(3));
    assert_eq!(counter("attempts", ",outcome=timeout"), Some(1));
    assert_eq!(counter("failures", ",code=DEADLINE_EXCEEDED"), Some(1));
    assert_eq!(counter("failures", ",code=UNAVAILABLE"), None);
    assert_eq!(counter("retries", ""), Some(0));
    let ready = recorder.gauge("discovery_endpoints{service=trim,state=ready}");
    assert_eq!(ready, Some(2.0));
    for name in ["endpoints", "calls_total", "attempt_duration_seconds"] {
        assert!(
            recorder.is_described(&format!("discovery_{name}")),
            "{name}"
        );
    }

    // The histogram begins here.
    let samples = || recorder.samples("discovery_attempt_duration_seconds{service=trim}");
    assert_eq!(samples(), Some(0));
    call().await.unwrap();
    assert_eq!(samples(), Some(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counter("calls", ",outcome=ok"), Some(4));

    // A status of the server counts as an attempt of another outcome.
    for server in memory.servers() {
        server.behave(|_| async { Err(Status::not_found("x")) });
    }
    call().await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(counter("attempts", ",outcome=status"), Some(1));
    assert_eq!(counter("calls", ",outcome=failed"), Some(1));
}
