//! The watch against a server that is unreachable, answers wrongly or is not a Consul. The server is
//! a fake, because a real Consul does not give these answers on demand.

#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake_consul;
mod sets;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::{
    Registrar,
    registry::{
        Check, InstanceSet, Query, Registry, RegistryError,
        consul::{Config, Consul},
    },
};
use serde_json::json;
use testkit::fake::{FakeServer, Reply, Request};
use tokio::time::Instant;

use crate::fake_consul::{config, list, watch_of};
use crate::sets::{eventually, ids, needs_a_runtime, registration, until, within};

#[tokio::test]
async fn a_failure_makes_the_index_void() {
    let answer = |request: &Request| match request.parameter("index") {
        None => Reply::consul(1000, list(&["a"])),
        Some(_) => Reply::raw("").then_close(),
    };
    let server = FakeServer::start(answer).await.unwrap();
    let instancer = watch_of(&config(&server));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.error.is_some()).await;
    until(&mut sets, |set| set.error.is_none()).await;
    let indexes: Vec<_> = server
        .requests()
        .iter()
        .map(|r| r.parameter("index").map(str::to_owned))
        .collect();
    assert_eq!(indexes[..3], [None, Some("1000".to_owned()), None]);
}

#[tokio::test]
async fn an_index_that_goes_back_starts_anew_with_what_it_brought() {
    let answer = |request: &Request| match request.parameter("index") {
        None => Reply::consul(100, list(&["a"])),
        Some("100") => Reply::consul(7, list(&["b"])),
        Some(_) => Reply::hang(),
    };
    let server = FakeServer::start(answer).await.unwrap();
    let instancer = watch_of(&config(&server));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["b"]).await;
    eventually("asked anew", async || {
        (server.requests().len() > 2).then_some(())
    })
    .await;
    assert_eq!(server.requests()[2].parameter("index"), None);
}

