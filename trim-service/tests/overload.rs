//! Calls over `--concurrency-limit` are refused at once. Counts, not times, are compared.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use testkit::{eventually, trim_service};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{LIMIT, connect, trim};

#[tokio::test]
async fn under_overload_calls_over_the_limit_are_refused_and_health_checks_are_not() {
    let service = trim_service(&[
        // Nothing listens there: it serves all the same.
        "--consul=127.0.0.1:1",
        // So long that all calls begin while the first ones are under way.
        "--fault=latency=2s,rate=1",
        "--concurrency-limit=5",
    ])
    .await
    .unwrap();
    let channel = connect(service.grpc).await;
    for _round in 0..2 {
        let mut calls = JoinSet::new();
        for _ in 0..30 {
            calls.spawn(trim(channel.clone(), " a"));
        }
        let (mut answered, mut refused) = (0, 0);
        while let Some(result) = calls.join_next().await {
            match result.unwrap() {
                Ok(text) => {
                    assert_eq!(text, "a");
                    answered += 1;
                }
                Err(status) => {
                    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                    refused += 1;
                }
            }
            if refused == 25 && answered == 0 {
                // While five calls are under way.
                let mut health = HealthClient::new(channel.clone());
                let request = HealthCheckRequest::default();
                let report = health.check(request).await.unwrap().into_inner();
                assert_eq!(report.status(), ServingStatus::Serving);
            }
        }
        assert_eq!((answered, refused), (5, 25));
    }
    // A call that is answered, or given up, leaves its place to another.
    let given_up = tokio::spawn(trim(channel.clone(), "x"));
    given_up.abort();
    let answered = async || trim(channel.clone(), "b").await.is_ok();
    eventually("an answer", LIMIT, answered).await.unwrap();
}
