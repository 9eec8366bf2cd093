//! Curator, the Java client, reads what is registered here, and the other way round.
//!
//! `scripts/get-curator.sh` makes the program and prints its folder for `CURATOR_HOME`.

use std::{env, path::Path};

use discovery::{InstanceHealth, registry::Check};
use testkit::{
    Process, Signal,
    registries::{Server, ZooKeeper, skip},
};

use crate::{
    LIMIT, registered,
    sets::{registration, until},
    start, watch,
};

/// Runs the program with Curator, or says that the test is skipped.
fn curator(server: &Server<ZooKeeper>, arguments: &[&str]) -> Option<Process> {
    let Some(home) = env::var_os("CURATOR_HOME") else {
        let reason = "CURATOR_HOME is not set; set it to what `scripts/get-curator.sh` prints";
        skip("curator", reason).unwrap();
        return None;
    };
    let home = Path::new(&home).display().to_string();
    let classes = format!("{home}/classes:{home}/lib/*");
    let address = server.address();
    let (command, rest) = arguments.split_first().unwrap();
    let fixed = [
        "-Xmx64m",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        &classes,
        "discovery.CuratorPeer",
    ];
    let all = fixed
        .into_iter()
        .chain([*command, &address])
        .chain(rest.iter().copied());
    Some(Process::spawn(Path::new("java"), all).unwrap())
}

#[tokio::test]
async fn curator_finds_what_is_registered_here() {
    let Some(server) = start().await else { return };
    let mut wanted = registration(8975, Check::Default);
    wanted.instance = wanted.instance.with_tags(["blue"]).with_zone("a");
    let _registrar = registered(crate::client(&server.url(), wanted)).await;
    for payload in ["spring", "map"] {
        let list = ["list", "/services", "trim_service", payload];
        let Some(mut curator) = curator(&server, &list) else {
            return;
        };
        assert!(curator.exit(LIMIT).await.unwrap().success());
        let found = curator.stdout();
        let id = "trim_service-127.0.0.1-8975 127.0.0.1 8975";
        assert!(found.starts_with(id), "{found:?}");
        let metadata = "instance_status=UP, tags=blue, zone=a";
        assert!(found.contains(metadata), "{found:?}");
        assert_eq!(found.lines().count(), 1, "{found:?}");
    }
}

#[tokio::test]
async fn what_curator_registers_is_found_here() {
    let Some(server) = start().await else { return };
    let (_watch, mut sets) = watch(&server.url());
    for (payload, zone, health) in [
        ("spring", Some("z1"), InstanceHealth::Passing),
        ("map", Some("z1"), InstanceHealth::Unknown),
        ("none", None, InstanceHealth::Unknown),
    ] {
        let register = [
            "register",
            "/services",
            "trim_service",
            payload,
            payload,
            "10.0.0.1",
            "80",
        ];
        let Some(mut curator) = curator(&server, &register) else {
            return;
        };
        curator.stdout_line("registered", LIMIT).await.unwrap();
        let set = until(&mut sets, |set| !set.instances.is_empty()).await;
        let instance = &set.instances[0];
        assert_eq!(
            (&*instance.id, &*instance.host, instance.port),
            (payload, "10.0.0.1", 80)
        );
        assert_eq!((instance.zone.as_deref(), instance.health), (zone, health));
        curator.signal(Signal::SIGKILL).unwrap();
        curator.exit(LIMIT).await.unwrap();
        until(&mut sets, |set| set.instances.is_empty()).await;
    }
}
