//! What records mean, shown with a scripted server.

use discovery::registry::{Query, connect};

use crate::{
    addresses,
    scripted::{A, AAAA, CNAME, Over, Reply, SRV, Scripted, TXT, address, cname, soa, srv},
    sets::until,
    watch, watch_query,
};

const NAME: &str = "_trim._tcp.x";

#[tokio::test]
async fn the_lowest_priority_with_a_usable_record_is_listed_with_its_weights() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let usable = [
        srv(NAME, [5, 7, 81], "a.x"),
        srv(NAME, [5, 0, 82], "A.X"),
        srv(NAME, [9, 1, 83], "b.x"),
    ];
    // The first priority has records that cannot be used only.
    let broken = [
        srv(NAME, [1, 1, 80], "nowhere.x"),
        srv(NAME, [1, 1, 0], "a.x"),
    ];
    let records = usable.iter().chain(&broken).cloned();
    let known = [address("a.x", "10.0.0.1"), address("b.x", "10.0.0.2")];
    server.set(
        NAME,
        SRV,
        Reply::answers(records).with_additional(known.clone()),
    );
    let (_watch, mut sets) = watch(&server.url(NAME));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(addresses(&set), ["10.0.0.1:81", "10.0.0.1:82"]);
    let weights: Vec<_> = set.instances.iter().map(|i| i.weight).collect();
    // Weight 0 counts as 1.
    assert_eq!(weights, [7, 1]);
    assert_eq!(set.instances[0].meta["target"], "a.x");
    assert_eq!(set.instances[0].service, "trim_service");
    // Without the lower ones, the next priority is listed.
    let rest = [usable[2].clone()];
    server.set(NAME, SRV, Reply::answers(rest).with_additional(known));
    let set = until(&mut sets, |set| set.instances.len() == 1).await;
    assert_eq!(addresses(&set), ["10.0.0.2:83"]);
}

#[tokio::test]
async fn addresses_come_from_the_additional_section_or_are_asked_for() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let records = [
        srv(NAME, [1, 1, 80], "given.x"),
        srv(NAME, [1, 1, 80], "asked.x"),
    ];
    let text = ("given.x".to_owned(), TXT, 0, b"\x01t".to_vec());
    let additional = [
        text,
        address("Given.X", "10.0.0.1"),
        address("given.x", "10.0.0.2"),
    ];
    server.set(
        NAME,
        SRV,
        Reply::answers(records).with_additional(additional),
    );
    let alias = [cname("asked.x", "real.x"), address("real.x", "10.0.0.3")];
    server.set("asked.x", A, Reply::answers(alias));
    server.set("asked.x", AAAA, Reply::answers([address("asked.x", "::5")]));
    let (_watch, mut sets) = watch(&server.url(NAME));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    let expected = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "[::5]:80"];
    assert_eq!(addresses(&set), expected);
    assert_eq!(set.instances[0].id, "10.0.0.1:80");
    let asked = server.asked();
    let about_given = asked.iter().filter(|(name, ..)| name == "given.x");
    assert_eq!(about_given.count(), 0, "{asked:?}");
}

#[tokio::test]
async fn a_target_whose_lookup_fails_keeps_its_addresses_and_hides_no_other() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let records = [srv(NAME, [1, 1, 80], "a.x"), srv(NAME, [1, 1, 80], "b.x")];
    server.set(NAME, SRV, Reply::answers(records.clone()));
    server.set("a.x", A, Reply::answers([address("a.x", "10.0.0.1")]));
    server.set("b.x", A, Reply::code(2));
    server.set("b.x", AAAA, Reply::code(2));
    let (_watch, mut sets) = watch(&server.url(NAME));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(addresses(&set), ["10.0.0.1:80"]);
    // Found once, it stays while the server fails to answer for it.
    server.set("b.x", A, Reply::answers([address("b.x", "10.0.0.2")]));
    let both = ["10.0.0.1:80", "10.0.0.2:80"];
    until(&mut sets, |set| addresses(set) == both).await;
    server.set("b.x", A, Reply::code(2));
    server.set(
        NAME,
        SRV,
        Reply::answers([
            records[0].clone(),
            records[1].clone(),
            srv(NAME, [1, 1, 81], "a.x"),
        ]),
    );
    let set = until(&mut sets, |set| set.instances.len() == 3).await;
    assert_eq!(
        addresses(&set),
        ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80"]
    );
    // A name that is gone is an answer.
    server.set("b.x", A, Reply::code(3));
    server.set("b.x", AAAA, Reply::code(3));
    let set = until(&mut sets, |set| set.instances.len() == 2).await;
    assert_eq!(addresses(&set), ["10.0.0.1:80", "10.0.0.1:81"]);
}

