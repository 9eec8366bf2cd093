//! The watch of a server that is unreachable, answers wrongly or is not a Eureka.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::registry::{
    self, Check, Query, Registry as _, RegistryError,
    eureka::{Config, Eureka},
};
use testkit::fake::{FakeServer, Reply, Request};

use crate::{
    fake::{FakeEureka, list},
    sets::{eventually, ids, needs_a_runtime, registration, until},
    support::{client, watch},
};

/// A configuration with short limits.
fn config(server: &FakeServer) -> Config {
    Config::new([server.address().to_string()])
        .with_interval(Duration::from_millis(100))
        .with_request_timeout(Duration::from_millis(500))
        .with_body_limit(8192)
}

/// The error of a watch whose first request is answered with `good`, and each later one with this.
async fn error_after_a_good_answer(bad: Reply) -> Arc<RegistryError> {
    let count = AtomicUsize::new(0);
    let server = FakeServer::start(move |_: &Request| match count.fetch_add(1, SeqCst) {
        0 => list(&["a"]),
        _ => bad.clone(),
    });
    let server = server.await.unwrap();
    let eureka = Eureka::new(&config(&server)).unwrap();
    let instancer = eureka.instancer(&Query::new("trim_service")).unwrap();
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["a"] && set.error.is_none()).await;
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), ["a"], "the last good set stays");
    set.error.unwrap()
}

#[tokio::test]
async fn an_application_without_instances_is_a_good_empty_answer() {
    let fake = FakeEureka::start().await;
    let (_watch, mut sets) = watch(&fake.url());
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.error.is_none() && set.instances.is_empty());
    let requests = fake.server.requests();
    assert_eq!(requests[0].path, "/eureka/apps/TRIM_SERVICE");
    assert_eq!(requests[0].header("accept"), Some("application/json"));
    assert_eq!(requests[0].header("authorization"), None);
}

