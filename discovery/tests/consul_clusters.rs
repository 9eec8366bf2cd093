//! Clusters of real Consuls: a server that hangs, and two datacenters over WAN.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed; measured times are of interest"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::{
    Channel, Registrar, RegistrationState,
    registry::{self, Check, Registration},
};
use proto::{TrimRequest, trim_client::TrimClient};
use serde_json::json;
use support::TrimServer;
use testkit::Consul;
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Calls without pause until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    caller: JoinHandle<Vec<String>>,
}

impl Load {
    fn start(channel: &Channel) -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut client = TrimClient::new(channel.clone());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&made));
        let caller = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(SeqCst) {
                if let Err(status) = client.trim_space(TrimRequest { s: "x".into() }).await {
                    failures.push(status.to_string());
                }
                count.fetch_add(1, SeqCst);
                sleep(Duration::from_millis(5)).await;
            }
            failures
        });
        Self { stop, made, caller }
    }

    /// The number of calls. Fails the test if one failed.
    async fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        let failures = self.caller.await.unwrap();
        let made = self.made.load(SeqCst);
        assert!(
            failures.is_empty(),
            "{} of {made}: {failures:?}",
            failures.len()
        );
        made
    }
}

fn channel(url: &str, service: &str) -> Channel {
    Channel::builder(url, service)
        .idempotent(["/pb.Trim/TrimSpace"])
        .retry_timeout(Duration::from_secs(20))
        .attempt_timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

async fn register(consul: &Consul, service: &str, server: &TrimServer) -> Registrar {
    let ip = [127, 0, 0, 1].into();
    let named = discovery::Instance::named(service, ip, server.instance().port).unwrap();
    let registry = registry::connect(&consul.url()).unwrap();
    let check = Check::grpc().with_interval(Duration::from_secs(1));
    let client = registry
        .registration(Registration::new(named, check))
        .unwrap();
    let registrar = Registrar::start(client).unwrap();
    let mut state = registrar.state();
    let registered = state.wait_for(RegistrationState::is_registered);
    registered.await.unwrap();
    registrar
}

/// Waits until so many of the channel's instances are offered by the registry.
async fn until_listed(channel: &Channel, count: usize, limit: Duration) -> Duration {
    let begun = Instant::now();
    let listed = channel.wait_for(|status| status.listed == count);
    let listed = timeout(limit, listed).await;
    assert!(listed.is_ok(), "not {count} listed: {:?}", channel.status());
    begun.elapsed()
}

/// Long enough for Consul's own timers on a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_server_agent_of_all_instances_hangs() {
    let cluster = Consul::options().start_cluster(3).await.unwrap();
    let mut followers = Vec::new();
    let mut leader = None;
    for consul in &cluster {
        if consul.is_leader().await.unwrap() {
            leader = Some(consul);
        } else {
            followers.push(consul);
        }
    }
    let (leader, home) = (leader.unwrap(), followers[0]);
    let servers = TrimServer::start_many(3).await;
    let mut registrars = Vec::new();
    for server in &servers {
        registrars.push(register(home, "kept_service", server).await);
        // Nothing maintains this registration but the agent.
        let port = server.instance().port;
        let body = json!({"ID": format!("plain-{port}"), "Name": "plain_service",
                          "Address": "127.0.0.1", "Port": port});
        home.put("/v1/agent/service/register", &body).await.unwrap();
    }
    let kept = channel(&leader.url(), "kept_service");
    let plain = channel(&leader.url(), "plain_service");
    for channel in [&kept, &plain] {
        until_listed(channel, 3, LIMIT).await;
        channel.wait_for(|status| status.ready == 3).await.unwrap();
    }
    let loads = [&kept, &plain].map(Load::start);

    let hung = Instant::now();
    home.pause().unwrap();
    let lost = until_listed(&kept, 0, LIMIT).await;
    sleep(Duration::from_secs(25).saturating_sub(hung.elapsed())).await;
    home.resume().unwrap();
    let resumed = Instant::now();
    let back = until_listed(&kept, 3, LIMIT).await;
    until_listed(&plain, 3, LIMIT).await;
    eprintln!(
        "lost after {lost:.1?}; back {back:.1?} after the agent, without a registrar {:.1?}; not listed \
         for {:.1?}",
        resumed.elapsed(),
        hung.elapsed().saturating_sub(lost)
    );
    for load in loads {
        assert!(load.end().await > 100);
    }

    // One that is deregistered alone goes at once, although its connection works.
    let begun = Instant::now();
    registrars.pop().unwrap().deregister(LIMIT).await.unwrap();
    kept.wait_for(|status| status.instances == 2).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// The servers of one datacenter, in a runtime of their own, which ends as a process does.
struct Site {
    runtime: Option<Runtime>,
    servers: Vec<TrimServer>,
}

impl Site {
    async fn start() -> Self {
        let runtime = runtime();
        let servers = runtime.spawn(TrimServer::start_many(3)).await.unwrap();
        Self {
            runtime: Some(runtime),
            servers,
        }
    }

    /// Closes all sockets at once.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    async fn restart(&mut self) {
        let runtime = runtime();
        let mut servers = std::mem::take(&mut self.servers);
        let restarted = runtime.spawn(async {
            for server in &mut servers {
                server.restart().await;
            }
            servers
        });
        self.servers = restarted.await.unwrap();
        self.runtime = Some(runtime);
    }

    fn calls(&self) -> usize {
        self.servers.iter().map(TrimServer::calls).sum()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Calls until one arrives at this site. A channel's status counts a connection a moment before calls use it.
async fn until_called(channel: &Channel, site: &Site) {
    let mut client = TrimClient::new(channel.clone());
    let called = site.calls();
    let calls = async {
        while site.calls() == called {
            let request = TrimRequest { s: "x".into() };
            client.trim_space(request).await.unwrap();
        }
    };
    timeout(LIMIT, calls).await.unwrap();
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_to_the_second_datacenter_and_return_when_the_first_is_back() {
    let mut home = Consul::options().datacenter("home").start().await.unwrap();
    let away = Consul::options().datacenter("away").start().await.unwrap();
    home.join_wan(&away).await.unwrap();
    let (mut near, far) = (Site::start().await, Site::start().await);
    let mut registrars = Vec::new();
    for (consul, site) in [(&home, &near), (&away, &far)] {
        for server in &site.servers {
            registrars.push(register(consul, "trim_service", server).await);
        }
    }
    let channel = channel(&format!("{}?dc=home,away", home.url()), "trim_service");
    until_listed(&channel, 6, LIMIT).await;
    channel.wait_for(|status| status.ready == 6).await.unwrap();
    until_called(&channel, &near).await;
    let before = far.calls();
    let loads: Vec<_> = (0..4).map(|_| Load::start(&channel)).collect();
    let called = near.calls();
    support::eventually(|| near.calls() > called + 200).await;
    assert_eq!(far.calls(), before, "the first datacenter is preferred");

    // The whole datacenter is gone: its Consul, which the client asks, and its instances.
    home.kill().await.unwrap();
    near.kill();
    support::eventually(|| far.calls() > before + 200).await;
    sleep(Duration::from_secs(3)).await;

    near.restart().await;
    home.restart().await.unwrap();
    let returned = Instant::now();
    home.join_wan(&away).await.unwrap();
    let called = near.calls();
    support::eventually(|| near.calls() > called + 20).await;
    let back = returned.elapsed();
    eprintln!("back home {back:.1?} after its return");
    until_listed(&channel, 6, LIMIT).await;
    let made = loads.into_iter().map(Load::end);
    let made: usize = futures_util::future::join_all(made).await.into_iter().sum();
    assert!(made > 400, "{made}");
    assert!(back < Duration::from_secs(2), "{back:?}");
    // Calls stay at home again, once the registry has confirmed it and its instances are connected.
    support::eventually(|| {
        let status = channel.status();
        status.registry_error.is_none() && status.listed == 6 && status.ready == 6
    })
    .await;
    until_called(&channel, &near).await;
    let at = far.calls();
    let load = Load::start(&channel);
    let called = near.calls();
    support::eventually(|| near.calls() > called + 50).await;
    load.end().await;
    assert_eq!(far.calls(), at);
    drop(registrars);
}
