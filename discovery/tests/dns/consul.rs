//! Consul's own DNS.

use anyhow::Result;
use discovery::registry::{InstanceSet, Query};
use serde_json::{Value, json};
use testkit::Consul;

use crate::{
    sets::{eventually, until},
    watch, watch_query,
};

async fn start() -> (Consul, String) {
    let [port] = testkit::free_ports().unwrap();
    let dns = format!("ports {{ dns = {port} }}");
    let consul = Consul::options().hcl(&dns).start().await.unwrap();
    (consul, format!("127.0.0.1:{port}"))
}

async fn register(consul: &Consul, port: u16, tags: &[&str], check: &Value) -> Result<Value> {
    let service = json!({
        "Name": "trim_service", "ID": format!("trim-{port}"), "Address": "127.0.0.1",
        "Port": port, "Tags": tags, "Check": check, "Weights": {"Passing": 3, "Warning": 1},
    });
    consul.put("/v1/agent/service/register", &service).await
}

fn ports(set: &InstanceSet) -> Vec<u16> {
    set.instances.iter().map(|i| i.port).collect()
}

#[tokio::test]
async fn a_service_finds_registered_instances_by_consul_s_dns() {
    let (consul, dns) = start().await;
    let flags = [
        "--consul",
        &consul.address(),
        "--ip",
        "127.0.0.1",
        "--check",
        "grpc",
    ];
    let flags = [&flags[..], &["--check-interval", "1s", "--drain", "100ms"]].concat();
    let killed = testkit::trim_service(&flags).await.unwrap();
    let kept = testkit::trim_service(&flags).await.unwrap();
    let registry = format!("dns://{dns}/trim_service.service.consul");
    let mut status = watch(&registry);
    until(&mut status.1, |set| set.instances.len() == 2).await;
    let add = testkit::add_service(&["--registry", &registry])
        .await
        .unwrap();
    let concat = async || {
        let url = format!("http://{}/concat", add.http);
        let request = testkit::http_client().unwrap().post(url);
        let answer = request
            .json(&json!({"a": "1 0", "b": "2 0"}))
            .send()
            .await
            .unwrap();
        answer.text().await.unwrap()
    };
    let answers = async || (concat().await == r#"{"v":"1020"}"#).then_some(());
    eventually("an answer", answers).await;
    killed.process.signal(testkit::Signal::SIGKILL).unwrap();
    for _ in 0..20 {
        assert_eq!(concat().await, r#"{"v":"1020"}"#);
    }
    // Consul's check has failed, so DNS lists the other one alone.
    let set = until(&mut status.1, |set| set.instances.len() == 1).await;
    assert_eq!(ports(&set), [kept.grpc.port()]);
    assert_eq!(concat().await, r#"{"v":"1020"}"#);
    // A service cannot register there.
    let binary = testkit::service_binary("trim-service").await.unwrap();
    let flags = ["--listen=127.0.0.1", "--port=0", "--registry", &registry];
    let mut refused = testkit::Process::spawn(&binary, flags).unwrap();
    let status = refused
        .exit(std::time::Duration::from_secs(30))
        .await
        .unwrap();
    let said = refused.stderr();
    assert!(
        !status.success() && said.contains("DNS only lists instances"),
        "{said}"
    );
}

#[tokio::test]
async fn consul_lists_all_of_200_instances_by_tag_without_critical_ones() {
    let (consul, dns) = start().await;
    let trim = || Query::new("trim_service");
    let plain = format!("dns://{dns}/trim_service.service.consul");
    let (_watch, mut sets) = watch(&plain);
    // NXDOMAIN.
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert!(set.instances.is_empty() && set.error.is_none());
    for port in 8000..8200 {
        let tags: &[_] = if port < 8003 { &["Blue"] } else { &[] };
        register(&consul, port, tags, &Value::Null).await.unwrap();
    }
    let set = until(&mut sets, |set| set.instances.len() == 200).await;
    assert_eq!(set.instances[0].id, "127.0.0.1:8000");
    assert_eq!(set.instances[0].weight, 3);
    let critical = json!({"TTL": "1h", "Status": "critical"});
    register(&consul, 8001, &["Blue"], &critical).await.unwrap();
    until(&mut sets, |set| set.instances.len() == 199).await;
    // The tag and the datacenter of the query, where the name has places for them.
    let selecting = format!("dns://{dns}/_{{service}}._{{tag}}.service.{{datacenter}}.consul");
    let blue = trim().with_tags(["blue"]).with_datacenter("dc1");
    let (_watch, mut sets) = watch_query(&selecting, &blue);
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ports(&set), [8000, 8002]);
    let elsewhere = trim().with_tags(["blue"]).with_datacenter("dc9");
    let (_watch, mut sets) = watch_query(&selecting, &elsewhere);
    // Consul answers for a datacenter that it does not know with an empty set or an error.
    let set = until(&mut sets, |set| {
        set.confirmed.is_some() || set.error.is_some()
    })
    .await;
    assert!(set.instances.is_empty());
    // The addresses alone, at one port.
    let (_watch, mut sets) = watch(&format!("dns+a://{dns}/trim_service.service.consul:9000"));
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(set.instances[0].id, "127.0.0.1:9000");
}
