use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::instance::InstanceHealth;

/// Written by Curator 5.9 without a payload.
const CURATOR: &str = r#"{"name":"trim_service","id":"trim_service-127.0.0.1-8975","address":"127.0.0.1","port":8975,"sslPort":null,"payload":null,"registrationTimeUTC":1795579889734,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;

/// Written by Spring Cloud ZooKeeper.
const SPRING: &str = r#"{"name":"trim_service","id":"897930a5-c9f9-48e8-a6ea-f3426a23e2e2","address":"127.0.0.1","port":52659,"sslPort":null,"payload":{"@class":"org.springframework.cloud.zookeeper.discovery.ZookeeperInstance","id":"trim_service","name":"trim_service","metadata":{"zone":"z1","instance_status":"UP"}},"registrationTimeUTC":1795579891715,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},{"value":":","variable":false},{"value":"port","variable":true}]}}"#;

/// The name that Go kit gave its node.
const GO_KIT: &str = "_c_4d32d6e5ab88420c51c669b6c4a6e5f8-0000000000";

fn read(layout: Layout, name: &str, data: impl AsRef<[u8]>) -> Result<Instance, String> {
    let query = Query::new("trim_service");
    let instance = layout.decode(name, data.as_ref(), &query)?;
    Ok(instance.expect("the query has no filter"))
}

fn instance() -> Instance {
    Instance::named("trim_service", [127, 0, 0, 1].into(), 8975).unwrap()
}

#[test]
fn what_curator_and_spring_wrote_is_read() {
    let curator = read(Layout::Curator, "trim_service-127.0.0.1-8975", CURATOR).unwrap();
    assert_eq!(curator, instance());
    let id = "897930a5-c9f9-48e8-a6ea-f3426a23e2e2";
    let spring = Instance::new("127.0.0.1", 52659).unwrap();
    let spring = spring.with_id(id).with_service("trim_service");
    let spring = spring.with_zone("z1").with_health(InstanceHealth::Passing);
    assert_eq!(read(Layout::Curator, id, SPRING).unwrap(), spring);
}

#[test]
fn an_instance_is_written_as_spring_writes_it() {
    let mut expected: Value = serde_json::from_str(SPRING).unwrap();
    let id = "trim_service-127.0.0.1-8975";
    expected["id"] = json!(id);
    expected["port"] = json!(8975);
    expected["payload"]["id"] = json!(id);
    let instance = instance().with_zone("z1");
    let written = Layout::Curator
        .encode(&instance, 1_795_579_891_715)
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
}

#[test]
fn what_was_written_is_read() {
    let full = instance()
        .with_tags(["blue", "fast"])
        .with_meta([("version", "2")])
        .with_weight(7)
        .with_zone("a");
    let written = Layout::Curator.encode(&full, 0).unwrap();
    let expected = full.with_health(InstanceHealth::Passing);
    assert_eq!(read(Layout::Curator, &expected.id, written), Ok(expected));
    let written = Layout::GoKit.encode(&instance(), 0).unwrap();
    assert_eq!(written, b"127.0.0.1:8975");
    let id = instance().id;
    assert_eq!(read(Layout::GoKit, &id, written), Ok(instance()));
}

#[test]
fn go_kits_own_nodes_are_named_by_their_address() {
    for data in ["127.0.0.1:8975", " 127.0.0.1:8975\n"] {
        let instance = read(Layout::GoKit, GO_KIT, data).unwrap();
        assert_eq!((&*instance.id, instance.port), ("127.0.0.1:8975", 8975));
    }
}

#[test]
fn what_a_layout_cannot_hold_is_refused() {
    let refused = [
        instance().with_tags(["a"]),
        instance().with_meta([("a", "b")]),
        instance().with_weight(2),
        instance().with_zone("a"),
    ];
    for instance in refused {
        let reason = Layout::GoKit.encode(&instance, 0).unwrap_err();
        assert!(reason.contains("use layout=curator"), "{reason}");
        assert!(Layout::Curator.encode(&instance, 0).is_ok());
    }
    let comma = instance().with_tags(["a,b"]);
    assert!(Layout::Curator.encode(&comma, 0).is_err());
    let tags = Query::new("trim_service").with_tags(["a"]);
    assert!(Layout::GoKit.check(&tags).is_err());
    assert!(Layout::Curator.check(&tags).is_ok());
}

