mod write;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    instance::{Instance, InstanceHealth},
    registry::{Listing, Query},
};

/// Registered by Spring Cloud 5.0.3's client.
const SPRING: &str = r#"{"instanceId":"192.0.2.2:trim_service:45943","app":"TRIM_SERVICE","appGroupName":null,"ipAddr":"127.0.0.1","sid":"na","homePageUrl":"http://127.0.0.1:45943/","statusPageUrl":"http://127.0.0.1:45943/actuator/info","healthCheckUrl":"http://127.0.0.1:45943/actuator/health","secureHealthCheckUrl":null,"vipAddress":"trim_service","secureVipAddress":"trim_service","countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"hostName":"127.0.0.1","status":"UP","overriddenStatus":"UNKNOWN","leaseInfo":{"renewalIntervalInSecs":2,"durationInSecs":90,"registrationTimestamp":0,"lastRenewalTimestamp":0,"evictionTimestamp":0,"serviceUpTimestamp":0},"isCoordinatingDiscoveryServer":false,"lastUpdatedTimestamp":1795579905416,"lastDirtyTimestamp":1795579905875,"actionType":null,"asgName":null,"port":{"$":45943,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"metadata":{"zone":"z1","management.port":"45943"}}"#;

/// Registered by py-eureka-client 0.13.3.
const PYTHON: &str = r#"{"instanceId": "127.0.0.1:trim_service:8975", "hostName": "127.0.0.1", "app": "TRIM_SERVICE", "ipAddr": "127.0.0.1", "port": {"$": 8975, "@enabled": "true"}, "securePort": {"$": 9443, "@enabled": "false"}, "countryId": 1, "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"}, "leaseInfo": {"renewalIntervalInSecs": 2, "durationInSecs": 6, "registrationTimestamp": 0, "lastRenewalTimestamp": 0, "evictionTimestamp": 0, "serviceUpTimestamp": 0}, "metadata": {"management.port": "8975", "zone": "z1", "tags": "a,b"}, "homePageUrl": "http://127.0.0.1:8975/", "statusPageUrl": "http://127.0.0.1:8975/info", "healthCheckUrl": "http://127.0.0.1:8975/health", "secureHealthCheckUrl": "", "vipAddress": "trim_service", "secureVipAddress": "trim_service", "isCoordinatingDiscoveryServer": "false", "status": "UP", "overriddenstatus": "UNKNOWN", "lastUpdatedTimestamp": "1795579174801", "lastDirtyTimestamp": "1795579174801"}"#;

/// Registered by eureka-js-client 4.5.0.
const JAVASCRIPT: &str = r#"{"app":"trim_service","instanceId":"trim_service-127.0.0.1-8976","hostName":"127.0.0.1","ipAddr":"127.0.0.1","port":{"$":8976,"@enabled":true},"vipAddress":"trim_service","dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"metadata":{"tags":"a,b"},"status":"UP"}"#;

/// The answer of Eureka 5.0.3 about one application, whose instance an operator took out of service.
const ANSWER: &str = r#"{"application":{"name":"TRIM_SERVICE","instance":[{"instanceId":"trim_service-127.0.0.1-8975","hostName":"127.0.0.1","app":"TRIM_SERVICE","ipAddr":"127.0.0.1","status":"OUT_OF_SERVICE","overriddenStatus":"OUT_OF_SERVICE","port":{"$":8975,"@enabled":"true"},"securePort":{"$":443,"@enabled":"false"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":5,"durationInSecs":600,"registrationTimestamp":1795643013576,"lastRenewalTimestamp":1795643013576,"evictionTimestamp":0,"serviceUpTimestamp":1795643013585},"metadata":{"text":"a, \"b\"; ü/{}","tags":"blue,Grün,a=b","empty":"","weight":"7"},"vipAddress":"trim_service","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1795643013585","lastDirtyTimestamp":"1795579905875","actionType":"ADDED"}]}}"#;

#[test]
fn the_names_of_all_applications_are_listed() {
    let all = r#"{"applications":{"apps__hashcode":"UP_2_","application":[{"name":"B","instance":[]},
        {"name":"A","instance":[]},{"no":"name"}]}}"#;
    assert_eq!(applications(all.as_bytes()).unwrap(), ["A", "B"]);
    assert!(applications(b"<html>").is_err());
}

