//! The watch of services in a real Consul.

#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod sets;

use std::{sync::Arc, time::Duration};

use discovery::{
    InstanceHealth,
    registry::{self, InstanceSet, Instancer, Query},
};
use serde_json::{Value, json};
use testkit::Consul;
use tokio::time::Instant;

use crate::sets::{ids, until, within};

fn watch_of(consul: &Consul, query: &Query) -> Arc<dyn Instancer> {
    let registry = registry::connect(&consul.url()).unwrap();
    registry.instancer(query).unwrap()
}

async fn register(consul: &Consul, id: &str, more: Value) {
    let mut body = json!({"ID": id, "Name": "trim_service", "Address": "127.0.0.1", "Port": 8975});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    consul
        .put("/v1/agent/service/register", &body)
        .await
        .unwrap();
}

async fn deregister(consul: &Consul, id: &str) {
    let path = format!("/v1/agent/service/deregister/{id}");
    consul.put(&path, &Value::Null).await.unwrap();
}

/// The IDs of the instances that pass their checks.
fn usable(set: &InstanceSet) -> Vec<&str> {
    set.usable().map(|i| &*i.id).collect()
}

async fn set_check(consul: &Consul, state: &str, id: &str) {
    let path = format!("/v1/agent/check/{state}/service:{id}");
    consul.put(&path, &Value::Null).await.unwrap();
}

#[tokio::test]
async fn follows_instances_as_they_come_fall_sick_and_go() {
    let consul = Consul::start().await.unwrap();
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    // A service without registrations is empty, not an error.
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), [""; 0]);
    assert!(set.error.is_none());

    let ttl = json!({"Check": {"TTL": "60s", "Status": "passing"}});
    register(&consul, "a", ttl.clone()).await;
    until(&mut sets, |set| ids(set) == ["a"]).await;
    register(&consul, "b", ttl).await;
    let both = until(&mut sets, |set| ids(set) == ["a", "b"]).await;
    set_check(&consul, "fail", "a").await;
    let set = until(&mut sets, |set| usable(set) == ["b"]).await;
    assert_eq!(ids(&set), ["a", "b"], "a failing instance stays known");
    assert_eq!(set.instances[0].health, InstanceHealth::Critical);
    assert!(
        Arc::ptr_eq(&both.instances[1], &set.instances[1]),
        "an unchanged instance keeps its allocation"
    );
    set_check(&consul, "warn", "a").await;
    let warns = |set: &InstanceSet| set.instances[0].health == InstanceHealth::Warning;
    until(&mut sets, warns).await;
    set_check(&consul, "pass", "a").await;
    until(&mut sets, |set| usable(set) == ["a", "b"]).await;
    deregister(&consul, "a").await;
    until(&mut sets, |set| ids(set) == ["b"]).await;
    deregister(&consul, "b").await;
    let set = until(&mut sets, |set| set.instances.is_empty()).await;
    assert!(set.error.is_none());
}

#[tokio::test]
async fn a_lone_change_is_seen_at_once() {
    let consul = Consul::start().await.unwrap();
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    let started = Instant::now();
    register(&consul, "a", json!({})).await;
    until(&mut sets, |set| ids(set) == ["a"]).await;
    let took = started.elapsed();
    // This takes milliseconds on a quiet machine. A poll would take half a second or more.
    assert!(took < Duration::from_millis(400), "{took:?}");
}

#[tokio::test]
async fn knows_what_was_registered() {
    let consul = Consul::start().await.unwrap();
    let more = json!({
        "Tags": ["blue"], "Meta": {"zone": "a", "version": "2"},
        "Weights": {"Passing": 10, "Warning": 3}, "Check": {"TTL": "60s", "Status": "passing"},
    });
    register(&consul, "a", more).await;
    register(&consul, "nowhere", json!({"Port": 0})).await;
    register(&consul, "too high", json!({"Port": 70000})).await;
    register(&consul, "on the node", json!({"Address": ""})).await;
    let query = Query::new("trim_service").with_passing_only(false);
    let instancer = watch_of(&consul, &query);
    let mut sets = instancer.watch();
    let set = until(&mut sets, |set| ids(set) == ["a", "on the node"]).await;
    let a = &set.instances[0];
    assert_eq!(
        (a.authority().as_str(), &*a.service),
        ("127.0.0.1:8975", "trim_service")
    );
    assert_eq!(
        (a.tags.clone(), a.meta["version"].as_str()),
        (vec!["blue".to_owned()], "2")
    );
    assert_eq!(
        (a.zone.as_deref(), a.datacenter.as_deref(), a.weight),
        (Some("a"), Some("dc1"), 10)
    );
    assert_eq!(set.instances[1].authority(), "127.0.0.1:8975");

    set_check(&consul, "warn", "a").await;
    until(&mut sets, |set| set.instances[0].weight == 3).await;
}

