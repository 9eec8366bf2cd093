//! The processes of the services in Go: `scripts/gokit`, which `scripts/get-gokit.sh` builds.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use testkit::Process;

const LIMIT: Duration = Duration::from_secs(30);

/// A running trim service in Go.
pub(crate) struct GoTrim {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl GoTrim {
    /// Starts it with these flags; it registers itself.
    pub(crate) async fn start(binary: &Path, consul: &str, flags: &[&str]) -> Result<Self> {
        let arguments = [&["trim", "--consul", consul], flags].concat();
        let process = Process::spawn(binary, arguments)?;
        let address = listening(&process, "grpc").await?;
        Ok(Self {
            process,
            port: address.port(),
        })
    }
}

/// A running add service in Go.
pub(crate) struct GoAdd {
    pub(crate) http: SocketAddr,
    _process: Process,
}

impl GoAdd {
    /// Starts one of the binary's add services: that of Go kit (`add`) or of grpc-go (`add-grpc`).
    pub(crate) async fn start(binary: &Path, service: &str, consul: &str) -> Result<Self> {
        let process = Process::spawn(binary, [service, "--consul", consul])?;
        Ok(Self {
            http: listening(&process, "http").await?,
            _process: process,
        })
    }
}

/// The address that a service prints when it serves.
async fn listening(process: &Process, name: &str) -> Result<SocketAddr> {
    let line = process.stdout_line("listening", LIMIT).await;
    let line = line.with_context(|| process.stderr())?;
    let prefix = format!("{name}=");
    let address = line
        .split(' ')
        .find_map(|field| field.strip_prefix(&prefix));
    Ok(address
        .with_context(|| format!("no {name} in {line:?}"))?
        .parse()?)
}
