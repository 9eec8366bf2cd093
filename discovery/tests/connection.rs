//! The connection layer through a channel: the end of its runtime.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use discovery::Channel;
use proto::{TrimRequest, trim_client::TrimClient};
use tonic::Code;

#[tokio::test]
async fn a_channel_whose_runtime_ended_has_no_ready_connection() {
    let servers = support::TrimServer::start_many(2).await;
    let registry = Arc::new(support::fixed(&servers));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let channel = {
        let _inside = runtime.enter();
        Channel::from_registry(registry, "trim_service")
            .build()
            .unwrap()
    };
    support::eventually(|| channel.status().ready == 2).await;

    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .unwrap();
    assert_eq!(channel.status().ready, 0);
    let request = TrimRequest { s: "x".to_owned() };
    let error = TrimClient::new(channel)
        .trim_space(request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("runtime has ended"), "{error}");
}
