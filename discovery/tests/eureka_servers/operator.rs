//! What operators and other processes do to an entry in a real Eureka.

use std::time::Duration;

use discovery::watch::Receiver;
use discovery::{
    InstanceHealth, RegistrationState,
    registry::{Check, InstanceSet},
};
use serde_json::{Value, json};
use testkit::registries::{Eureka, Server};

use crate::{
    sets::{eventually, registration, within},
    support::{ID, LIMIT, client, registered, until_state, watch},
};

const ENTRY: &str = "/apps/TRIM_SERVICE/trim_service-127.0.0.1-8975";

async fn call(server: &Server<Eureka>, method: &str, path: &str, body: Option<&Value>) -> Value {
    server.call(method, path, body).await.unwrap()
}

/// Waits for the health of the only instance.
async fn until_health(sets: &mut Receiver<InstanceSet>, health: InstanceHealth) {
    let wanted = |set: &InstanceSet| set.instances.len() == 1 && set.instances[0].health == health;
    within(LIMIT, sets.wait_for(wanted)).await.unwrap();
}

#[tokio::test]
async fn what_an_operator_does_in_eureka_is_kept_and_shown() {
    let Some(server) = Server::start(Eureka::default()).await.unwrap() else {
        return;
    };
    // Long enough for a busy machine: the end of a lease would also end the status that was set.
    let lease = Check::ttl(Duration::from_secs(8));
    let registrar = registered(client(&server.url(), registration(8975, lease))).await;
    let (_watch, mut sets) = watch(&format!("{}?interval=100ms", server.url()));
    until_health(&mut sets, InstanceHealth::Passing).await;

    // The status survives renewals and repeated registrations.
    call(
        &server,
        "PUT",
        &format!("{ENTRY}/status?value=OUT_OF_SERVICE"),
        None,
    )
    .await;
    until_health(&mut sets, InstanceHealth::Critical).await;
    until_state(&registrar, |state| {
        state.is_registered() && !state.is_passing()
    })
    .await;
    let renewed = || async { call(&server, "GET", ENTRY, None).await["instance"].clone() };
    let before = renewed().await["leaseInfo"]["lastRenewalTimestamp"].clone();
    // A repeated registration stands with its own status for a moment, before Eureka applies the override.
    eventually("renewed, with the status kept", async || {
        let now = renewed().await;
        let renewed = now["leaseInfo"]["lastRenewalTimestamp"] != before;
        (renewed && now["status"] == "OUT_OF_SERVICE").then_some(())
    })
    .await;

    // Without it, Eureka asks for a new registration by 404.
    call(&server, "DELETE", &format!("{ENTRY}/status"), None).await;
    until_state(&registrar, RegistrationState::is_passing).await;
    until_health(&mut sets, InstanceHealth::Passing).await;

    // Metadata that an operator adds.
    call(&server, "PUT", &format!("{ENTRY}/metadata?owner=me"), None).await;
    let added = |set: &InstanceSet| set.instances[0].meta.contains_key("owner");
    within(LIMIT, sets.wait_for(added)).await.unwrap();
    assert!(registrar.state().borrow().is_registered());

    // An entry that was deleted, and one that another process has replaced.
    call(&server, "DELETE", ENTRY, None).await;
    let back = |set: &InstanceSet| !set.instances.is_empty();
    within(LIMIT, sets.wait_for(back)).await.unwrap();
    until_health(&mut sets, InstanceHealth::Passing).await;
    let other = json!({ "instance": {
        "instanceId": ID, "app": "TRIM_SERVICE", "hostName": "h", "ipAddr": "127.0.0.2", "status": "UP",
        "port": { "$": 1, "@enabled": "true" }, "lastDirtyTimestamp": i64::MAX / 1000,
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
        },
    }});
    call(&server, "POST", "/apps/TRIM_SERVICE", Some(&other)).await;
    let again = async || {
        let entry = call(&server, "GET", ENTRY, None).await;
        (entry["instance"]["ipAddr"] == "127.0.0.1").then_some(())
    };
    eventually("registered again, although its clock is behind", again).await;
    until_state(&registrar, RegistrationState::is_registered).await;
    registrar.deregister(LIMIT).await.unwrap();
    within(LIMIT, sets.wait_for(|set| set.instances.is_empty()))
        .await
        .unwrap();
}
