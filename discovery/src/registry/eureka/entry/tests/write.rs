//! The entries that are written.

use std::time::Duration;

use super::*;

#[test]
fn what_was_written_is_read() {
    let full = instance()
        .with_tags(["blue", "Grün", "a=b"])
        .with_meta([
            ("version", "2"),
            ("empty", ""),
            ("text", "a, \"b\"; ü/{}\n"),
        ])
        .with_weight(7)
        .with_zone("z1");
    let beat = Duration::from_millis(1333);
    let written = Written::new(&full, beat, Duration::from_secs(2)).unwrap();
    let body: Value = serde_json::from_slice(&written.body(UP, 5)).unwrap();
    let entry = &body["instance"];
    assert_eq!(entry["app"], "TRIM_SERVICE");
    assert_eq!(entry["vipAddress"], "trim_service");
    assert_eq!(entry["lastDirtyTimestamp"], 5);
    let lease = json!({ "renewalIntervalInSecs": 1, "durationInSecs": 2 });
    assert_eq!(entry["leaseInfo"], lease);
    let mut expected = full.with_health(InstanceHealth::Passing);
    expected.meta.insert("zone".to_owned(), "z1".to_owned());
    assert_eq!(read(&entry.to_string()), Ok(expected));
    let read: Entry = serde_json::from_value(entry.clone()).unwrap();
    assert!(written.is(&read));
    assert_eq!(read.last_dirty(), Some(5));
}

#[test]
fn the_port_of_an_instance_with_tls_is_a_secure_one_too() {
    let second = Duration::from_secs(1);
    let written = |tls| {
        let written = Written::new(&instance(), second, second).unwrap();
        let body: Value = serde_json::from_slice(&written.with_tls(tls).body(UP, 1)).unwrap();
        body["instance"].clone()
    };
    let entry = written(true);
    let port = json!({ "$": instance().port, "@enabled": "true" });
    assert_eq!((&entry["port"], &entry["securePort"]), (&port, &port));
    assert_eq!(read(&entry.to_string()).unwrap().port, instance().port);
    assert_eq!(written(false)["securePort"]["@enabled"], "false");
}

#[test]
fn an_entry_is_ours_whatever_its_status_and_added_metadata() {
    let given = instance().with_meta([("version", "2")]);
    let second = Duration::from_secs(1);
    let written = Written::new(&given, second, second).unwrap();
    let is_ours = |changes: Value| {
        let body: Value = serde_json::from_slice(&written.body(UP, 1)).unwrap();
        let mut entry = body["instance"].clone();
        for (key, value) in changes.as_object().unwrap() {
            entry[key] = value.clone();
        }
        written.is(&serde_json::from_value(entry).unwrap())
    };
    assert!(is_ours(json!({})));
    assert!(is_ours(
        json!({ "status": "OUT_OF_SERVICE", "overriddenStatus": "OUT_OF_SERVICE" })
    ));
    assert!(is_ours(
        json!({ "metadata": { "version": "2", "added": "x" } })
    ));
    assert!(!is_ours(json!({ "metadata": { "version": "3" } })));
    assert!(!is_ours(json!({ "metadata": {} })));
    assert!(!is_ours(json!({ "ipAddr": "127.0.0.2" })));
    assert!(!is_ours(json!({ "hostName": "h" })));
    assert!(!is_ours(json!({ "port": { "$": 1, "@enabled": "true" } })));
    assert!(!is_ours(
        json!({ "port": { "$": 8975, "@enabled": "false" } })
    ));
}

#[test]
fn what_eureka_or_its_clients_could_not_read_is_refused_first() {
    type Change = (fn(&mut Instance), &'static str);
    let changes: [Change; 14] = [
        (|i| i.service.clear(), "is empty"),
        (|i| i.service = "a/b".to_owned(), "contains '/'"),
        (|i| i.service = "a,b".to_owned(), "contains ','"),
        (|i| i.service = "..".to_owned(), "URL path"),
        (|i| i.id = "a\\b".to_owned(), "contains '\\\\'"),
        (|i| i.id = "a\nb".to_owned(), "control character"),
        (|i| i.weight = 0, "weight 0"),
        (|i| i.tags.push("a,b".to_owned()), "the tag \"a,b\""),
        (|i| i.tags.push(" a".to_owned()), "the tag \" a\""),
        (|i| i.tags.push(String::new()), "the tag \"\""),
        (
            |i| _ = i.meta.insert("tags".to_owned(), String::new()),
            "meaning of its own",
        ),
        (
            |i| _ = i.meta.insert("@class".to_owned(), String::new()),
            "begins with @",
        ),
        (
            |i| _ = i.meta.insert("k".to_owned(), "\u{1}".to_owned()),
            "XML",
        ),
        (|i| i.zone = Some("\u{fffe}".to_owned()), "XML"),
    ];
    let second = Duration::from_secs(1);
    for (change, reason) in changes {
        let mut instance = instance();
        assert!(Written::new(&instance, second, second).is_ok());
        change(&mut instance);
        let error = Written::new(&instance, second, second).err().unwrap();
        assert!(error.contains(reason), "{error}");
    }
}

proptest! {
    #[test]
    fn every_instance_that_can_be_written_is_read_as_it_was(
        tags in prop::collection::vec("[a-zü =:]{1,8}", 0..4),
        meta in prop::collection::btree_map("[a-z. ]{1,8}", ".*", 0..4),
        weight in 0..9_u32,
    ) {
        let given = instance().with_tags(tags).with_meta(meta).with_weight(weight);
        let second = Duration::from_secs(1);
        if let Ok(written) = Written::new(&given, second, second) {
            let body: Value = serde_json::from_slice(&written.body(UP, 1)).unwrap();
            let mut expected = given.with_health(InstanceHealth::Passing);
            expected.zone = expected.meta.get("zone").cloned().filter(|zone| !zone.is_empty());
            prop_assert_eq!(read(&body["instance"].to_string()), Ok(expected));
        }
    }
}
