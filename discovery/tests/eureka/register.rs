//! Registrations with a Eureka that refuses, forgets, or keeps another entry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::{
    RegistrationState,
    registry::{Check, RegistryError},
};
use serde_json::json;
use testkit::fake::Reply;

use crate::{
    fake::FakeEureka,
    sets::{eventually, registration},
    support::{ID, client, registered, until_state},
};

/// The shortest lease. It is renewed every two thirds of a second.
fn short() -> Check {
    Check::ttl(Duration::from_secs(2))
}

#[tokio::test]
async fn a_registration_is_what_eureka_takes_and_is_removed_in_order() {
    let fake = FakeEureka::start().await;
    let client = client(&fake.url(), registration(8975, Check::Default));
    client.register().await.unwrap();
    let entry = fake.state().entry.clone().unwrap();
    assert_eq!(entry["instanceId"], ID);
    assert_eq!(entry["app"], "TRIM_SERVICE");
    assert_eq!(entry["vipAddress"], "trim_service");
    assert_eq!(entry["status"], "UP");
    assert_eq!(
        entry["leaseInfo"],
        json!({ "renewalIntervalInSecs": 10, "durationInSecs": 15 })
    );
    let requests = fake.server.requests();
    let methods: Vec<_> = requests.iter().map(|r| r.method.as_str()).collect();
    assert_eq!(methods, ["POST", "GET", "PUT"]);
    assert_eq!(requests[0].path, "/eureka/apps/TRIM_SERVICE");
    assert_eq!(requests[2].path, format!("/eureka/apps/TRIM_SERVICE/{ID}"));
    let dirty = entry["lastDirtyTimestamp"].to_string();
    assert_eq!(requests[2].parameter("lastDirtyTimestamp"), Some(&*dirty));
    assert_eq!(requests[2].parameter("status"), Some("UP"));
    client.deregister().await.unwrap();
    assert!(fake.state().entry.is_none());
    // Should a cache keep a list from before the removal, no client calls the instance.
    assert_eq!(fake.state().posts.last().unwrap()["status"], "DOWN");
    client.deregister().await.unwrap();
}