#[tokio::test]
async fn index_zero_is_never_sent_and_makes_no_tight_loop() {
    let server = FakeServer::start(|_| Reply::consul(0, list(&["a"])))
        .await
        .unwrap();
    let instancer = watch_of(&config(&server));
    until(&mut instancer.watch(), |set| ids(set) == ["a"]).await;
    eventually("asked on", async || {
        (server.requests().len() > 3).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = server.requests();
    assert!(
        requests.len() < 9,
        "{} requests in about 3 s",
        requests.len()
    );
    assert!(requests.iter().all(|r| r.parameter("index") != Some("0")));
}

#[tokio::test]
async fn two_hundred_changes_a_second_are_not_downloaded_one_by_one() {
    let index = Arc::new(AtomicU64::new(10));
    let current = index.clone();
    // A query with an old index is answered at once, one with the current index is held back.
    let answer = move |request: &Request| {
        let now = current.load(SeqCst);
        let reply = Reply::consul(now, list(&[&now.to_string()]));
        if request.parameter("index") == Some(&now.to_string()) {
            let next = now + 1;
            Reply::consul(next, list(&[&next.to_string()])).delayed(Duration::from_millis(5))
        } else {
            reply
        }
    };
    let server = FakeServer::start(answer).await.unwrap();
    let instancer = watch_of(&config(&server));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    let started = Instant::now();
    let mut last = 10;
    while started.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        last = index.fetch_add(1, SeqCst) + 1;
    }
    let requests = server.requests().len();
    assert!((8..=14).contains(&requests), "{requests} requests in 3 s");
    // The pause does not lose the last change.
    let seen = |set: &InstanceSet| ids(set)[0].parse::<u64>().unwrap() >= last;
    within(Duration::from_secs(2), sets.wait_for(seen))
        .await
        .unwrap();
}

#[tokio::test]
async fn one_watch_serves_all_and_ends_with_the_last() {
    let answer = |request: &Request| match request.parameter("index") {
        None => Reply::consul(5, list(&["a"])),
        Some(_) => Reply::hang(),
    };
    let server = FakeServer::start(answer).await.unwrap();
    let config = config(&server);
    let first = watch_of(&config);
    let second = watch_of(&config);
    let mut sets = first.watch();
    until(&mut sets, |set| ids(set) == ["a"]).await;
    assert_eq!(ids(&second.watch().borrow()), ["a"]);
    eventually("held", async || {
        (server.requests().len() == 2).then_some(())
    })
    .await;
    assert_eq!(server.connections(), 1);

    // Other credentials or another query may lead to other answers.
    let other_token = watch_of(&config.clone().with_token("secret"));
    let consul = Consul::new(&config).unwrap();
    let other_query = consul.instancer(&Query::new("add_service")).unwrap();
    eventually("two more are held", async || {
        (server.requests().len() == 6).then_some(())
    })
    .await;
    assert_eq!(server.connections(), 3);
    let with_token = |r: &Request| r.header("x-consul-token") == Some("secret");
    assert_eq!(
        server.requests().iter().filter(|r| with_token(r)).count(),
        2
    );
    drop((other_token, other_query));
    eventually("the others ended", async || {
        (server.connections() == 1).then_some(())
    })
    .await;

    drop(first);
    assert_eq!(ids(&second.watch().borrow()), ["a"]);
    assert!(
        sets.has_changed().is_ok(),
        "the watch goes on for the second"
    );
    drop(second);
    eventually("the last ended", async || {
        (server.connections() == 0).then_some(())
    })
    .await;
    assert!(sets.has_changed().is_err(), "readers learn that it ended");
}

#[tokio::test]
async fn a_wrong_address_is_said_and_watched_on() {
    let nowhere = Config::new("no-such-host.invalid:8500");
    // A port that was just freed refuses connections.
    let port = FakeServer::start(|_| Reply::hang())
        .await
        .unwrap()
        .address()
        .port();
    let refused = Config::new(format!("127.0.0.1:{port}"));
    for config in [nowhere, refused] {
        let instancer = watch_of(&config);
        let set = until(&mut instancer.watch(), |set| set.error.is_some()).await;
        let error = set.error.unwrap();
        assert!(
            matches!(*error, RegistryError::Unreachable { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(&config.address), "{error}");
        assert_eq!(set.confirmed, None);
    }
}

#[test]
fn what_can_never_be_asked_is_refused() {
    let consul = Consul::new(&Config::default()).unwrap();
    for service in ["", "a//b", "..", "/"] {
        assert!(
            consul.instancer(&Query::new(service)).is_err(),
            "{service:?} was taken"
        );
    }
    let empty_tag = Query::new("trim_service").with_tags([""]);
    assert!(consul.instancer(&empty_tag).is_err());
}

#[test]
fn outside_a_runtime_every_call_is_an_error() {
    let consul = Consul::new(&Config::default()).unwrap();
    needs_a_runtime(&consul, Check::None);
}

#[tokio::test]
async fn names_and_tags_arrive_as_they_are() {
    let server = FakeServer::start(|_| Reply::hang()).await.unwrap();
    let consul = Consul::new(&config(&server)).unwrap();
    let query = Query::new("trim service/ü?")
        .with_tags(["a&b=c", "d e"])
        .with_datacenter("dc2");
    let _instancer = consul.instancer(&query).unwrap();
    eventually("asked", async || {
        (!server.requests().is_empty()).then_some(())
    })
    .await;
    let request = &server.requests()[0];
    assert_eq!(
        request.path,
        "/v1/health/service/trim%20service%2F%C3%BC%3F"
    );
    // Instances that do not pass are known as well.
    let expected = [("tag", "a&b=c"), ("tag", "d e"), ("dc", "dc2")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(request.query, expected);
}

#[tokio::test]
async fn a_heartbeat_that_stalls_is_sent_again_before_it_is_missed() {
    let beats = Arc::new(AtomicU64::new(0));
    let counted = beats.clone();
    let held = json!({"ID": "trim_service-127.0.0.1-8975", "Service": "trim_service",
                      "Address": "127.0.0.1", "Port": 8975, "Tags": [], "Meta": {},
                      "Weights": {"Passing": 1, "Warning": 1}});
    let server = FakeServer::start(move |request: &Request| {
        if request.path.starts_with("/v1/agent/check/pass/") {
            // The registration sends the first one.
            match counted.fetch_add(1, SeqCst) {
                1 => Reply::hang(),
                _ => Reply::new(200, &[], ""),
            }
        } else if request.method == "PUT" {
            Reply::new(200, &[], "")
        } else if request.parameter("hash").is_none() {
            Reply::new(200, &[("X-Consul-ContentHash", "1")], held.to_string())
        } else {
            Reply::hang()
        }
    })
    .await
    .unwrap();
    let ttl = Duration::from_secs(6);
    let consul = Consul::new(&config(&server)).unwrap();
    let registration = consul.registration(registration(8975, Check::ttl(ttl)));
    let registrar = Registrar::start(registration.unwrap()).unwrap();
    let third = eventually("a third heartbeat", async || {
        (beats.load(SeqCst) > 2).then(|| registrar.state().borrow().clone())
    });
    assert!(third.await.is_registered());
    let is_registration = |request: &&Request| request.path.ends_with("/register");
    assert_eq!(server.requests().iter().filter(is_registration).count(), 1);
}