#[tokio::test]
async fn a_record_with_malformed_data_hides_no_other() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let broken = [
        vec![],
        vec![0, 1, 0, 1, 0, 80],
        vec![0, 1, 0, 1, 0, 80, 5, b'a'],
    ];
    let broken = broken.map(|data| (NAME.to_owned(), SRV, 0, data));
    let records = broken.into_iter().chain([srv(NAME, [1, 1, 80], "a.x")]);
    let reply = Reply::answers(records).with_additional([address("a.x", "10.0.0.1")]);
    server.set(NAME, SRV, reply);
    let (_watch, mut sets) = watch(&server.url(NAME));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(addresses(&set), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn no_name_no_data_and_not_offered_are_good_empty_answers() {
    let server = Scripted::start(&[Over::Tcp]).await;
    let listed = Reply::answers([srv(NAME, [1, 1, 80], "a.x")])
        .with_additional([address("a.x", "10.0.0.1")]);
    let (_watch, mut sets) = watch(&server.url(NAME));
    for empty in [
        Reply::code(3).with_authority([soa(0, 60)]),
        Reply::code(3),
        Reply::default().with_authority([soa(60, 0)]),
        Reply::default(),
        Reply::answers([srv(NAME, [0, 0, 0], ".")]),
        Reply::answers([cname(NAME, "gone.x")]).with_authority([soa(0, 0)]),
    ] {
        server.set(NAME, SRV, listed.clone());
        until(&mut sets, |set| set.instances.len() == 1).await;
        server.set(NAME, SRV, empty.clone());
        let set = until(&mut sets, |set| set.instances.is_empty()).await;
        assert!(set.error.is_none(), "{empty:?}: {set:?}");
    }
}

#[tokio::test]
async fn aliases_are_followed_eight_times_at_most() {
    let server = Scripted::start(&[Over::Tcp]).await;
    // The first alias is answered alone, so the server is asked for its end.
    server.set(NAME, SRV, Reply::answers([cname(NAME, "_1.x")]));
    let mut chain: Vec<_> = (1..7)
        .map(|n| cname(&format!("_{n}.x"), &format!("_{}.x", n + 1)))
        .collect();
    chain.push(srv("_7.x", [1, 1, 80], "a.x"));
    let reply =
        |chain: &[_]| Reply::answers(chain.to_vec()).with_additional([address("a.x", "10.0.0.1")]);
    server.set("_1.x", SRV, reply(&chain));
    let (_watch, mut sets) = watch(&server.url(NAME));
    until(&mut sets, |set| addresses(set) == ["10.0.0.1:80"]).await;
    server.set(
        "_1.x",
        SRV,
        Reply::answers([cname("_1.x", "_2.x"), cname("_2.x", "_1.x")]),
    );
    let set = until(&mut sets, |set| set.error.is_some()).await;
    let error = set.error.unwrap().to_string();
    assert!(error.contains("more than 8 aliases"), "{error}");
    assert_eq!(
        addresses(&until(&mut sets, |_| true).await),
        ["10.0.0.1:80"]
    );
    assert!(!server.asked().iter().any(|(_, kind, _)| *kind == CNAME));
}

#[tokio::test]
async fn the_addresses_of_a_name_are_instances_at_the_port_of_the_url() {
    let server = Scripted::start(&[Over::Tcp]).await;
    server.set(
        "trim.x",
        A,
        Reply::answers([address("TRIM.x", "10.0.0.2"), address("trim.x", "10.0.0.1")]),
    );
    server.set("trim.x", AAAA, Reply::default().with_authority([soa(0, 0)]));
    let url = format!(
        "dns+a://{}/{{service}}.x:8975?min_refresh=100ms",
        server.address
    );
    let (_watch, mut sets) = watch_query(&url, &Query::new("trim"));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(addresses(&set), ["10.0.0.1:8975", "10.0.0.2:8975"]);
    // One family fails: the other counts, and the failed one keeps its last addresses.
    server.set("trim.x", AAAA, Reply::code(2));
    server.set("trim.x", A, Reply::answers([address("trim.x", "10.0.0.3")]));
    let set = until(&mut sets, |set| addresses(set) == ["10.0.0.3:8975"]).await;
    assert!(set.error.is_none());
    server.set("trim.x", A, Reply::code(2));
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(addresses(&set), ["10.0.0.3:8975"]);
    server.set("trim.x", A, Reply::code(3));
    server.set("trim.x", AAAA, Reply::code(3));
    let set = until(&mut sets, |set| set.instances.is_empty()).await;
    assert!(set.error.is_none());
}

#[tokio::test]
async fn a_selection_that_the_name_has_no_place_for_is_refused() {
    let refused = |url: &str, query: &Query| {
        let result = connect(url).unwrap().instancer(query).map(|_| ());
        result.unwrap_err().to_string()
    };
    let query = Query::new("trim_service");
    for url in ["dns:///trim.x", "dns+a:///trim.x:80"] {
        let error = refused(url, &query.clone().with_tags(["blue"]));
        assert!(error.contains("DNS does not list a tag"), "{error}");
        assert!(error.contains("{tag}") && error.contains("blue"), "{error}");
        let error = refused(url, &query.clone().with_datacenter("dc2"));
        assert!(error.contains("{datacenter}"), "{error}");
    }
    let error = refused("dns:///_{service}._tcp.x", &Query::new("no name"));
    assert!(error.contains("' '"), "{error}");
}
