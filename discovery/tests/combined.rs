//! Several registries as one: an instance that moves between them keeps its connection.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use discovery::{
    Channel, ChannelStatus, Instance,
    registry::{OrElse, StaticRegistry, Union},
};
use proto::{TrimRequest, trim_client::TrimClient};

use crate::support::TrimServer;

fn instances(servers: &[&TrimServer], registry: &str) -> Vec<Instance> {
    let named = |server: &&TrimServer| {
        let instance = server.instance();
        let id = format!("{registry}-{}", instance.port);
        instance.with_id(id)
    };
    servers.iter().map(named).collect()
}

async fn call(channel: &Channel) {
    let request = TrimRequest {
        s: " a ".to_owned(),
    };
    let mut client = TrimClient::new(channel.clone());
    client.trim_space(request).await.unwrap();
}

async fn wait_for(channel: &Channel, endpoints: usize) {
    let ready = |status: &ChannelStatus| status.ready == endpoints;
    channel.wait_for(ready).await.unwrap();
}

#[tokio::test]
async fn moving_from_one_registry_to_another_loses_no_call_and_no_connection() {
    let (a, b) = (TrimServer::start().await, TrimServer::start().await);
    let old = StaticRegistry::new(instances(&[&a, &b], "old"));
    let new = StaticRegistry::new([]);
    let both = Union::new(Arc::new(old.clone())).with(Arc::new(new.clone()));
    let channel = Channel::from_registry(Arc::new(both), "trim")
        .build()
        .unwrap();
    wait_for(&channel, 2).await;
    let steps: [&dyn Fn(); 3] = [
        &|| new.set(instances(&[&a], "new")),
        &|| new.set(instances(&[&a, &b], "new")),
        &|| old.set([]),
    ];
    for step in steps {
        step();
        for _ in 0..20 {
            call(&channel).await;
        }
    }
    assert_eq!((a.connections_made(), b.connections_made()), (1, 1));
    assert_eq!(a.calls() + b.calls(), 60);
}

#[tokio::test]
async fn the_fallback_answers_until_the_first_registry_lists_an_instance() {
    let (a, b) = (TrimServer::start().await, TrimServer::start().await);
    let first = StaticRegistry::new([]);
    let second = StaticRegistry::new(instances(&[&b], "second"));
    let registry = OrElse::new(Arc::new(first.clone()), Arc::new(second));
    let channel = Channel::from_registry(Arc::new(registry), "trim")
        .build()
        .unwrap();
    wait_for(&channel, 1).await;
    call(&channel).await;
    assert_eq!((a.calls(), b.calls()), (0, 1));
    first.set(instances(&[&a], "first"));
    let address = a.instance().authority();
    let listed = |status: &ChannelStatus| {
        let endpoints = channel.endpoints();
        let addresses = endpoints.iter().map(|e| e.instance.authority());
        status.ready == 1 && addresses.eq([address.clone()])
    };
    channel.wait_for(listed).await.unwrap();
    call(&channel).await;
    assert_eq!((a.calls(), b.calls()), (1, 1));
}
