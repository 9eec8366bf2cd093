//! The metrics that a recorder receives of several channels to one service.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{sync::Arc, time::Duration};

use discovery::{Channel, EjectionPolicy};
use proto::{TrimRequest, trim_client::TrimClient};
use support::{memory::Memory, recorder::Recorder};
use tonic::Status;

/// A channel with connections to all servers. The names of services differ from test to test, as the
/// metrics of a service are those of the process.
async fn ready(memory: &Memory, service: &str) -> Channel {
    let channel = Channel::from_registry(Arc::new(memory.registry()), service)
        .factory(memory.clone())
        .ejection(EjectionPolicy::default().with_consecutive_status(2))
        .build()
        .unwrap();
    let count = memory.servers().len();
    support::eventually(|| channel.status().ready == count).await;
    channel
}

async fn call(channel: &Channel) -> Result<(), Status> {
    let mut client = TrimClient::new(channel.clone());
    let request = TrimRequest { s: "x".into() };
    client.trim_space(request).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_the_sum_over_channels_and_go_with_them() {
    let recorder = Recorder::default();
    let _local = metrics::set_default_local_recorder(&recorder);
    let count = |service: &str, state: &str| {
        recorder.gauge(&format!(
            "discovery_endpoints{{service={service},state={state}}}"
        ))
    };
    let (two, three) = (Memory::with_servers(2), Memory::with_servers(3));
    let first = ready(&two, "sum").await;
    assert_eq!(count("sum", "ready"), Some(2.0));
    let second = ready(&three, "sum").await;
    let other = ready(&two, "other").await;
    assert_eq!(count("sum", "ready"), Some(5.0));
    assert_eq!(count("other", "ready"), Some(2.0));

    // An ejection is seen by one channel only.
    two.servers()[0].behave(|_| async { Err(Status::unavailable("faulty")) });
    while count("sum", "ejected") != Some(1.0) {
        call(&first).await.unwrap();
    }
    assert_eq!(count("sum", "ready"), Some(4.0));

    drop(first);
    support::eventually(|| count("sum", "ready") == Some(3.0)).await;
    assert_eq!(count("sum", "ejected"), Some(0.0));
    drop(second);
    support::eventually(|| count("sum", "ready") == Some(0.0)).await;
    for state in ["connecting", "down", "idle", "ejected", "protected"] {
        assert_eq!(count("sum", state), Some(0.0), "{state}");
    }
    assert_eq!(count("other", "ready"), Some(2.0));
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn counters_are_the_sum_over_channels_and_stay() {
    let recorder = Recorder::default();
    let _local = metrics::set_default_local_recorder(&recorder);
    let calls = || recorder.counter("discovery_calls_total{service=stay,outcome=ok}");
    let memory = Memory::with_servers(1);
    let (first, second) = (ready(&memory, "stay").await, ready(&memory, "stay").await);
    assert_eq!(calls(), Some(0), "shown from the start");
    for channel in [&first, &second, &second] {
        call(channel).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(calls(), Some(3));
    call(&first).await.unwrap();
    drop((first, second));
    // The last channel publishes when it is dropped.
    support::eventually(|| calls() == Some(4)).await;
    let third = ready(&memory, "stay").await;
    call(&third).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(calls(), Some(5));
}

#[cfg(feature = "consul")]
#[tokio::test]
async fn errors_of_a_registry_are_counted_before_there_is_a_recorder() {
    let url = format!("consul://127.0.0.1:{}", support::refused_port());
    let channel = Channel::builder(url, "errors").build().unwrap();
    support::eventually(|| channel.status().registry_error.is_some()).await;
    drop(channel);
    let recorder = Recorder::default();
    let _local = metrics::set_default_local_recorder(&recorder);
    // Another channel to the service publishes them.
    let _channel = ready(&Memory::with_servers(1), "errors").await;
    assert!(recorder.sum("discovery_registry_errors_total") >= 1);
}
