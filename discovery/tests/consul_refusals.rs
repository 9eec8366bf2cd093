//! Registrations with a Consul that refuses, denies, or does not show what it accepted. The server is a
//! fake, because a real Consul does not do this on demand.

#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake_consul;
mod sets;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    Registrar, RegistrationState,
    registry::{
        Check, Registry, RegistryError,
        consul::{Config, Consul},
    },
};
use serde_json::{Value, json};
use testkit::fake::{FakeServer, Reply, Request};
use tokio::time::Instant;

use crate::{
    fake_consul::{config, list, watch_of},
    sets::{eventually, ids, registration, until, within},
};

const LIMIT: Duration = Duration::from_secs(15);

/// The answer of an agent to the requests about a registration at port 8975.
fn agent(request: &Request) -> Reply {
    if request.method == "PUT" {
        return Reply::new(200, &[], "");
    }
    if request.parameter("hash").is_some() {
        return Reply::hang();
    }
    let held = json!({"Service": "trim_service", "Address": "127.0.0.1", "Port": 8975,
                      "Tags": [], "Meta": {}, "Weights": {"Passing": 1, "Warning": 1}});
    Reply::new(200, &[("X-Consul-ContentHash", "1")], held.to_string())
}

async fn register(config: &Config) -> Registrar {
    let consul = Consul::new(config).unwrap();
    let client = consul
        .registration(registration(8975, Check::None))
        .unwrap();
    let registrar = Registrar::start(client).unwrap();
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    within(LIMIT, registered).await.unwrap();
    registrar
}

fn count(server: &FakeServer, part: &str) -> usize {
    let requests = server.requests();
    requests.iter().filter(|r| r.path.contains(part)).count()
}

#[tokio::test]
async fn a_deregistration_is_asked_again_after_an_overload() {
    for (status, headers, at_least) in [
        (429, &[("Retry-After", "1")][..], Duration::from_secs(1)),
        (429, &[], Duration::ZERO),
        (408, &[], Duration::ZERO),
        (503, &[], Duration::ZERO),
    ] {
        let refused = Mutex::new(false);
        let server = FakeServer::start(move |request: &Request| {
            let is_first = || !std::mem::replace(&mut *refused.lock().unwrap(), true);
            if request.path.contains("/deregister/") && is_first() {
                return Reply::new(status, headers, "too many requests");
            }
            agent(request)
        });
        let server = server.await.unwrap();
        let registrar = register(&config(&server)).await;
        let begun = Instant::now();
        registrar.deregister(LIMIT).await.unwrap();
        assert!(begun.elapsed() >= at_least, "{status}");
        assert_eq!(count(&server, "/deregister/"), 2, "{status}");
    }
}

#[tokio::test]
async fn a_wait_longer_than_the_limit_leaves_time_for_another_request() {
    let server = FakeServer::start(|request: &Request| {
        if request.path.contains("/deregister/") {
            return Reply::new(429, &[("Retry-After", "600")], "too many requests");
        }
        agent(request)
    });
    let server = server.await.unwrap();
    let registrar = register(&config(&server)).await;
    let error = registrar
        .deregister(Duration::from_secs(2))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Busy { .. }), "{error}");
    assert!(count(&server, "/deregister/") > 1);
}

/// A server that denies requests without the current token.
async fn guarded(token: &Arc<Mutex<&'static str>>) -> FakeServer {
    let token = Arc::clone(token);
    let server = FakeServer::start(move |request: &Request| {
        if request.header("x-consul-token") != Some(*token.lock().unwrap()) {
            return Reply::new(403, &[], "ACL not found");
        }
        if request.path.starts_with("/v1/health/service/") {
            return match request.parameter("index") {
                None => Reply::consul(5, list(&["a"])),
                Some(_) => Reply::consul(5, list(&["a"])).delayed(fake_consul::HELD),
            };
        }
        agent(request)
    });
    server.await.unwrap()
}

#[tokio::test]
async fn a_token_file_is_read_again_when_it_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "one\n").unwrap();
    let token = Arc::new(Mutex::new("one"));
    let server = guarded(&token).await;
    let config = config(&server).with_token_file(file.path());
    let registrar = register(&config).await;
    let instancer = watch_of(&config);
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["a"]).await;
    // Consul takes the new token before the file has it, and denies the old one meanwhile.
    *token.lock().unwrap() = "another";
    until(&mut sets, |set| set.error.is_some()).await;
    fs::write(&file, "another\n").unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
    registrar.deregister(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_token_of_the_same_length_and_time_is_found_after_a_denial() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "one").unwrap();
    let modified = fs::metadata(file.path()).unwrap().modified().unwrap();
    let token = Arc::new(Mutex::new("one"));
    let server = guarded(&token).await;
    let registrar = register(&config(&server).with_token_file(file.path())).await;
    fs::write(&file, "two").unwrap();
    file.as_file().set_modified(modified).unwrap();
    *token.lock().unwrap() = "two";
    registrar.deregister(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_token_file_that_cannot_be_read_leaves_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "one").unwrap();
    let token = Arc::new(Mutex::new("one"));
    let server = guarded(&token).await;
    let registrar = register(&config(&server).with_token_file(&file)).await;
    fs::remove_file(&file).unwrap();
    registrar.deregister(LIMIT).await.unwrap();
}

