//! Several servers of one Eureka.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::registry::{
    Check, Query, Registry as _,
    eureka::{Config, Eureka},
};
use testkit::fake::{FakeServer, Reply, Request};

use crate::{
    fake::{FakeEureka, list},
    sets::{eventually, ids, registration, until},
    support::{ID, registered},
};

/// A Eureka with these servers.
fn eureka<'a>(servers: impl IntoIterator<Item = &'a FakeServer>) -> Eureka {
    let addresses = servers
        .into_iter()
        .map(|server| server.address().to_string());
    let config = Config::new(addresses)
        .with_interval(Duration::from_millis(100))
        .with_request_timeout(Duration::from_millis(500));
    Eureka::new(&config).unwrap()
}

#[tokio::test]
async fn a_peer_that_fails_is_replaced_by_the_next_without_an_error() {
    for bad in [
        Reply::hang(),
        Reply::raw("").then_close(),
        Reply::new(200, &[], "<html>"),
        Reply::new(403, &[], ""),
        Reply::new(500, &[], ""),
        Reply::new(429, &[("Retry-After", "60")], ""),
    ] {
        let first = FakeServer::start(move |_: &Request| bad.clone())
            .await
            .unwrap();
        let second = FakeServer::start(|_: &Request| list(&["a"])).await.unwrap();
        let eureka = eureka([&first, &second]);
        let instancer = eureka.instancer(&Query::new("trim_service")).unwrap();
        let mut sets = instancer.watch();
        let set = until(&mut sets, |set| set.confirmed.is_some()).await;
        assert_eq!(ids(&set), ["a"]);
        assert!(set.error.is_none());
        // The peer that answered is asked first from then on.
        let asked = first.requests().len();
        eventually("asked on", async || {
            (second.requests().len() > 3).then_some(())
        })
        .await;
        assert_eq!(first.requests().len(), asked);
    }
}

#[tokio::test]
async fn without_any_peer_the_first_failure_is_said_with_its_peer() {
    let first = FakeServer::start(|_: &Request| Reply::new(500, &[], "one"))
        .await
        .unwrap();
    let second = FakeServer::start(|_: &Request| Reply::new(500, &[], "two"))
        .await
        .unwrap();
    let eureka = eureka([&first, &second]);
    let instancer = eureka.instancer(&Query::new("trim_service")).unwrap();
    let mut sets = instancer.watch();
    let error = until(&mut sets, |set| set.error.is_some())
        .await
        .error
        .unwrap();
    let expected = format!("eureka://{}/eureka refused", first.address());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!(second.requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_every_peer_would_refuse_is_sent_to_one() {
    let wrong = |_: &Request| Reply::new(400, &[], "Mismatched appName");
    let first = FakeServer::start(wrong).await.unwrap();
    let second = FakeServer::start(wrong).await.unwrap();
    let client = eureka([&first, &second]).registration(registration(8975, Check::Default));
    let error = client.unwrap().register().await.unwrap_err();
    assert!(
        error.to_string().contains("status 400: Mismatched appName"),
        "{error}"
    );
    assert!(second.requests().is_empty());
}

#[tokio::test]
async fn a_registration_goes_on_with_another_peer() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let first = FakeEureka::with(move |_, _| {
        is_down
            .load(SeqCst)
            .then(|| Reply::new(503, &[], "shutting down"))
    })
    .await;
    let second = FakeEureka::start().await;
    let eureka = eureka([&first.server, &second.server]);
    let ttl = Check::ttl(Duration::from_secs(2));
    let registrar = registered(eureka.registration(registration(8975, ttl)).unwrap()).await;
    assert!(first.state().entry.is_some() && second.state().entry.is_none());
    down.store(true, SeqCst);
    // The second does not know the instance: it answers the renewal with 404.
    eventually("registered with the second", async || {
        let entry = second.state().entry.clone()?;
        (entry["instanceId"] == ID).then_some(())
    })
    .await;
    registrar.deregister(Duration::from_secs(5)).await.unwrap();
    assert!(second.state().entry.is_none());
}
