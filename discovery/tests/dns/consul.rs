//! Consul's own DNS.

use std::sync::Arc;

use anyhow::Result;
use discovery::registry::{InstanceSet, Instancer, Query};
use serde_json::{Value, json};
use testkit::Consul;
use tokio::sync::watch::Receiver;

use crate::{sets::until, watch_query};

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

fn watch(url: &str, query: Query) -> (Arc<dyn Instancer>, Receiver<InstanceSet>) {
    watch_query(url, &query)
}

fn ports(set: &InstanceSet) -> Vec<u16> {
    set.instances.iter().map(|i| i.port).collect()
}

#[tokio::test]
async fn consul_lists_all_of_200_instances_by_tag_without_critical_ones() {
    let (consul, dns) = start().await;
    let trim = || Query::new("trim_service");
    let plain = format!("dns://{dns}/trim_service.service.consul");
    let (_watch, mut sets) = watch(&plain, trim());
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
    let (_watch, mut sets) = watch(&selecting, blue);
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ports(&set), [8000, 8002]);
    let elsewhere = trim().with_tags(["blue"]).with_datacenter("dc9");
    let (_watch, mut sets) = watch(&selecting, elsewhere);
    // Consul answers for a datacenter that it does not know with an empty set or an error.
    let set = until(&mut sets, |set| {
        set.confirmed.is_some() || set.error.is_some()
    })
    .await;
    assert!(set.instances.is_empty());
    // The addresses alone, at one port.
    let (_watch, mut sets) = watch(
        &format!("dns+a://{dns}/trim_service.service.consul:9000"),
        trim(),
    );
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(set.instances[0].id, "127.0.0.1:9000");
}
