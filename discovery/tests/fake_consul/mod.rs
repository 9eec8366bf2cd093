//! Answers of a fake Consul, and the watch of it, for the tests of its faults.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use discovery::registry::{
    Instancer, Query, Registry as _,
    consul::{Config, Consul},
};
use serde_json::{Value, json};
use testkit::fake::FakeServer;

/// The time that the fake holds a query back. More than half of the watch's `wait` counts as held.
pub(crate) const HELD: Duration = Duration::from_millis(600);

pub(crate) fn config(server: &FakeServer) -> Config {
    Config::new(server.address().to_string())
        .with_wait(Duration::from_secs(1))
        .with_request_timeout(Duration::from_millis(500))
        .with_body_limit(8192)
}

pub(crate) fn watch_of(config: &Config) -> Arc<dyn Instancer> {
    let consul = Consul::new(config).unwrap();
    consul.instancer(&Query::new("trim_service")).unwrap()
}

pub(crate) fn entry(id: &str, address: &str, port: i64) -> Value {
    json!({
        "Node": {"Node": "n", "Address": address, "Datacenter": "dc1", "Meta": null},
        "Service": {"ID": id, "Service": "trim_service", "Address": address, "Port": port,
                    "Tags": null, "Meta": null, "Weights": {"Passing": 1, "Warning": 1}},
        "Checks": [],
    })
}

pub(crate) fn list(ids: &[&str]) -> String {
    let entries: Vec<_> = ids.iter().map(|id| entry(id, "127.0.0.1", 8975)).collect();
    Value::from(entries).to_string()
}