#[tokio::test]
async fn all_wanted_tags_must_be_there() {
    let consul = Consul::start().await.unwrap();
    register(&consul, "both", json!({"Tags": ["Blue", "eu"]})).await;
    register(&consul, "one", json!({"Tags": ["blue"]})).await;
    register(&consul, "none", json!({})).await;
    for (tags, expected) in [
        (vec![], vec!["both", "none", "one"]),
        (vec!["blue"], vec!["both", "one"]),
        (vec!["blue", "EU"], vec!["both"]),
    ] {
        let query = Query::new("trim_service").with_tags(tags);
        let instancer = watch_of(&consul, &query);
        until(&mut instancer.watch(), |set| ids(set) == expected).await;
    }
    let unknown = Query::new("trim_service").with_tags(["blue", "us"]);
    let instancer = watch_of(&consul, &unknown);
    let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
    assert!(set.instances.is_empty() && set.error.is_none());
}

#[tokio::test]
async fn a_large_service_on_many_nodes_arrives_whole() {
    let consul = Consul::start().await.unwrap();
    // The default ID is the service name, the same on each node.
    for node in 0..300 {
        let body = json!({
            "Node": format!("node-{node}"), "Address": "127.0.0.1",
            "Service": {"Service": "trim_service", "Port": 10_000 + node},
        });
        consul.put("/v1/catalog/register", &body).await.unwrap();
    }
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let set = until(&mut instancer.watch(), |set| set.instances.len() == 300).await;
    let ports: std::collections::BTreeSet<_> = set.instances.iter().map(|i| i.port).collect();
    assert_eq!(ports.len(), 300);
    assert_eq!(set.instances[0].id, "trim_service@node-0");
}

#[tokio::test]
async fn a_stopped_consul_changes_nothing_and_is_followed_again() {
    let consul = Consul::start().await.unwrap();
    register(&consul, "a", json!({})).await;
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["a"]).await;
    consul.pause().unwrap();
    // There is no condition to wait for when nothing may happen.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ids(&sets.borrow()), ["a"]);
    consul.resume().unwrap();
    register(&consul, "b", json!({})).await;
    until(&mut sets, |set| ids(set) == ["a", "b"]).await;
}

#[tokio::test]
async fn a_killed_consul_leaves_the_set_and_its_successor_is_followed() {
    let mut consul = Consul::start().await.unwrap();
    for n in 0..5 {
        register(&consul, &format!("a{n}"), json!({})).await;
    }
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    let before = until(&mut sets, |set| set.instances.len() == 5).await;
    consul.kill().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), ids(&before));
    // The new index is lower than the old one, which must not hide the changes.
    consul.restart().await.unwrap();
    let seen = async {
        register(&consul, "b", json!({})).await;
        until(&mut sets, |set| ids(set) == ["b"]).await
    };
    let set = within(Duration::from_secs(7), seen).await;
    assert!(set.error.is_none());
    assert!(set.confirmed > before.confirmed);
}

#[tokio::test]
async fn a_consul_that_keeps_its_data_has_its_instances_back() {
    let mut consul = Consul::options().data_dir().start().await.unwrap();
    register(&consul, "a", json!({})).await;
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["a"]).await;
    consul.terminate().await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), ["a"]);
    consul.restart().await.unwrap();
    until(&mut sets, |set| set.error.is_none() && usable(set) == ["a"]).await;
}

#[tokio::test]
async fn a_new_output_of_a_check_wakes_no_reader() {
    let consul = Consul::start().await.unwrap();
    let ttl = json!({"Check": {"TTL": "60s", "Status": "passing"}});
    register(&consul, "a", ttl).await;
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["a"]).await;
    sets.borrow_and_update();
    for note in ["one", "two"] {
        let path = format!("/v1/agent/check/pass/service:a?note={note}");
        consul.put(&path, &Value::Null).await.unwrap();
    }
    // The next change of the instance arrives after the notes.
    set_check(&consul, "warn", "a").await;
    sets.changed().await.unwrap();
    let set = sets.borrow_and_update().clone();
    assert_eq!(set.instances[0].health, InstanceHealth::Warning);
    assert!(!sets.has_changed().unwrap());
}

