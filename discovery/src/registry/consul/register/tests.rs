use serde_json::{Value, json};

use std::time::Duration;

use super::*;
use crate::{instance::Instance, registry::Check};

fn registration(check: impl Into<Check>) -> Registration {
    let instance = Instance::named("trim_service", [127, 0, 0, 1].into(), 8975)
        .unwrap()
        .with_tags(["trim"])
        .with_zone("a");
    Registration::new(instance, check).with_deregister_critical_after(Duration::from_secs(90))
}

fn body(registration: &Registration) -> Value {
    serde_json::to_value(Definition::new(registration).unwrap()).unwrap()
}

#[test]
fn the_body_is_what_consul_takes() {
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_millis(1500));
    let check = json!({
        "CheckID": "service:trim_service-127.0.0.1-8975", "Name": "gRPC health",
        "Status": "passing", "GRPC": "127.0.0.1:8975", "Interval": "5000ms",
        "Timeout": "1500ms", "DeregisterCriticalServiceAfter": "90000ms",
    });
    let expected = json!({
        "ID": "trim_service-127.0.0.1-8975", "Name": "trim_service", "Address": "127.0.0.1",
        "Port": 8975, "Tags": ["trim"], "Meta": {"zone": "a"},
        "Weights": {"Passing": 1, "Warning": 1}, "Check": check,
    });
    assert_eq!(
        body(&registration(
            Check::grpc().with_interval(interval).with_timeout(timeout)
        )),
        expected
    );
}

#[test]
fn the_check_is_of_the_kind_asked_for() {
    let ttl = Duration::from_secs(15);
    let with_ttl = body(&registration(Check::ttl(ttl)));
    assert_eq!(with_ttl["Check"]["TTL"], "15000ms");
    assert_eq!(with_ttl["Check"]["Interval"], Value::Null);
    assert_eq!(body(&registration(Check::None))["Check"], Value::Null);
}

#[test]
fn the_default_check_is_one_that_an_agent_without_certificates_can_make() {
    let default = registration(Check::Default);
    assert_eq!(default_check(&default), Check::grpc().into());
    let tls = default.clone().with_tls();
    let check = default_check(&tls);
    assert_eq!(check, Check::grpc().with_tls().with_skip_verify().into());
    let check = &body(&registration(check))["Check"];
    assert_eq!(
        (&check["GRPCUseTLS"], &check["TLSSkipVerify"]),
        (&json!(true), &json!(true))
    );
    let both = default.with_client_certificates();
    assert_eq!(default_check(&both), Check::ttl(Duration::from_secs(15)));
}

#[test]
fn a_grpc_check_names_its_service_and_uses_tls() {
    let check = Check::grpc().with_service("pb.Trim").with_tls();
    let check = &body(&registration(check))["Check"];
    assert_eq!(check["GRPC"], "127.0.0.1:8975/pb.Trim");
    assert_eq!(check["GRPCUseTLS"], true);
    assert_eq!(
        (&check["Interval"], &check["Timeout"]),
        (&json!("5000ms"), &json!("1000ms"))
    );
}

#[test]
fn what_consul_would_not_serve_is_refused_first() {
    let change: [fn(&mut Registration); 12] = [
        |r| r.check = Check::grpc().with_service("a\n").into(),
        |r| r.instance.weight = 0,
        |r| r.instance.weight = 65536,
        |r| r.instance.service.clear(),
        |r| r.instance.id = "a//b".to_owned(),
        |r| r.instance.id = "..".to_owned(),
        |r| r.check = Check::ttl(Duration::ZERO),
        |r| _ = r.instance.meta.insert("a b".to_owned(), String::new()),
        |r| _ = r.instance.meta.insert("consul-x".to_owned(), String::new()),
        |r| _ = r.instance.meta.insert("k".repeat(129), String::new()),
        |r| _ = r.instance.meta.insert("k".to_owned(), "v".repeat(513)),
        |r| r.instance.meta = (0..64).map(|n| (format!("k{n}"), String::new())).collect(),
    ];
    for (nth, change) in change.into_iter().enumerate() {
        let mut registration = registration(Check::None);
        assert!(Definition::new(&registration).is_ok());
        change(&mut registration);
        assert!(
            Definition::new(&registration).is_err(),
            "change {nth} was taken"
        );
    }
}
