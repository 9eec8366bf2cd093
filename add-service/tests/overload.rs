//! Requests over `--concurrency-limit` are refused at once, over HTTP and gRPC. Counts, not times, are
//! compared.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use proto::{SumRequest, add_client::AddClient};
use testkit::eventually;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{Http, LIMIT, add_over, connect, trims};

#[tokio::test]
async fn under_overload_requests_over_the_limit_are_refused_and_those_of_operators_are_not() {
    // So long that all requests begin while the first ones are under way.
    let trims = trims(1, &["--fault=latency=2s,rate=1"]).await;
    let add = add_over(&trims, &["--concurrency-limit=4", "--retry-timeout=20s"]).await;
    let http = Http::new(&add);
    http.until_ready(1).await;
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let http = http.clone();
        requests.spawn(async move { http.post("/concat", r#"{"a":" a","b":"b"}"#).await });
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(answer) = requests.join_next().await {
        let answer = answer.unwrap();
        if answer.status == 200 {
            assert_eq!(answer.text, r#"{"v":"ab"}"#);
            answered += 1;
            continue;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1");
        assert!(answer.reason().contains("too many requests"), "{answer:?}");
        refused += 1;
        if refused == 16 && answered == 0 {
            // The four under way take all places, those of gRPC too.
            let mut client = AddClient::new(connect(add.grpc).await);
            let error = client.sum(SumRequest { a: 1, b: 2 }).await.unwrap_err();
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
            for path in ["/healthz", "/readyz"] {
                assert_eq!(http.get(path).await.status, 200);
            }
            let metrics = http.get("/metrics").await.text;
            let refusals =
                "http_requests_total{method=\"POST\",route=\"/concat\",status=\"503\"} 16";
            assert!(metrics.contains(refusals), "{metrics}");
        }
    }
    assert_eq!((answered, refused), (4, 16));
    let answered = async || http.post("/sum", r#"{"a":1,"b":2}"#).await.status == 200;
    eventually("an answer", LIMIT, answered).await.unwrap();
}