/// A server whose catalog has these entries and nodes.
async fn catalog(entries: Value, nodes: Value) -> FakeServer {
    let server = FakeServer::start(move |request: &Request| {
        if request.path.starts_with("/v1/catalog/service/") {
            Reply::consul(1, entries.to_string())
        } else if request.path == "/v1/catalog/nodes" {
            Reply::consul(1, nodes.to_string())
        } else if request.path.starts_with("/v1/catalog/node/") {
            Reply::consul(1, "null")
        } else {
            agent(request)
        }
    });
    server.await.unwrap()
}

#[tokio::test]
async fn an_instance_that_the_catalog_lacks_is_registered_again() {
    let server = catalog(json!([]), json!([{"Node": "n"}])).await;
    let registrar = register(&config(&server)).await;
    let mut state = registrar.state();
    let invisible = |state: &RegistrationState| {
        matches!(state, RegistrationState::Registering(Some(error))
                 if matches!(**error, RegistryError::Invisible { .. }))
    };
    within(LIMIT, state.wait_for(invisible)).await.unwrap();
    let again = async || (count(&server, "/service/register") > 1).then_some(());
    eventually("registered again", again).await;
}

#[tokio::test]
async fn an_instance_that_may_not_be_seen_is_not_taken_for_lost() {
    // A token without the right to read nodes sees none.
    let hidden = catalog(json!([]), json!([])).await;
    let entry = json!({"Node": "n", "ServiceID": "trim_service-127.0.0.1-8975"});
    // A node without the service under it, which the search finds all the same.
    let found = catalog(json!([entry]), json!([{"Node": "n"}])).await;
    let registrars = [
        register(&config(&hidden)).await,
        register(&config(&found)).await,
    ];
    let looked = async || {
        let seen = count(&hidden, "/v1/catalog/nodes") > 0 && count(&found, "/catalog/service") > 1;
        seen.then_some(())
    };
    eventually("looked for", looked).await;
    for server in [&hidden, &found] {
        assert_eq!(count(server, "/service/register"), 1);
    }
    drop(registrars);
}

#[tokio::test]
async fn a_consul_behind_a_path_is_asked_there() {
    let server = FakeServer::start(|request: &Request| match request.path.as_str() {
        "/a%20b/consul/v1/health/service/trim_service" => match request.parameter("index") {
            None => Reply::consul(5, list(&["a"])),
            Some(_) => Reply::hang(),
        },
        _ => Reply::new(404, &[], "not here"),
    });
    let server = server.await.unwrap();
    let instancer = watch_of(&config(&server).with_path("/a b/consul"));
    until(&mut instancer.watch(), |set| ids(set) == ["a"]).await;
}

#[tokio::test]
async fn a_check_that_has_not_run_yet_does_not_count_as_passing() {
    let ran = Arc::new(Mutex::new(("critical", "connection refused")));
    let result = Arc::clone(&ran);
    let server = FakeServer::start(move |request: &Request| {
        if request.path.starts_with("/v1/agent/health/service/id/") {
            let (status, output) = *result.lock().unwrap();
            let check = json!({"CheckID": "service:trim_service-127.0.0.1-8975",
                               "Status": status, "Output": output});
            return Reply::new(200, &[], json!({"Checks": [check]}).to_string());
        }
        agent(request)
    });
    let server = server.await.unwrap();
    let consul = Consul::new(&config(&server)).unwrap();
    let check = Check::grpc().with_interval(Duration::from_secs(1));
    let client = consul.registration(registration(8975, check)).unwrap();
    let registrar = Registrar::start(client).unwrap();
    let mut state = registrar.state();
    let critical = |state: &RegistrationState| state.is_registered() && !state.is_passing();
    within(LIMIT, state.wait_for(critical)).await.unwrap();
    // As the agent shows a check that was registered anew.
    *ran.lock().unwrap() = ("passing", "");
    let read = count(&server, "/health/service/id/");
    let read_twice = async || (count(&server, "/health/service/id/") > read + 1).then_some(());
    eventually("read twice", read_twice).await;
    assert!(critical(&registrar.state().borrow()));
    *ran.lock().unwrap() = ("passing", "gRPC check 127.0.0.1:8975: success");
    let passing = state.wait_for(RegistrationState::is_passing);
    within(LIMIT, passing).await.unwrap();
}

#[tokio::test]
async fn a_quiet_watch_is_confirmed_again_within_the_stated_bound() {
    let server = FakeServer::start(|request: &Request| match request.parameter("index") {
        None => Reply::consul(5, list(&["a"])),
        Some(_) => Reply::consul(5, list(&["a"])).delayed(Duration::from_secs(1)),
    });
    let server = server.await.unwrap();
    let instancer = watch_of(&config(&server));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    let first = sets.borrow_and_update().confirmed;
    let later = async || (sets.borrow().confirmed > first).then_some(());
    let begun = Instant::now();
    eventually("confirmed again", later).await;
    // The wait of one second, a sixteenth of it, and 5 s.
    assert!(begun.elapsed() < Duration::from_millis(6_063));
    assert!(!sets.has_changed().unwrap(), "no reader is woken");
}
