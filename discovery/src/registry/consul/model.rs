//! Consul's answer about a service's health, and what of it can be used.
//!
//! Consul checks little of what is registered with it, and anybody may register. So each entry of
//! the answer is read on its own: one that cannot be used is counted and left out, and the others
//! stand.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{instance::Instance, registry::Query};

/// What an answer to `/v1/health/service/NAME` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Those that fit the query, in the answer's order.
    pub(super) instances: Vec<Instance>,
    /// Whether the answer held no entry at all, usable or not.
    pub(super) empty: bool,
    pub(super) rejected: Rejected,
}

/// The entries that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) count: u64,
    /// Those of them that are no service entries at all.
    foreign: u64,
    /// What is wrong with the first of them.
    pub(super) first: Option<String>,
}

/// Reads an answer. The error says why nothing of it can be used: it is no list, or a list of things
/// of which none is a service entry. An entry that is one and cannot be used is another matter.
pub(super) fn decode(body: &[u8], query: &Query) -> Result<Decoded, serde_json::Error> {
    // Names come from anywhere; one broken character must not hide the other instances.
    let text: Cow<'_, str> = String::from_utf8_lossy(body);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let (mut found, rejected, empty) = deserializer.deserialize_seq(Entries { query })?;
    deserializer.end()?;
    if rejected.foreign > 0 && found.is_empty() && rejected.foreign == rejected.count {
        let first = rejected.first.unwrap_or_default();
        return Err(serde_json::Error::custom(format!(
            "no service entry in the list: {first}"
        )));
    }
    // An ID is unique on its node only: a service registered without one has its name as the ID,
    // on every node.
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (instance, node) in &found {
        let on = nodes.entry(instance.id.clone()).or_default();
        if !on.contains(node) {
            on.push(node.clone());
        }
    }
    for (instance, node) in &mut found {
        if nodes.get(&instance.id).is_some_and(|on| on.len() > 1) {
            instance.id = format!("{}@{node}", instance.id);
        }
    }
    Ok(Decoded {
        instances: found.into_iter().map(|(instance, _)| instance).collect(),
        empty,
        rejected,
    })
}

struct Entries<'q> {
    query: &'q Query,
}

impl<'de> Visitor<'de> for Entries<'_> {
    /// Each instance beside its node's name.
    type Value = (Vec<(Instance, String)>, Rejected, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of service entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        let mut rejected = Rejected::default();
        let mut empty = true;
        while let Some(raw) = entries.next_element::<&RawValue>()? {
            empty = false;
            let usable = serde_json::from_str::<Entry<'_>>(raw.get())
                .map_err(|e| e.to_string())
                .and_then(|entry| entry.into_instance(self.query));
            match usable {
                Ok(Some(instance)) => found.push(instance),
                Ok(None) => {}
                Err(reason) => {
                    rejected.count += 1;
                    rejected.foreign +=
                        u64::from(serde_json::from_str::<Shape<'_>>(raw.get()).is_err());
                    rejected.first.get_or_insert(reason);
                }
            }
        }
        Ok((found, rejected, empty))
    }
}

/// What a service entry has at the least.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Shape<'a> {
    #[serde(rename = "Service", borrow)]
    _service: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow, default)]
    node: Option<Node<'a>>,
    #[serde(borrow)]
    service: Service<'a>,
    #[serde(borrow, default)]
    checks: Option<Vec<Check<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node<'a> {
    #[serde(rename = "Node", borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    #[serde(default)]
    datacenter: Option<String>,
    #[serde(default)]
    meta: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a> {
    #[serde(rename = "ID", default)]
    id: Option<String>,
    #[serde(rename = "Service", default)]
    name: Option<String>,
    #[serde(borrow, default)]
    address: Option<Cow<'a, str>>,
    port: u16,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: Option<u32>,
    #[serde(default)]
    warning: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
}

