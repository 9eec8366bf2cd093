//! HTTP 503: no registry, no instance, or no instance that answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use proto::{ConcatRequest, add_client::AddClient};
use testkit::{Consul, Signal, add_service, eventually};
use tokio::time::Instant;

use crate::support::{Http, LIMIT, QUICK, add_alone, add_over, connect, trims};

/// Errors with their reasons, which the default keeps for the log.
const FULL: &str = "--error-detail=full";

#[tokio::test]
async fn without_an_instance_it_is_503_at_once_with_the_reason() {
    let consul = Consul::start().await.unwrap();
    let add = add_service(&["--consul", &consul.address(), FULL])
        .await
        .unwrap();
    let http = Http::new(&add);
    let look = async || {
        let answer = http.post("/concat", r#"{"a":"x"}"#).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        let reason = answer.reason();
        // The first answers may come before Consul's.
        if reason.contains("no instance") {
            Ok(reason)
        } else {
            Err(reason)
        }
    };
    let (reason, _) = eventually("no instance", LIMIT, look).await.unwrap();
    assert!(reason.contains("trim_service"), "{reason}");
    let begun = Instant::now();
    assert_eq!(http.post("/concat", r#"{"a":"x"}"#).await.status, 503);
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());

    let ready = http.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.reason().contains("no trim instance is connected"),
        "{ready:?}"
    );
    assert_eq!(http.get("/healthz").await.status, 200);
    // Sum needs no instance.
    assert_eq!(
        http.post("/sum", r#"{"a":1,"b":2}"#).await.text,
        r#"{"v":3}"#
    );
}

#[tokio::test]
async fn without_a_registry_it_is_503_with_the_reason() {
    let add = add_alone(&[FULL]).await;
    let http = Http::new(&add);
    let begun = Instant::now();
    let answer = http.post("/concat", r#"{"a":"x"}"#).await;
    assert!(begun.elapsed() < QUICK, "{:?}", begun.elapsed());
    assert_eq!(answer.status, 503);
    let look = async || match http.get("/readyz").await.reason() {
        reason if reason.contains("127.0.0.1:1") => Ok(reason),
        reason => Err(reason),
    };
    eventually("reason", LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn with_all_instances_dead_it_is_503_quickly_and_each_attempt_is_told() {
    let mut trims = trims(3, &[]).await;
    let add = add_over(&trims, &[FULL]).await;
    let http = Http::new(&add);
    http.until_ready(3).await;
    for trim in &mut trims {
        trim.process.signal(Signal::SIGKILL).unwrap();
        trim.process.exit(LIMIT).await.unwrap();
    }
    for _ in 0..5 {
        let begun = Instant::now();
        let answer = http.post("/concat", r#"{"a":"x","b":"y"}"#).await;
        let took = begun.elapsed();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(took < QUICK, "{took:?}");
        let reason = answer.reason();
        let named = trims
            .iter()
            .any(|trim| reason.contains(&trim.grpc.port().to_string()));
        assert!(named, "{reason}");
    }
    let look = async || match http.get("/readyz").await {
        answer if answer.status == 503 => Ok(()),
        answer => Err(answer),
    };
    eventually("not ready", LIMIT, look).await.unwrap();
}

#[tokio::test]
async fn by_default_an_error_names_no_address_and_no_registry() {
    let mut trims = trims(1, &[]).await;
    let add = add_over(&trims, &[]).await;
    let http = Http::new(&add);
    http.until_ready(1).await;
    let port = trims[0].grpc.port().to_string();
    trims[0].process.signal(Signal::SIGKILL).unwrap();
    trims[0].process.exit(LIMIT).await.unwrap();
    let mut client = AddClient::new(connect(add.grpc).await);
    let answer = http.post("/concat", r#"{"a":"x","b":"y"}"#).await;
    assert_eq!(answer.status, 503);
    let request = ConcatRequest {
        a: "x".into(),
        b: "y".into(),
    };
    let status = client.concat(request).await.unwrap_err();
    for reason in [&answer.reason(), status.message()] {
        assert_eq!(reason, "no instance of the trim service could answer");
    }
    // The log has all of it.
    let failed = add.process.stderr_line("trim service failed", LIMIT).await;
    let failed = failed.unwrap();
    assert!(failed.contains(&port), "{failed}");

    let add = add_alone(&[]).await;
    let http = Http::new(&add);
    let known = || async {
        let stderr = add.process.stderr();
        anyhow::ensure!(stderr.contains("consul://127.0.0.1:1"), "{stderr}");
        Ok(())
    };
    eventually("Consul's error is known", LIMIT, known)
        .await
        .unwrap();
    for answer in [http.post("/concat", "{}").await, http.get("/readyz").await] {
        assert_eq!(answer.status, 503);
        let reason = answer.reason();
        assert!(
            !reason.contains("127.0.0.1") && !reason.contains("consul"),
            "{reason}"
        );
    }
}
