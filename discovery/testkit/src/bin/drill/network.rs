//! A host of its own for one trim service: a network namespace joined to this one by a pair of
//! virtual interfaces, which can drop every packet in both directions.
//!
//! To drop packets, each side gets a wrong hardware address of the other. Packets leave and do not
//! arrive, as on a real network that has failed, and no error is returned. This needs no packet filter
//! in the kernel.

use std::{process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testkit::{Process, Signal, service_binary};
use tokio::sync::{Mutex, MutexGuard};

use crate::env::Env;

/// Networks for documentation (RFC 5737). The first in which this machine has no address is used:
/// some sandboxes use them.
const NETWORKS: [&str; 3] = ["192.0.2", "198.51.100", "203.0.113"];
const PORT: u16 = 8975;
const NOWHERE: &str = "02:00:00:00:00:99";

/// Waits until this process has no host: the names of a host's parts are those of the process.
pub(crate) async fn only() -> MutexGuard<'static, ()> {
    static HOST: Mutex<()> = Mutex::const_new(());
    HOST.lock().await
}

/// The other host. Dropping it removes it.
pub(crate) struct Host {
    name: String,
    here: String,
    there: String,
    process: Process,
}

/// The reason why this machine cannot have such a host, if it cannot.
pub(crate) fn unavailable() -> Option<String> {
    // Found out once: a later attempt would collide with a running host.
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    REASON.get_or_init(probe).clone()
}

fn probe() -> Option<String> {
    let probe = format!("drill-probe-{}", std::process::id());
    let result = ip(&["netns", "add", &probe]).and_then(|()| join(&probe));
    // They exist only if the lines above made them.
    let _removed = ip(&["link", "delete", &near()]);
    let _removed = ip(&["netns", "delete", &probe]);
    let error = result.err()?;
    Some(format!(
        "network namespaces need root, iproute2 and a kernel with veth: {error:#}"
    ))
}

impl Host {
    /// A host with a trim service on it, which serves and does not register.
    pub(crate) async fn start() -> Result<Self> {
        let network = free_network()?;
        let (here, there) = (format!("{network}.1"), format!("{network}.2"));
        let name = format!("drill-{}", std::process::id());
        let (near, far) = (near(), far());
        ip(&["netns", "add", &name])?;
        join(&name)?;
        ip(&["address", "add", &format!("{here}/30"), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", &*name], arguments].concat());
        inside(&["address", "add", &format!("{there}/30"), "dev", &far])?;
        inside(&["link", "set", &far, "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        let process = serve(&name, &there).await?;
        Ok(Self {
            name,
            here,
            there,
            process,
        })
    }

    /// Registers the host's trim service, which cannot reach Consul itself, and waits until the add
    /// service is connected to it. Returns the ID of the instance.
    pub(crate) async fn join(&self, env: &Env) -> Result<String> {
        let id = format!("trim_service-{}-{PORT}", self.there);
        env.register(&id, &self.there, PORT).await?;
        env.ready(env.trims.len() + 1).await?;
        Ok(id)
    }

    /// Drops all packets in both directions from now on.
    pub(crate) fn drop_packets(&self) -> Result<()> {
        let permanent = ["lladdr", NOWHERE, "nud", "permanent", "dev"];
        let (near, far) = (near(), far());
        ip(&[
            &["neighbour", "replace", &self.there],
            &permanent[..],
            &[&near],
        ]
        .concat())?;
        self.inside(
            &[
                &["neighbour", "replace", &self.here],
                &permanent[..],
                &[&far],
            ]
            .concat(),
        )
    }

    /// Delivers packets again.
    pub(crate) fn heal(&self) -> Result<()> {
        ip(&["neighbour", "delete", &self.there, "dev", &near()])?;
        self.inside(&["neighbour", "delete", &self.here, "dev", &far()])
    }

    /// Ends the host's process while packets are dropped: its peers still hold the connection open.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.exit(Duration::from_secs(30)).await?;
        Ok(())
    }

    /// Restarts the trim service, without the connections made before.
    pub(crate) async fn reboot(&mut self) -> Result<()> {
        self.process = serve(&self.name, &self.there).await?;
        Ok(())
    }

    fn inside(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &*self.name], arguments].concat())
    }
}

fn free_network() -> Result<&'static str> {
    let free = NETWORKS.into_iter().find(|network| {
        Command::new("ip")
            .args(["-4", "address", "show"])
            .output()
            .is_ok_and(|output| {
                !String::from_utf8_lossy(&output.stdout).contains(&format!("inet {network}."))
            })
    });
    free.with_context(|| format!("this machine uses every one of {NETWORKS:?}"))
}

async fn serve(namespace: &str, address: &str) -> Result<Process> {
    let binary = service_binary("trim-service").await?;
    let binary = binary
        .to_str()
        .context("the target folder's name is not UTF-8")?;
    let port = PORT.to_string();
    // It cannot reach a Consul, so it serves and keeps trying. The drill registers it.
    let process = Process::spawn(
        "ip".as_ref(),
        [
            "netns",
            "exec",
            namespace,
            binary,
            "--port",
            &port,
            "--listen",
            address,
            "--consul",
            "127.0.0.1:1",
        ],
    )?;
    process
        .stdout_line("listening", Duration::from_secs(30))
        .await?;
    Ok(process)
}

impl Drop for Host {
    fn drop(&mut self) {
        // Removing one interface, or the namespace that holds the other, removes both.
        if let Err(error) =
            ip(&["link", "delete", &near()]).and_then(|()| ip(&["netns", "delete", &self.name]))
        {
            eprintln!(
                "cannot remove the network namespace {}: {error:#}",
                self.name
            );
        }
    }
}

/// Makes the pair of interfaces, one of them in the namespace.
fn join(namespace: &str) -> Result<()> {
    let (near, far) = (near(), far());
    ip(&[
        "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", namespace,
    ])
}

fn near() -> String {
    format!("dr{}n", std::process::id())
}

fn far() -> String {
    format!("dr{}f", std::process::id())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("cannot run ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
