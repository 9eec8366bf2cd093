//! The clients of Eureka that Python and JavaScript programs use read what is registered here, and the
//! other way round.
//!
//! `scripts/get-eureka-peer.sh` installs each into the cache, and prints its folder for
//! `EUREKA_PYTHON_HOME` and `EUREKA_JAVASCRIPT_HOME`.

use std::{env, path::Path};

use discovery::watch::Receiver;
use discovery::{
    InstanceHealth,
    registry::{Check, InstanceSet},
};
use testkit::{
    Process, Signal,
    registries::{Eureka, Server, skip},
};

use crate::{
    sets::{registration, within},
    support::{ID, LIMIT, client, registered, watch},
};

/// A program with another client.
struct Peer {
    program: &'static str,
    script: String,
    /// The client's packages, for a program that does not find them beside its script.
    packages: String,
    server: String,
}

impl Peer {
    /// The peer of this language at a Eureka of the test's own. `None` without one of them, which has been
    /// said.
    async fn start(
        language: &str,
        program: &'static str,
        script: &str,
    ) -> Option<(Self, Server<Eureka>)> {
        let variable = format!("EUREKA_{}_HOME", language.to_uppercase());
        let Some(home) = env::var_os(&variable) else {
            let reason = format!(
                "{variable} is not set; set it to what `scripts/get-eureka-peer.sh {language}` prints"
            );
            skip(&format!("Eureka's client of {language}"), &reason).unwrap();
            return None;
        };
        let home = Path::new(&home);
        let server = Server::start(Eureka::default()).await.unwrap()?;
        let peer = Self {
            program,
            script: home.join(script).display().to_string(),
            packages: home.join("packages").display().to_string(),
            server: server.address(),
        };
        Some((peer, server))
    }

    fn run(&self, arguments: &[&str]) -> Process {
        let server = match self.program {
            "python3" => format!("http://{}/eureka", self.server),
            _ => self.server.clone(),
        };
        let arguments = [&[&*self.script, &*server], arguments].concat();
        // Without a cache of compiled files in the folder of the packages.
        let environment = [
            ("PYTHONPATH", &*self.packages),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ];
        Process::spawn_with(Path::new(self.program), arguments, environment).unwrap()
    }

    /// It sees an instance that is registered here, and its end.
    async fn sees_ours(&self, url: &str, seen: &str, empty: &str) {
        let watch = self.run(&["watch", "trim_service"]);
        shows(&watch, empty).await;
        let mut wanted = registration(8975, Check::Default);
        wanted.instance = wanted.instance.with_tags(["blue", "b"]).with_zone("a");
        let registrar = registered(client(url, wanted)).await;
        shows(&watch, seen).await;
        registrar.deregister(LIMIT).await.unwrap();
        shows(&watch, empty).await;
    }

    /// It registers an instance that is found here, by application and by VIP address, until it ends.
    async fn is_seen(&self, url: &str, id: &str) {
        let (_watch, mut sets) = watch(url);
        let (_by_vip, mut by_vip) = watch(&format!("{url}?vip=true"));
        let mut peer = self.run(&["register", "trim_service", "8976"]);
        for sets in [&mut sets, &mut by_vip] {
            let set = until(sets, |set| !set.instances.is_empty()).await;
            let instance = &set.instances[0];
            assert_eq!(
                (&*instance.id, &*instance.authority()),
                (id, "127.0.0.1:8976")
            );
            assert_eq!(instance.tags, ["a", "b"]);
            assert_eq!(instance.health, InstanceHealth::Passing);
        }
        peer.signal(Signal::SIGTERM).unwrap();
        for sets in [&mut sets, &mut by_vip] {
            until(sets, |set| set.usable().count() == 0).await;
        }
        peer.exit(LIMIT).await.unwrap();
    }
}

/// The first set that satisfies `wanted`, of programs that start on a busy machine.
async fn until(
    sets: &mut Receiver<InstanceSet>,
    wanted: impl FnMut(&InstanceSet) -> bool,
) -> InstanceSet {
    within(LIMIT, sets.wait_for(wanted)).await.unwrap().clone()
}

/// Waits until the last line of the program's output is this one.
async fn shows(process: &Process, expected: &str) {
    let last = async || {
        let output = process.stdout();
        let last = output.lines().last().unwrap_or_default().to_owned();
        if last == expected { Ok(()) } else { Err(last) }
    };
    testkit::eventually(expected, LIMIT, last).await.unwrap();
}

#[tokio::test]
async fn py_eureka_client_sees_ours_and_is_seen() {
    let Some((peer, server)) = Peer::start("python", "python3", "peer.py").await else {
        return;
    };
    let seen = format!("[{ID}=127.0.0.1:8975=tags=blue,b,zone=a]");
    peer.sees_ours(&server.url(), &seen, "[]").await;
    peer.is_seen(&server.url(), "127.0.0.1:trim_service:8976")
        .await;
}

#[tokio::test]
async fn eureka_js_client_sees_ours_and_is_seen() {
    let Some((peer, server)) = Peer::start("javascript", "node", "peer.js").await else {
        return;
    };
    let entry = format!("[{ID}=127.0.0.1:8975=tags=blue,b,zone=a]");
    // By application, and by VIP address.
    peer.sees_ours(&server.url(), &format!("{entry} {entry}"), "[] []")
        .await;
    peer.is_seen(&server.url(), "trim_service-127.0.0.1-8976")
        .await;
}
