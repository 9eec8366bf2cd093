use crate::instance::InstanceHealth;
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::*;

/// A decoded answer of a new watch.
struct Read {
    listing: Listing,
    empty: bool,
}

fn read(entries: &Value, query: &Query) -> Read {
    let decoded = decode(entries.to_string().as_bytes(), query).unwrap();
    Read {
        empty: decoded.empty,
        listing: decoded.into_listing(&mut Names::default()),
    }
}

fn entry(id: &str) -> Value {
    json!({
        "Node": {"ID": "x", "Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1",
                 "Meta": {"zone": "b"}},
        "Service": {"ID": id, "Service": "trim", "Address": "10.0.0.1", "Port": 8975,
                    "Tags": ["Blue", "trim"], "Meta": {"v": "1"},
                    "Weights": {"Passing": 10, "Warning": 2}},
        "Checks": [{"Status": "passing"}, {"Status": "passing"}],
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut entry = entry("a");
    change(&mut entry);
    entry
}

#[test]
fn keeps_all_that_consul_knows() {
    let decoded = read(&json!([entry("a")]), &Query::new("trim"));
    let expected = Instance {
        id: "a".to_owned(),
        service: "trim".to_owned(),
        tags: vec!["Blue".to_owned(), "trim".to_owned()],
        meta: [("v".to_owned(), "1".to_owned())].into(),
        weight: 10,
        zone: Some("b".to_owned()),
        datacenter: Some("dc1".to_owned()),
        health: InstanceHealth::Passing,
        ..Instance::new("10.0.0.1", 8975).unwrap()
    };
    assert_eq!(decoded.listing.instances(), [expected]);
    assert!(decoded.listing.rejected().is_empty());
    assert!(!decoded.empty);
}

#[test]
fn falls_back_where_the_service_says_nothing() {
    let read = |entry: Value| {
        let decoded = read(&json!([entry]), &Query::new("trim"));
        assert!(decoded.listing.rejected().is_empty());
        decoded.listing.instances()[0].clone()
    };
    for empty in [json!(""), json!(null)] {
        assert_eq!(
            read(with(|e| e["Service"]["Address"] = empty)).host,
            "10.0.0.9"
        );
    }
    let zoned = read(with(|e| {
        e["Service"]["Meta"] = json!({"zone": "a", "gone": null});
    }));
    assert_eq!(zoned.zone.as_deref(), Some("a"));
    assert_eq!(zoned.meta.len(), 1);
    let warning = read(with(|e| e["Checks"][1]["Status"] = json!("warning")));
    assert_eq!(warning.weight, 2);
    let unweighted = read(with(|e| e["Service"]["Weights"] = json!(null)));
    assert_eq!(unweighted.weight, 1);
    let never = read(with(|e| e["Service"]["Weights"] = json!({"Passing": 0})));
    assert_eq!(never.weight, 1);
    let bare = read(json!({"Service": {"Port": 1, "Address": "h", "Meta": null, "Tags": null}}));
    assert_eq!((bare.id.as_str(), bare.service.as_str()), ("h:1", "trim"));
    assert_eq!((bare.datacenter, bare.zone), (None, None));
}

#[test]
fn the_health_tells_a_failing_check_from_a_lost_node() {
    use InstanceHealth::{Critical, Lost, Passing, Warning};
    let check = |id: &str, status: &str| json!({"CheckID": id, "Status": status, "Output": "x"});
    let serf = |status| check("serfHealth", status);
    let own = |status| check("service:a", status);
    for (checks, health) in [
        (json!(null), Passing),
        (json!([]), Passing),
        (json!([serf("passing"), own("passing")]), Passing),
        (json!([serf("passing"), own("warning")]), Warning),
        (json!([serf("passing"), own("critical")]), Critical),
        (json!([serf("critical"), own("passing")]), Lost),
        (json!([serf("critical"), own("warning")]), Lost),
        (json!([serf("critical"), own("critical")]), Critical),
        (
            json!([serf("passing"), check("_service_maintenance:a", "critical")]),
            Critical,
        ),
        (
            json!([serf("passing"), check("_node_maintenance", "critical")]),
            Critical,
        ),
        (json!([own("of a later version")]), Critical),
    ] {
        let entry = with(|e| e["Checks"] = checks.clone());
        let decoded = read(&json!([entry]), &Query::new("trim"));
        assert_eq!(decoded.listing.instances()[0].health, health, "{checks}");
    }
}

/// Entries that cannot be used, each for another reason.
fn broken() -> Vec<Value> {
    let port = |port: Value| with(|e| e["Service"]["Port"] = port);
    let address = |a: &str| with(|e| e["Service"]["Address"] = json!(a));
    vec![
        json!(null),
        json!(1),
        json!("text"),
        json!([]),
        json!({}),
        json!({"Service": null}),
        port(json!(0)),
        port(json!(-1)),
        port(json!(70000)),
        port(json!("8975")),
        port(json!(80.5)),
        port(json!(null)),
        address("0.0.0.0"),
        address("a b"),
        address("http://a"),
        with(|e| {
            e["Service"]["Address"] = json!("");
            e["Node"]["Address"] = json!("");
        }),
        with(|e| e["Service"]["Tags"] = json!({"a": 1})),
        with(|e| e["Service"]["Meta"] = json!([1])),
        with(|e| e["Service"]["ID"] = json!(5)),
    ]
}

#[test]
fn a_broken_entry_is_counted_and_hides_no_other() {
    for broken in broken() {
        let decoded = read(
            &json!([entry("a"), broken, entry("b")]),
            &Query::new("trim"),
        );
        let ids: Vec<_> = decoded.listing.instances().iter().map(|i| &i.id).collect();
        assert_eq!(ids, ["a", "b"], "{broken}");
        assert_eq!(decoded.listing.rejected().len(), 1, "{broken}");
        assert!(!decoded.listing.rejected()[0].is_empty(), "{broken}");
    }
}

#[test]
fn an_instance_carries_all_wanted_tags_in_any_case() {
    let ids = |tags: &[&str]| {
        let query = Query::new("trim").with_tags(tags.iter().copied());
        let decoded = read(&json!([entry("a")]), &query);
        assert!(!decoded.empty);
        decoded.listing.instances().len()
    };
    assert_eq!(ids(&[]), 1);
    assert_eq!(ids(&["blue", "TRIM"]), 1);
    assert_eq!(ids(&["blue", "green"]), 0);
    assert_eq!(ids(&["blu"]), 0);
}

#[test]
fn one_id_on_two_nodes_is_two_instances() {
    let on = |node: &str| with(|e| e["Node"]["Node"] = json!(node));
    let decoded = read(
        &json!([on("n1"), on("n2"), entry("b")]),
        &Query::new("trim"),
    );
    let ids: Vec<_> = decoded.listing.instances().iter().map(|i| &i.id).collect();
    assert_eq!(ids, ["a@n1", "a@n2", "b"]);
    // The same entry twice is one instance, which the set drops.
    let decoded = read(&json!([on("n1"), on("n1")]), &Query::new("trim"));
    assert_eq!(decoded.listing.instances()[0].id, "a");
}

#[test]
fn what_is_no_list_is_no_answer() {
    for body in ["", "null", "{}", "[", "[1", "[] []", "<html>", "[]]"] {
        assert!(
            decode(body.as_bytes(), &Query::new("trim")).is_err(),
            "{body:?} was taken"
        );
    }
    let decoded = decode(b" [ ] \n", &Query::new("trim")).unwrap();
    assert!(decoded.empty && decoded.found.is_empty());
}

#[test]
fn a_broken_character_hides_nothing() {
    let body = json!([entry("a"), entry("b?")]).to_string().into_bytes();
    let body: Vec<_> = body
        .iter()
        .map(|&b| if b == b'?' { 0xff } else { b })
        .collect();
    assert_eq!(decode(&body, &Query::new("trim")).unwrap().found.len(), 2);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let keys = "ID|Node|Service|Address|Port|Tags|Meta|Weights|Passing|Checks|Status|.{0,4}";
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// A good entry with one of its parts replaced by anything.
fn damaged() -> impl Strategy<Value = Value> {
    const PATHS: &[&str] = &[
        "/Node",
        "/Service",
        "/Checks",
        "/Node/Address",
        "/Node/Meta",
        "/Service/ID",
        "/Service/Address",
        "/Service/Port",
        "/Service/Tags",
        "/Service/Meta",
        "/Service/Weights",
        "/Checks/0",
    ];
    (prop::sample::select(PATHS), any_json()).prop_map(|(path, value)| {
        with(|e| {
            if let Some(part) = e.pointer_mut(path) {
                *part = value;
            }
        })
    })
}

proptest! {
    #[test]
    fn takes_any_bytes_without_panic(body in vec(any::<u8>(), 0..200)) {
        let _result = decode(&body, &Query::new("trim"));
    }

    #[test]
    fn loses_no_good_entry_among_any_others(
        others in vec(prop_oneof![any_json(), damaged(), prop::sample::select(broken())], 0..8),
        at in any::<prop::sample::Index>(),
    ) {
        let mut entries = others;
        let at = at.index(entries.len() + 1);
        entries.insert(at, entry("good"));
        let total = entries.len();
        let decoded = read(&Value::from(entries), &Query::new("trim"));
        prop_assert!(decoded.listing.instances().iter().any(|i| i.id == "good"));
        let rejected = decoded.listing.rejected().len();
        prop_assert_eq!(decoded.listing.instances().len() + rejected, total);
        for instance in decoded.listing.instances() {
            prop_assert!(instance.validate().is_ok());
            prop_assert!(!instance.id.is_empty());
            prop_assert!(instance.weight >= 1);
        }
    }

    #[test]
    fn a_cut_answer_is_no_answer(cut in 0_usize..100) {
        let body = json!([entry("a"), entry("b")]).to_string();
        let kept = body.len() * cut / 100;
        prop_assert!(decode(&body.as_bytes()[..kept], &Query::new("trim")).is_err());
    }
}