fn list(body: &str) -> Result<Listing, String> {
    let query = Query::new("trim_service");
    decode(body.as_bytes(), Lookup::Application, &query)
}

/// The instance of an answer with this entry alone.
fn read(entry: &str) -> Result<Instance, String> {
    let listing = list(&format!(r#"{{"application":{{"instance":[{entry}]}}}}"#))?;
    match (listing.instances(), listing.rejected()) {
        ([instance], []) => Ok(instance.clone()),
        ([], [reason]) => Err(reason.clone()),
        other => panic!("{other:?}"),
    }
}

/// An entry in which these members are replaced; null removes one.
fn entry(changes: &Value) -> String {
    let mut entry = json!({
        "instanceId": "a", "app": "TRIM_SERVICE", "hostName": "h", "ipAddr": "10.0.0.1",
        "status": "UP", "port": { "$": 80, "@enabled": "true" },
        "securePort": { "$": 443, "@enabled": "false" }, "metadata": {},
    });
    for (key, value) in changes.as_object().unwrap() {
        entry[key] = value.clone();
    }
    entry.to_string()
}

fn instance() -> Instance {
    Instance::named("trim_service", [127, 0, 0, 1].into(), 8975).unwrap()
}

#[test]
fn what_other_clients_registered_is_read() {
    let spring = read(SPRING).unwrap();
    assert_eq!(
        spring.to_string(),
        "192.0.2.2:trim_service:45943 (127.0.0.1:45943)"
    );
    assert_eq!(
        (spring.zone.as_deref(), spring.health),
        (Some("z1"), InstanceHealth::Passing)
    );
    assert_eq!(spring.meta["management.port"], "45943");
    assert_eq!(spring.service, "trim_service");
    let python = read(PYTHON).unwrap();
    assert_eq!(
        python.to_string(),
        "127.0.0.1:trim_service:8975 (127.0.0.1:8975)"
    );
    assert_eq!(
        (python.zone.as_deref(), python.health),
        (Some("z1"), InstanceHealth::Passing)
    );
    assert_eq!(python.tags, ["a", "b"]);
    let javascript = read(JAVASCRIPT).unwrap();
    assert_eq!(
        javascript.to_string(),
        "trim_service-127.0.0.1-8976 (127.0.0.1:8976)"
    );
    assert_eq!(
        (javascript.zone.as_deref(), javascript.health),
        (None, InstanceHealth::Passing)
    );
    assert_eq!(javascript.tags, ["a", "b"]);
}

#[test]
fn the_answer_of_a_server_is_read() {
    let listing = list(ANSWER).unwrap();
    let expected = instance()
        .with_tags(["blue", "Grün", "a=b"])
        .with_meta([("text", "a, \"b\"; ü/{}"), ("empty", "")])
        .with_weight(7)
        .with_health(InstanceHealth::Critical);
    assert_eq!(listing.instances(), [expected]);
    assert!(listing.rejected().is_empty());
}

#[test]
fn only_an_instance_that_is_up_is_called() {
    use InstanceHealth::{Critical, Passing, Warning};
    for (status, overridden, health) in [
        (json!("UP"), json!("UNKNOWN"), Passing),
        (json!("up"), Value::Null, Passing),
        (json!("UP"), json!("UP"), Passing),
        (json!("DOWN"), json!("UNKNOWN"), Critical),
        // An override to UP does not lift the instance's own status.
        (json!("DOWN"), json!("UP"), Critical),
        (json!("OUT_OF_SERVICE"), json!("OUT_OF_SERVICE"), Critical),
        (json!("UP"), json!("OUT_OF_SERVICE"), Critical),
        (json!("UP"), json!("DOWN"), Critical),
        (json!("STARTING"), json!("UNKNOWN"), Warning),
        (json!("UNKNOWN"), json!("UNKNOWN"), Warning),
        (json!("SLEEPING"), Value::Null, Warning),
        (json!(""), Value::Null, Warning),
        (Value::Null, Value::Null, Warning),
    ] {
        for key in ["overriddenStatus", "overriddenstatus"] {
            let entry = entry(&json!({ "status": status, key: overridden }));
            assert_eq!(read(&entry).unwrap().health, health, "{entry}");
        }
    }
    // Both spellings at once are not an error.
    let both = json!({ "overriddenStatus": "UNKNOWN", "overriddenstatus": "DOWN" });
    assert_eq!(read(&entry(&both)).unwrap().health, Critical);
}

#[test]
fn a_port_has_every_form_that_clients_write() {
    for port in [
        json!({ "$": 80, "@enabled": "true" }),
        json!({ "$": 80, "@enabled": true }),
        json!({ "$": "80", "@enabled": "TRUE" }),
        json!({ "$": 80 }),
        json!(80),
        json!("80"),
    ] {
        let read = read(&entry(&json!({ "port": port })));
        assert_eq!(read.map(|i| i.port), Ok(80), "{port}");
    }
}

#[test]
fn an_entry_that_cannot_be_called_is_named_with_the_reason() {
    let secure = json!({ "$": 443, "@enabled": "true" });
    let disabled = json!({ "$": 80, "@enabled": "false" });
    for (changes, reason) in [
        (
            json!({ "port": { "$": -1, "@enabled": "true" } }),
            "the port -1 is not one",
        ),
        (
            json!({ "port": { "$": 0, "@enabled": "true" } }),
            "the port 0 is not one",
        ),
        (
            json!({ "port": { "$": 70000, "@enabled": "true" } }),
            "the port 70000 is not one",
        ),
        (json!({ "port": { "$": 80.5 } }), "the port 80.5 is not one"),
        (
            json!({ "port": { "$": "+80" } }),
            "the port \"+80\" is not one",
        ),
        (json!({ "port": { "$": null } }), "the port null is not one"),
        (json!({ "port": [80] }), "is not one"),
        (json!({ "port": {} }), "no port that is enabled"),
        (json!({ "port": null }), "no port that is enabled"),
        (
            json!({ "port": disabled.clone() }),
            "no port that is enabled",
        ),
        (
            json!({ "port": disabled, "securePort": secure }),
            "only a secure port",
        ),
        (
            json!({ "ipAddr": null, "hostName": "" }),
            "it has no address",
        ),
        (json!({ "ipAddr": "", "hostName": "a b" }), "a b:80"),
        (json!({ "ipAddr": "[::1]", "hostName": null }), "[::1]:80"),
        (json!({ "ipAddr": "0.0.0.0", "hostName": "::" }), ":::80"),
    ] {
        let error = read(&entry(&changes)).unwrap_err();
        assert!(
            error.starts_with("a: ") && error.contains(reason),
            "{changes}: {error}"
        );
    }
    for entry in ["7", "null", r#"{"instanceId":7}"#, r#"{"ipAddr":{}}"#] {
        let error = read(entry).unwrap_err();
        assert!(error.starts_with(entry), "{entry}: {error}");
    }
}

#[test]
fn an_address_is_the_ip_or_else_the_name() {
    for (ip, name, host) in [
        (json!("10.0.0.1"), json!("h"), "10.0.0.1"),
        (json!("::1"), json!("h"), "::1"),
        (json!(""), json!("h"), "h"),
        (json!(null), json!("h"), "h"),
        (json!("not an address"), json!("h"), "h"),
        (json!("10.0.0.1"), json!(null), "10.0.0.1"),
    ] {
        let read = read(&entry(&json!({ "ipAddr": ip, "hostName": name })));
        assert_eq!(read.unwrap().host, host);
    }
    let id = |changes| read(&entry(&changes)).unwrap().id;
    assert_eq!(id(json!({ "instanceId": null })), "h");
    assert_eq!(
        id(json!({ "instanceId": "", "hostName": null })),
        "10.0.0.1:80"
    );
}

#[test]
fn metadata_of_another_form_does_not_hide_the_instance() {
    for metadata in [
        json!(null),
        json!("x"),
        json!([1]),
        json!({ "@class": "java.util.Map" }),
    ] {
        let read = read(&entry(&json!({ "metadata": metadata }))).unwrap();
        assert!(read.meta.is_empty(), "{metadata}");
    }
    let odd = json!({ "metadata": {
        "number": 7, "flag": true, "none": null, "list": [], "weight": "heavy", "zone": "",
        "tags": " a,, b ,",
    }, "dataCenterInfo": { "name": "Amazon", "metadata": { "availability-zone": "us-east-1a" } } });
    let read = read(&entry(&odd)).unwrap();
    assert_eq!(read.tags, ["a", "b"]);
    assert_eq!((read.weight, read.zone.as_deref()), (1, Some("us-east-1a")));
    let meta = [
        ("flag", "true"),
        ("number", "7"),
        ("weight", "heavy"),
        ("zone", ""),
    ];
    assert_eq!(read.meta, instance().with_meta(meta).meta);
    let zero = json!({ "metadata": { "weight": "0" } });
    assert_eq!(self::read(&entry(&zero)).unwrap().weight, 1);
}

#[test]
fn one_bad_entry_hides_no_good_one() {
    let good = entry(&json!({}));
    let body = format!(r#"{{"application":{{"instance":[7,{good},{{}},{PYTHON}]}}}}"#);
    let listing = list(&body).unwrap();
    let ids: Vec<_> = listing.instances().iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids, ["a", "127.0.0.1:trim_service:8975"]);
    assert_eq!(listing.rejected().len(), 2);
    // A broken character in the metadata of one does not break the answer.
    let mut bytes = body.replace("\"z1\"", "\"?\"").into_bytes();
    let at = bytes.iter().position(|b| *b == b'?').unwrap();
    bytes[at] = 0xff;
    let listing = decode(&bytes, Lookup::Application, &Query::new("trim_service")).unwrap();
    assert_eq!(listing.instances().len(), 2);
}

#[test]
fn a_list_of_one_may_stand_without_the_list() {
    let body = format!(r#"{{"application":{{"instance":{}}}}}"#, entry(&json!({})));
    assert_eq!(list(&body).unwrap().instances().len(), 1);
    for body in [
        r#"{"application":{"instance":null}}"#,
        r#"{"application":{"name":"X"}}"#,
    ] {
        assert_eq!(list(body), Ok(Listing::default()), "{body}");
    }
}

#[test]
fn what_is_not_an_answer_is_an_error() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "<application><name>X</name></application>",
        r#"{"application":7}"#,
        r#"{"application":{"instance":"x"}}"#,
        r#"{"applications":{"application":[]}}"#,
        r#"{"application":{"instance":[{"instanceId":"a""#,
        r#"{"application":{"instance":[]}} x"#,
        r#"{"timestamp":"2026","status":200,"path":"/eureka"}"#,
    ] {
        assert!(list(body).is_err(), "{body}");
    }
    let error = list("<html>").unwrap_err();
    assert!(error.contains("begins with \"<html>\""), "{error}");
}

#[test]
fn instances_of_several_applications_have_one_vip_address() {
    let other = |app: &str| entry(&json!({ "app": app }));
    let (own, others) = (other("Trim_Service"), other("TRIM-BLUE"));
    let body = format!(
        r#"{{"applications":{{"versions__delta":"-1","application":[
            {{"name":"TRIM_SERVICE","instance":[{own}]}},7,{{"name":"TRIM-BLUE","instance":{others}}}]}}}}"#
    );
    let query = Query::new("trim_service");
    let listing = decode(body.as_bytes(), Lookup::Vip, &query).unwrap();
    let ids: Vec<_> = listing.instances().iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids, ["a", "a@TRIM-BLUE"]);
    assert_eq!(listing.rejected().len(), 1);
    let empty = r#"{"applications":{"versions__delta":"-1","apps__hashcode":"","application":[]}}"#;
    let listing = decode(empty.as_bytes(), Lookup::Vip, &query);
    assert_eq!(listing, Ok(Listing::default()));
    assert!(decode(ANSWER.as_bytes(), Lookup::Vip, &query).is_err());
}

#[test]
fn a_query_selects_by_tags() {
    let body = format!(
        r#"{{"application":{{"instance":[{PYTHON},{}]}}}}"#,
        entry(&json!({}))
    );
    let query = Query::new("trim_service").with_tags(["B"]);
    let listing = decode(body.as_bytes(), Lookup::Application, &query).unwrap();
    let ids: Vec<_> = listing.instances().iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids, ["127.0.0.1:trim_service:8975"]);
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(body in any::<Vec<u8>>(), text in ".*") {
        let query = Query::new("trim_service");
        for lookup in [Lookup::Application, Lookup::Vip] {
            let _read = decode(&body, lookup, &query);
            let entry = format!("{{\"application\":{{\"instance\":[{text}]}}}}");
            let _read = decode(entry.as_bytes(), lookup, &query);
        }
    }
}