#[tokio::test]
async fn maintenance_of_the_instance_or_its_node_is_seen() {
    let consul = Consul::start().await.unwrap();
    register(&consul, "a", json!({})).await;
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    until(&mut sets, |set| usable(set) == ["a"]).await;
    for path in ["/v1/agent/service/maintenance/a", "/v1/agent/maintenance"] {
        for (enable, health) in [
            (true, InstanceHealth::Critical),
            (false, InstanceHealth::Passing),
        ] {
            let path = format!("{path}?enable={enable}");
            consul.put(&path, &Value::Null).await.unwrap();
            until(&mut sets, |set| set.instances[0].health == health).await;
        }
    }
}

fn watch_with(consul: &Consul, settings: &str, service: &str) -> Arc<dyn Instancer> {
    let url = format!("{}?{settings}", consul.url());
    let registry = registry::connect(&url).unwrap();
    registry.instancer(&Query::new(service)).unwrap()
}

#[tokio::test]
async fn consul_evaluates_a_filter() {
    let consul = Consul::start().await.unwrap();
    for (id, version) in [("a", "1"), ("b", "2")] {
        register(&consul, id, json!({"Meta": {"version": version}})).await;
    }
    let filter = "filter=Service.Meta.version == \"2\"";
    let instancer = watch_with(&consul, filter, "trim_service");
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == ["b"]).await;
    register(&consul, "c", json!({"Meta": {"version": "2"}})).await;
    until(&mut sets, |set| ids(set) == ["b", "c"]).await;

    let wrong = watch_with(&consul, "filter=Nonsense == 1", "trim_service");
    let set = until(&mut wrong.watch(), |set| set.error.is_some()).await;
    let error = set.error.unwrap().to_string();
    assert!(error.contains("Nonsense"), "{error}");
}

#[tokio::test]
async fn a_prepared_query_is_executed_again_and_again() {
    let consul = Consul::start().await.unwrap();
    let query = json!({"Name": "blue", "Service": {"Service": "trim_service", "Tags": ["blue"]}});
    let url = format!("http://{}/v1/query", consul.address());
    let made = testkit::http_client()
        .unwrap()
        .post(url)
        .json(&query)
        .send();
    assert!(made.await.unwrap().status().is_success());
    let instancer = watch_with(&consul, "prepared=true", "blue");
    let mut sets = instancer.watch();
    let empty = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(empty.instances.is_empty() && empty.error.is_none());
    register(&consul, "a", json!({"Tags": ["blue"]})).await;
    register(&consul, "b", json!({"Tags": ["green"]})).await;
    until(&mut sets, |set| ids(set) == ["a"]).await;
    deregister(&consul, "a").await;
    until(&mut sets, |set| set.instances.is_empty()).await;

    let unknown = watch_with(&consul, "prepared=true", "no-such-query");
    let set = until(&mut unknown.watch(), |set| set.error.is_some()).await;
    let error = set.error.unwrap().to_string();
    assert!(error.contains("status 404"), "{error}");
    // Settings that a prepared query does not have are refused.
    let registry = registry::connect(&format!("{}?prepared=true", consul.url())).unwrap();
    let all = Query::new("blue").with_passing_only(false);
    let refused = registry.instancer(&all).map(drop).unwrap_err().to_string();
    assert!(refused.contains("critical"), "{refused}");
}

#[tokio::test]
async fn an_instance_keeps_its_id_when_one_of_the_same_id_leaves() {
    let consul = Consul::start().await.unwrap();
    let on = |node: &str, port: u16| json!({"Node": node, "Address": "127.0.0.1", "Service": {"ID": "a", "Service": "trim_service", "Port": port}});
    for (node, port) in [("n1", 1), ("n2", 2)] {
        let path = "/v1/catalog/register";
        consul.put(path, &on(node, port)).await.unwrap();
    }
    let instancer = watch_of(&consul, &Query::new("trim_service"));
    let mut sets = instancer.watch();
    let both = until(&mut sets, |set| ids(set) == ["a@n1", "a@n2"]).await;
    let gone = json!({"Node": "n1", "ServiceID": "a"});
    consul.put("/v1/catalog/deregister", &gone).await.unwrap();
    let one = until(&mut sets, |set| set.instances.len() == 1).await;
    assert!(Arc::ptr_eq(&one.instances[0], &both.instances[1]));
}