impl Entry<'_> {
    /// The instance and its node's name; nothing if the query does not want it.
    fn into_instance(self, query: &Query) -> Result<Option<(Instance, String)>, String> {
        let Self {
            node,
            service,
            checks,
        } = self;
        let node = node.unwrap_or_default();
        let tags = service.tags.unwrap_or_default();
        if !has_all_tags(&tags, &query.tags) {
            return Ok(None);
        }
        let given = |address: &Option<Cow<'_, str>>| {
            let address = address.as_deref().filter(|a| !a.is_empty());
            address.map(str::to_owned)
        };
        let host = given(&service.address)
            .or_else(|| given(&node.address))
            .unwrap_or_default();
        let instance = Instance::new(host, service.port)
            .map_err(|e| format!("{}: {e}", service.id.as_deref().unwrap_or("no ID")))?;
        let meta: BTreeMap<_, _> = (service.meta.into_iter().flatten())
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let node_zone = || node.meta.as_ref()?.get("zone")?.clone();
        let zone = meta.get("zone").cloned().or_else(node_zone);
        let warning = checks
            .iter()
            .flatten()
            .any(|c| c.status.as_deref() == Some("warning"));
        let weight = service
            .weights
            .and_then(|w| if warning { w.warning } else { w.passing });
        let instance = Instance {
            id: service
                .id
                .filter(|id| !id.is_empty())
                .unwrap_or(instance.id),
            service: service.name.unwrap_or_else(|| query.service.clone()),
            tags,
            // Zero would be an instance that may never be used; health is told by checks.
            weight: weight.unwrap_or(1).max(1),
            zone: zone.filter(|z| !z.is_empty()),
            meta,
            datacenter: node.datacenter.filter(|d| !d.is_empty()),
            ..instance
        };
        Ok(Some((instance, node.name.unwrap_or_default().into_owned())))
    }
}

/// Consul compares tags without regard to case.
fn has_all_tags(tags: &[String], wanted: &[String]) -> bool {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b) || a.to_lowercase() == b.to_lowercase();
    let carried = |wanted: &String| tags.iter().any(|tag| same(tag, wanted));
    wanted.iter().all(carried)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::{Value, json};

    use super::*;

    fn read(entries: &Value, query: &Query) -> Decoded {
        decode(entries.to_string().as_bytes(), query).unwrap()
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
            ..Instance::new("10.0.0.1", 8975).unwrap()
        };
        assert_eq!(decoded.instances, [expected]);
        assert_eq!(decoded.rejected, Rejected::default());
        assert!(!decoded.empty);
    }

    #[test]
    fn falls_back_where_the_service_says_nothing() {
        let read = |entry: Value| {
            let decoded = read(&json!([entry]), &Query::new("trim"));
            assert_eq!(decoded.rejected.first, None);
            decoded.instances.into_iter().next().unwrap()
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
        let bare =
            read(json!({"Service": {"Port": 1, "Address": "h", "Meta": null, "Tags": null}}));
        assert_eq!((bare.id.as_str(), bare.service.as_str()), ("h:1", "trim"));
        assert_eq!((bare.datacenter, bare.zone), (None, None));
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
            let ids: Vec<_> = decoded.instances.iter().map(|i| &i.id).collect();
            assert_eq!(ids, ["a", "b"], "{broken}");
            assert_eq!(decoded.rejected.count, 1, "{broken}");
            assert!(decoded.rejected.first.is_some(), "{broken}");
        }
    }

    #[test]
    fn an_instance_carries_all_wanted_tags_in_any_case() {
        let ids = |tags: &[&str]| {
            let query = Query {
                tags: tags.iter().map(|&t| t.to_owned()).collect(),
                ..Query::new("trim")
            };
            let decoded = read(&json!([entry("a")]), &query);
            assert!(!decoded.empty);
            decoded.instances.len()
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
        let ids: Vec<_> = decoded.instances.iter().map(|i| &i.id).collect();
        assert_eq!(ids, ["a@n1", "a@n2", "b"]);
        // The same entry twice is one instance, which the set drops.
        let decoded = read(&json!([on("n1"), on("n1")]), &Query::new("trim"));
        assert_eq!(decoded.instances[0].id, "a");
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
        assert!(decoded.empty && decoded.instances.is_empty());
    }

    #[test]
    fn a_broken_character_hides_nothing() {
        let body = json!([entry("a"), entry("b?")]).to_string().into_bytes();
        let body: Vec<_> = body
            .iter()
            .map(|&b| if b == b'?' { 0xff } else { b })
            .collect();
        assert_eq!(
            decode(&body, &Query::new("trim")).unwrap().instances.len(),
            2
        );
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
            let keys =
                "ID|Node|Service|Address|Port|Tags|Meta|Weights|Passing|Checks|Status|.{0,4}";
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                vec((keys, inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
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
            prop_assert!(decoded.instances.iter().any(|i| i.id == "good"));
            let rejected = usize::try_from(decoded.rejected.count).unwrap();
            prop_assert_eq!(decoded.instances.len() + rejected, total);
            for instance in &decoded.instances {
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
}