#[tokio::test]
async fn a_forgotten_instance_registers_again() {
    let fake = FakeEureka::start().await;
    let registrar = registered(client(&fake.url(), registration(8975, short()))).await;
    fake.state().entry = None;
    eventually("registered again", async || {
        fake.state().entry.is_some().then_some(())
    })
    .await;
    registrar.deregister(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn the_entry_of_a_process_whose_clock_was_ahead_is_replaced() {
    let fake = FakeEureka::start().await;
    let later = i64::MAX - 7;
    fake.state().entry = Some(
        json!({ "instanceId": ID, "ipAddr": "10.0.0.1", "status": "UP",
        "port": { "$": 1 }, "lastDirtyTimestamp": later }),
    );
    let client = client(&fake.url(), registration(8975, Check::Default));
    client.register().await.unwrap();
    let entry = fake.state().entry.clone().unwrap();
    assert_eq!(entry["port"]["$"], 8975);
    assert_eq!(entry["lastDirtyTimestamp"], later + 1);
}

#[tokio::test]
async fn an_entry_that_cannot_be_replaced_is_said() {
    let other = json!({ "instance": { "instanceId": ID, "ipAddr": "10.0.0.1", "status": "UP",
        "port": { "$": 1 } } });
    let fake = FakeEureka::with(move |request, _| {
        (request.method == "GET").then(|| Reply::new(200, &[], other.to_string()))
    })
    .await;
    let client = client(&fake.url(), registration(8975, Check::Default));
    let error = client.register().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Overwritten { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("10.0.0.1:1"), "{error}");
    assert_eq!(fake.state().posts.len(), 3);
}

#[tokio::test]
async fn the_entry_of_another_process_is_found_and_overwritten() {
    let fake = FakeEureka::start().await;
    let registrar = registered(client(&fake.url(), registration(8975, short()))).await;
    let mut other = fake.state().entry.clone().unwrap();
    other["ipAddr"] = json!("10.0.0.1");
    fake.state().entry = Some(other);
    let mut lost = None;
    until_state(&registrar, |state| {
        if let RegistrationState::Registering(Some(error)) = state {
            lost = Some(error.to_string());
        }
        lost.is_some()
    })
    .await;
    let lost = lost.unwrap();
    assert!(
        lost.contains("another registration") && lost.contains("10.0.0.1:8975"),
        "{lost}"
    );
    eventually("registered again", async || {
        (fake.state().entry.as_ref()?["ipAddr"] == "127.0.0.1").then_some(())
    })
    .await;
    registrar.deregister(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_renewal_that_stalls_is_sent_again_before_the_lease_ends() {
    let renewals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&renewals);
    let fake = FakeEureka::with(move |request, _| {
        // The registration sends the first one.
        let second = request.method == "PUT" && counted.fetch_add(1, SeqCst) == 1;
        second.then(Reply::hang)
    })
    .await;
    let lease = Check::ttl(Duration::from_secs(4));
    let registrar = registered(client(&fake.url(), registration(8975, lease))).await;
    eventually("a third renewal", async || {
        (renewals.load(SeqCst) > 2).then_some(())
    })
    .await;
    assert!(registrar.state().borrow().is_registered());
}

#[tokio::test]
async fn a_registration_is_repeated_because_a_cached_list_may_lack_it() {
    let fake = FakeEureka::start().await;
    let _registrar = registered(client(&fake.url(), registration(8975, short()))).await;
    // With the first, second and fourth renewal.
    eventually("repeated three times", async || {
        (fake.state().posts.len() == 4).then_some(())
    })
    .await;
    // Each repetition has a renewal of its own.
    assert!(
        (6..=9).contains(&fake.count("PUT")),
        "{}",
        fake.count("PUT")
    );
    let dirty: Vec<_> = fake
        .state()
        .posts
        .iter()
        .map(|p| p["lastDirtyTimestamp"].as_i64())
        .collect();
    assert!(dirty.is_sorted(), "{dirty:?}");
}

#[tokio::test]
async fn a_status_that_an_operator_set_is_shown_and_kept() {
    let fake = FakeEureka::start().await;
    let registrar = registered(client(&fake.url(), registration(8975, short()))).await;
    let set_status = |status: &str| {
        if let Some(entry) = &mut fake.state().entry {
            entry["overriddenStatus"] = json!(status);
        }
    };
    set_status("OUT_OF_SERVICE");
    until_state(&registrar, |state| {
        state.is_registered() && !state.is_passing()
    })
    .await;
    let shown = format!("{:?}", *registrar.state().borrow());
    assert!(
        shown.contains("the status in Eureka is OUT_OF_SERVICE"),
        "{shown}"
    );
    set_status("UNKNOWN");
    until_state(&registrar, RegistrationState::is_passing).await;
}

#[tokio::test]
async fn a_deregistration_is_asked_again_after_an_overload() {
    for (status, headers) in [(429, &[("Retry-After", "1")][..]), (408, &[]), (503, &[])] {
        let refused = AtomicUsize::new(0);
        let fake = FakeEureka::with(move |request, _| {
            let first = request.method == "DELETE" && refused.fetch_add(1, SeqCst) == 0;
            first.then(|| Reply::new(status, headers, "too many requests"))
        })
        .await;
        let registrar = registered(client(&fake.url(), registration(8975, Check::Default))).await;
        registrar.deregister(Duration::from_secs(15)).await.unwrap();
        assert_eq!(fake.count("DELETE"), 2, "{status}");
    }
}

#[tokio::test]
async fn an_id_arrives_as_it_is() {
    let fake = FakeEureka::start().await;
    let mut wanted = registration(8975, Check::Default);
    wanted.instance.id = "192.0.2.2:trim service:ü%;?#".to_owned();
    let client = client(&fake.url(), wanted);
    client.register().await.unwrap();
    client.deregister().await.unwrap();
    let path = "/eureka/apps/TRIM_SERVICE/192.0.2.2%3Atrim%20service%3A%C3%BC%25%3B%3F%23";
    let requests = fake.server.requests();
    assert!(
        requests
            .iter()
            .filter(|r| r.method != "POST")
            .all(|r| r.path == path)
    );
    assert_eq!(fake.count("DELETE"), 1);
}