#[tokio::test]
async fn a_wrong_path_is_an_error_and_no_empty_set() {
    let pages = [Reply::new(404, &[], "<html>"), Reply::new(404, &[], "")];
    for page in pages {
        let server = FakeServer::start(move |_: &Request| page.clone())
            .await
            .unwrap();
        let url = format!("eureka://{}/eurek?interval=100ms", server.address());
        let (_watch, mut sets) = watch(&url);
        let set = until(&mut sets, |set| set.error.is_some()).await;
        assert_eq!(set.confirmed, None);
        let error = set.error.unwrap().to_string();
        assert!(
            error.contains("the path \"/eurek\" is not that of a Eureka"),
            "{error}"
        );
        let client = client(&url, registration(8975, Check::Default));
        let error = client.register().await.unwrap_err().to_string();
        assert!(error.contains("check the path"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_keeps_the_last_good_set() {
    let trickle = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 8000\r\n\r\n")
        .then_repeat(" ", Duration::from_millis(50));
    let large = Reply::new(200, &[], vec![b' '; 9000]);
    let half = Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{").then_close();
    let elsewhere = [("Location", "http://127.0.0.1:1/eureka/apps/TRIM_SERVICE")];
    for (bad, reason) in [
        (Reply::hang(), "did not answer"),
        (Reply::raw("").then_close(), "did not answer"),
        (
            Reply::raw("nonsense\r\n\r\n").then_close(),
            "did not answer",
        ),
        (half, "did not answer"),
        (trickle, "did not answer"),
        (large, "the body is over 8192 bytes"),
        (
            Reply::new(200, &[], "<application/>"),
            "begins with \"<application/>\"",
        ),
        (Reply::new(200, &[], "{}"), "missing field `application`"),
        (Reply::new(200, &[], ""), "unusable answer"),
        (Reply::new(204, &[], ""), "unusable answer"),
        (
            Reply::new(302, &elsewhere, ""),
            "redirects are not followed",
        ),
        (Reply::new(400, &[], "what?"), "status 400: what?"),
        (Reply::new(401, &[], ""), "denied permission"),
        // A peer that has just started.
        (Reply::new(403, &[], ""), "denied permission"),
        (Reply::new(500, &[], "oops"), "status 500: oops"),
        (Reply::new(503, &[], ""), "status 503"),
    ] {
        let error = error_after_a_good_answer(bad).await.to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again_when_it_says() {
    let error = error_after_a_good_answer(Reply::new(429, &[("Retry-After", "7")], "busy")).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    let error = error_after_a_good_answer(Reply::new(408, &[], "")).await;
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_wrong_address_is_said_and_watched_on() {
    // A port that was just freed refuses connections.
    let freed = FakeServer::start(|_: &Request| Reply::hang())
        .await
        .unwrap()
        .address();
    for host in ["no-such-host.invalid:8761".to_owned(), freed.to_string()] {
        let (_watch, mut sets) = watch(&format!("eureka://{host}"));
        let set = until(&mut sets, |set| set.error.is_some()).await;
        let error = set.error.unwrap();
        assert!(
            matches!(*error, RegistryError::Unreachable { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(&host), "{error}");
        assert_eq!(set.confirmed, None);
    }
}

#[tokio::test]
async fn a_quiet_service_is_confirmed_again_and_again() {
    let server = FakeServer::start(|_: &Request| list(&["a"])).await.unwrap();
    let (_watch, mut sets) = watch(&format!("eureka://{}?interval=100ms", server.address()));
    let first = until(&mut sets, |set| set.confirmed.is_some())
        .await
        .confirmed;
    eventually("confirmed again", async || {
        (sets.borrow().confirmed > first).then_some(())
    })
    .await;
    assert!(!sets.has_changed().unwrap(), "an equal set wakes no reader");
}

#[tokio::test]
async fn one_watch_serves_all_and_ends_with_the_last() {
    let server = FakeServer::start(|_: &Request| list(&["a"])).await.unwrap();
    let url = format!("eureka://{}", server.address());
    let (first, mut sets) = watch(&url);
    let (second, _) = watch(&url);
    until(&mut sets, |set| ids(set) == ["a"]).await;
    assert_eq!(ids(&second.watch().borrow()), ["a"]);
    assert_eq!(server.requests().len(), 1);
    // Other credentials may lead to other answers.
    let (third, mut others) = watch(&url.replace("://", "://me:secret@"));
    until(&mut others, |set| ids(set) == ["a"]).await;
    let last = server.requests().pop().unwrap();
    assert_eq!(last.header("authorization"), Some("Basic bWU6c2VjcmV0"));
    drop((first, third));
    assert!(
        sets.has_changed().is_ok(),
        "the watch goes on for the second"
    );
    drop(second);
    eventually("ended", async || sets.has_changed().is_err().then_some(())).await;
}

#[tokio::test]
async fn names_arrive_as_they_are() {
    let server = FakeServer::start(|_: &Request| Reply::hang())
        .await
        .unwrap();
    let host = server.address();
    for (settings, path) in [
        ("", "/eureka/apps/STRASSE%201%3F%C3%9C"),
        ("?vip=true", "/eureka/vips/stra%C3%9Fe%201%3F%C3%BC"),
    ] {
        let registry = registry::connect(&format!("eureka://{host}{settings}")).unwrap();
        let _watch = registry.instancer(&Query::new("straße 1?ü")).unwrap();
        eventually("asked", async || {
            server
                .requests()
                .iter()
                .any(|r| r.path == path)
                .then_some(())
        })
        .await;
    }
}

#[test]
fn what_can_never_be_asked_is_refused() {
    let eureka = Eureka::new(&Config::default()).unwrap();
    for query in [
        Query::new(""),
        Query::new("a/b"),
        Query::new("a,b"),
        Query::new(".."),
        Query::new("trim_service").with_datacenter("dc2"),
    ] {
        let error = eureka.instancer(&query).map(drop).unwrap_err();
        assert!(
            matches!(error, RegistryError::InvalidSetting { .. }),
            "{error}"
        );
    }
    let grpc = eureka.registration(registration(8975, Check::grpc()));
    let error = grpc.map(drop).unwrap_err().to_string();
    assert!(error.contains("Eureka does not call instances"), "{error}");
    assert!(error.contains("ttl"), "{error}");
    for seconds in [0, 1, 90_000] {
        let ttl = Check::ttl(Duration::from_secs(seconds));
        let error = eureka.registration(registration(8975, ttl)).map(drop);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("expected 2s to 24h"), "{error}");
    }
}

#[test]
fn outside_a_runtime_every_call_is_an_error() {
    let eureka = Eureka::new(&Config::default()).unwrap();
    needs_a_runtime(&eureka, Check::Default);
}