#[test]
fn a_node_that_cannot_be_used_is_refused_by_name() {
    let change = |member: &str, value: Value| {
        let mut node: Value = serde_json::from_str(SPRING).unwrap();
        node[member] = value;
        node.to_string()
    };
    let unusable = [
        change("address", Value::Null),
        change("address", json!("")),
        change("address", json!("0.0.0.0")),
        change("address", json!(17)),
        change("port", Value::Null),
        change("port", json!(0)),
        change("port", json!(-1)),
        change("port", json!(70000)),
        change("port", json!("80")),
        "null".to_owned(),
        "[]".to_owned(),
        "127.0.0.1:8975".to_owned(),
        String::new(),
        "[".repeat(100_000),
    ];
    for data in unusable {
        let reason = read(Layout::Curator, "the-node", &data).unwrap_err();
        assert!(reason.starts_with("the-node: "), "{reason}");
    }
    for data in [&b""[..], b"127.0.0.1", b"127.0.0.1:0", b"{}", b"\xff:80"] {
        assert!(read(Layout::GoKit, GO_KIT, data).is_err(), "{data:?}");
    }
}

#[test]
fn health_and_ports_are_read_as_spring_means_them() {
    let with = |change: fn(&mut Value)| {
        let mut node: Value = serde_json::from_str(SPRING).unwrap();
        change(&mut node);
        read(Layout::Curator, "a", node.to_string()).unwrap()
    };
    let status = |status: &'static str| {
        let mut node: Value = serde_json::from_str(SPRING).unwrap();
        node["payload"]["metadata"]["instance_status"] = json!(status);
        read(Layout::Curator, "a", node.to_string()).unwrap().health
    };
    assert_eq!(status("UP"), InstanceHealth::Passing);
    assert_eq!(status("OUT_OF_SERVICE"), InstanceHealth::Critical);
    assert_eq!(status(""), InstanceHealth::Unknown);
    let disabled = with(|node| node["enabled"] = json!(false));
    assert_eq!(disabled.health, InstanceHealth::Critical);
    let tls_only = with(|node| {
        node["port"] = Value::Null;
        node["sslPort"] = json!(443);
    });
    assert_eq!(tls_only.port, 443);
    let both = with(|node| node["sslPort"] = json!(443));
    assert_eq!((both.port, &*both.meta["sslPort"]), (52659, "443"));
}

#[test]
fn any_payload_is_read() {
    let with = |payload: Value| {
        let mut node: Value = serde_json::from_str(CURATOR).unwrap();
        node["payload"] = payload;
        read(Layout::Curator, "a", node.to_string()).unwrap()
    };
    let own = with(json!({"@class": "java.util.HashMap", "version": "2", "n": 1, "o": {}}));
    let meta: Vec<_> = own.meta.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(meta, [("n", "1"), ("version", "2")]);
    for payload in [json!("text"), json!(["a"]), json!({"metadata": 1})] {
        assert!(with(payload).meta.is_empty());
    }
    let odd = with(json!({"metadata": {"weight": "heavy", "tags": " a ,,b", "zone": ""}}));
    assert_eq!((odd.weight, &odd.zone), (1, &None));
    assert_eq!(odd.tags, ["a", "b"]);
    assert_eq!(with(json!({"metadata": {"weight": "0"}})).weight, 1);
}

#[test]
fn an_instance_has_all_wanted_tags_in_any_case() {
    let node = Layout::Curator.encode(&instance().with_tags(["Blue", "x"]), 0);
    let node = node.unwrap();
    let found = |tags: &[&str]| {
        let query = Query::new("trim_service").with_tags(tags.iter().copied());
        Layout::Curator
            .decode("a", &node, &query)
            .unwrap()
            .is_some()
    };
    assert!(found(&[]) && found(&["blue"]) && found(&["X", "Blue"]));
    assert!(!found(&["green"]) && !found(&["blue", "green"]));
}

proptest! {
    #[test]
    fn no_data_ends_the_program(data in proptest::collection::vec(any::<u8>(), 0..256)) {
        for layout in [Layout::Curator, Layout::GoKit] {
            if let Ok(instance) = read(layout, "a", &data) {
                prop_assert!(instance.validate().is_ok());
            }
        }
    }
}
