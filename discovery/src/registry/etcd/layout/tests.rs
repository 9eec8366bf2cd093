use super::*;

fn instance() -> Instance {
    Instance::named("trim_service", [127, 0, 0, 1].into(), 8975).unwrap()
}

fn full() -> Instance {
    instance()
        .with_id("trim-1")
        .with_tags(["blue", "canary"])
        .with_meta([("version", "2"), ("zone", "a")])
        .with_weight(10)
        .with_zone("a")
        .with_datacenter("dc1")
}

#[test]
fn entries_of_the_real_go_clients_are_read() {
    // registry-facts: written by Go kit's etcdv3 and by etcd's endpoints package.
    let read = |value: &str| decode("trim_service", value.as_bytes()).unwrap();
    assert_eq!(read("127.0.0.1:8975"), instance());
    let zoned = read(r#"{"Op":0,"Addr":"127.0.0.1:8975","Metadata":{"zone":"a"}}"#);
    assert_eq!(zoned, instance().with_meta([("zone", "a")]).with_zone("a"));
    let plain = read(r#"{"Op":0,"Addr":"127.0.0.1:8976","Metadata":null}"#);
    assert_eq!(plain.id, "trim_service-127.0.0.1-8976");
}

#[test]
fn an_instance_is_read_as_it_was_registered() {
    for (layout, instance) in [
        (Layout::GoKit, instance()),
        (Layout::Grpc, instance()),
        (Layout::Grpc, full()),
        (
            Layout::Grpc,
            Instance::new("::1", 80)
                .unwrap()
                .with_service("trim_service"),
        ),
    ] {
        let value = layout.encode(&instance).unwrap();
        assert_eq!(decode("trim_service", &value).unwrap(), instance);
        // Equal registrations must not change the entry.
        assert_eq!(layout.encode(&instance.clone()).unwrap(), value);
    }
}

#[test]
fn gokits_layout_refuses_what_it_cannot_hold() {
    for (instance, named) in [
        (instance().with_tags(["a"]), "tags"),
        (instance().with_meta([("a", "b")]), "metadata"),
        (instance().with_weight(2), "weight"),
        (instance().with_zone("a"), "zone"),
        (instance().with_datacenter("a"), "datacenter"),
    ] {
        let error = Layout::GoKit.encode(&instance).unwrap_err();
        assert!(
            error.contains(named) && error.contains("layout=grpc"),
            "{error}"
        );
    }
    assert!(Layout::GoKit.check_filters(true, false).is_err());
    assert!(Layout::GoKit.check_filters(false, true).is_err());
    assert!(Layout::Grpc.check_filters(true, true).is_ok());
}

#[test]
fn a_metadata_key_with_a_meaning_is_refused() {
    for key in ["id", "tags", "weight", "datacenter"] {
        let error = Layout::Grpc.encode(&instance().with_meta([(key, "x")]));
        assert!(error.unwrap_err().contains(key));
    }
}

#[test]
fn metadata_of_any_form_does_not_hide_the_instance() {
    let read = |metadata: &str| {
        let value = format!(r#"{{"Op":0,"Addr":"127.0.0.1:8975","Metadata":{metadata}}}"#);
        decode("trim_service", value.as_bytes()).unwrap()
    };
    let odd = read(
        r#"{"id":7,"tags":"blue","weight":"heavy","zone":null,"datacenter":"","n":1.5,"o":{"a":[1]},"x":null}"#,
    );
    let meta = [
        ("id", "7"),
        ("tags", "blue"),
        ("weight", "heavy"),
        ("datacenter", ""),
        ("n", "1.5"),
        ("o", r#"{"a":[1]}"#),
    ];
    assert_eq!(odd, instance().with_meta(meta));
    assert_eq!(read("[1]").meta["metadata"], "[1]");
    assert_eq!(read("\"blue\"").meta["metadata"], "blue");
    assert_eq!(read(r#"{"weight":0}"#).weight, 1);
    assert_eq!(read(r#"{"weight":"7"}"#).weight, 7);
    assert_eq!(read(r#"{"weight":-1}"#).meta["weight"], "-1");
}

#[test]
fn an_entry_that_is_no_address_is_refused_with_the_reason() {
    for value in [
        "",
        "127.0.0.1",
        "127.0.0.1:0",
        "http://127.0.0.1:80",
        "{",
        "{}",
        r#"{"Op":1,"Addr":"127.0.0.1:8975"}"#,
        r#"{"Op":0,"Addr":"","Metadata":null}"#,
        r#"{"Op":0,"Addr":8975}"#,
    ] {
        let error = decode("trim_service", value.as_bytes()).unwrap_err();
        assert!(!error.is_empty(), "{value:?} was taken");
    }
    assert!(
        decode("trim_service", &[0xff, 0xfe])
            .unwrap_err()
            .contains("UTF-8")
    );
}

#[test]
fn a_service_finds_its_own_keys_only() {
    assert_eq!(service_prefix("/services", "trim"), "/services/trim/");
    for name in ["", "/trim", "trim/", "tr\nim"] {
        let error = check_service(name).unwrap_err();
        assert!(error.contains(&format!("{name:?}")), "{error}");
    }
    assert!(check_service("a/b.c").is_ok());
}
