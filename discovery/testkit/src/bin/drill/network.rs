//! A host of its own for one trim service: a network namespace joined to this one by a pair of
//! virtual interfaces, which can be made to swallow every packet both ways.
//!
//! Swallowing is done by giving each side a false hardware address for the other: packets go out and
//! nobody takes them, as on a real network that has failed, and no error comes back. It needs no
//! packet filter in the kernel.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use testkit::{Process, service_binary};

/// Addresses that no real network uses (RFC 5737).
const HERE: &str = "192.0.2.1";
pub(crate) const THERE: &str = "192.0.2.2";
pub(crate) const PORT: u16 = 8975;
const NOWHERE: &str = "02:00:00:00:00:99";

/// The other host. Dropping it removes it.
pub(crate) struct Host {
    name: String,
    _process: Process,
}

/// Why there can be none, if there can be none.
pub(crate) fn unavailable() -> Option<String> {
    let probe = format!("drill-probe-{}", std::process::id());
    let result = ip(&["netns", "add", &probe]);
    // Only there if the line above has made it.
    let _removed = ip(&["netns", "delete", &probe]);
    let error = result.err()?;
    Some(format!(
        "network namespaces need root and iproute2: {error:#}"
    ))
}

impl Host {
    /// A host with a trim service on it, which serves and does not register.
    pub(crate) async fn start() -> Result<Self> {
        let name = format!("drill-{}", std::process::id());
        let (near, far) = (near(), format!("dr{}f", std::process::id()));
        ip(&["netns", "add", &name])?;
        ip(&[
            "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &name,
        ])?;
        ip(&["address", "add", &format!("{HERE}/30"), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", &*name], arguments].concat());
        inside(&["address", "add", &format!("{THERE}/30"), "dev", &far])?;
        inside(&["link", "set", &far, "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        let binary = service_binary("trim-service").await?;
        let binary = binary
            .to_str()
            .context("the target folder's name is no text")?;
        // Its Consul is not there, so it serves and goes on trying; the drill registers it.
        let process = Process::spawn(
            "ip".as_ref(),
            [
                "netns",
                "exec",
                &name,
                binary,
                "--port",
                &PORT.to_string(),
                "--listen",
                THERE,
                "--consul",
                "127.0.0.1:1",
            ],
        )?;
        process
            .stdout_line("listening", std::time::Duration::from_secs(30))
            .await?;
        Ok(Self {
            name,
            _process: process,
        })
    }

    /// From now on no packet arrives on either side.
    pub(crate) fn swallow(&self) -> Result<()> {
        let far = format!("dr{}f", std::process::id());
        let permanent = ["lladdr", NOWHERE, "nud", "permanent", "dev"];
        ip(&[&["neighbour", "replace", THERE], &permanent[..], &[&near()]].concat())?;
        ip(&[
            &["-n", &*self.name, "neighbour", "replace", HERE],
            &permanent[..],
            &[&far],
        ]
        .concat())
    }

    /// Packets arrive again.
    pub(crate) fn heal(&self) -> Result<()> {
        let far = format!("dr{}f", std::process::id());
        ip(&["neighbour", "delete", THERE, "dev", &near()])?;
        ip(&["-n", &self.name, "neighbour", "delete", HERE, "dev", &far])
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The pair of interfaces goes with the namespace that holds one of them.
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

fn near() -> String {
    format!("dr{}n", std::process::id())
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
