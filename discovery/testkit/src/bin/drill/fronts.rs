//! Servers that end their connections in order (GOAWAY, `NO_ERROR`): nginx in front of trim services, and
//! servers with a maximum age of connections. The drill registers their addresses.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use testkit::{AgedServer, Process, eventually, free_ports};
use tokio::net::TcpStream;

/// The fronts of one row. Dropping them ends them.
pub(crate) enum Fronts {
    Nginx(Box<Nginx>),
    Aged(Vec<AgedServer>),
}

impl Fronts {
    pub(crate) async fn aged(count: usize, age: Duration) -> Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(AgedServer::start(age).await?);
        }
        Ok(Self::Aged(servers))
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Nginx(nginx) => nginx.addresses.to_vec(),
            Self::Aged(servers) => servers.iter().map(AgedServer::address).collect(),
        }
    }

    /// Connections that were made after others had ended: all but the first to each address.
    pub(crate) fn renewed(&self) -> Result<usize> {
        let made = match self {
            Self::Nginx(nginx) => nginx.connections()?,
            Self::Aged(servers) => servers.iter().map(AgedServer::connections).sum(),
        };
        Ok(made.saturating_sub(self.addresses().len()))
    }
}

/// Trim services behind nginx. With few of them, each connection reaches nginx's 1 000 requests in a row
/// of four seconds too.
pub(crate) const BEHIND_NGINX: usize = 3;

/// nginx as a proxy for gRPC with its defaults: it ends a connection after 1 000 requests
/// (`keepalive_requests`).
pub(crate) struct Nginx {
    addresses: [SocketAddr; BEHIND_NGINX],
    _process: Process,
    dir: TempDir,
}

/// The nginx that `scripts/drill.sh` has found or fetched.
fn binary() -> Result<PathBuf, String> {
    match env::var_os("NGINX_BIN") {
        Some(binary) if !binary.is_empty() => Ok(binary.into()),
        _ => Err("NGINX_BIN names no nginx; scripts/get-nginx.sh fetches one".to_owned()),
    }
}

impl Nginx {
    /// The reason why there is no nginx on this machine, if there is none.
    pub(crate) fn unavailable() -> Option<String> {
        binary().err()
    }

    /// Starts nginx in front of these servers.
    pub(crate) async fn start(servers: [SocketAddr; BEHIND_NGINX]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let addresses = free_ports()?.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let file = dir.path().join("nginx.conf");
        fs::write(&file, configuration(&addresses, &servers)?)?;
        let binary = binary().map_err(anyhow::Error::msg)?;
        let arguments = [
            "-p".as_ref(),
            dir.path().as_os_str(),
            "-c".as_ref(),
            file.as_os_str(),
        ];
        let process = Process::spawn(&binary, arguments)?;
        for address in addresses {
            let listens = async || TcpStream::connect(address).await.is_ok();
            let limit = Duration::from_secs(30);
            let waited = eventually("nginx to listen", limit, listens).await;
            waited.with_context(|| process.stderr())?;
        }
        Ok(Self {
            addresses,
            _process: process,
            dir,
        })
    }

    /// Connections on which there was a request.
    fn connections(&self) -> Result<usize> {
        let log = fs::read_to_string(self.dir.path().join("connections.log"))?;
        Ok(log.lines().collect::<BTreeSet<_>>().len())
    }
}

/// One process, whose files are all in its folder (`-p`); everything else has nginx's defaults.
fn configuration(addresses: &[SocketAddr], servers: &[SocketAddr]) -> Result<String> {
    let mut text = String::from(
        "daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
    log_format connection $connection;
    access_log connections.log connection;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
",
    );
    for (address, server) in addresses.iter().zip(servers) {
        writeln!(
            text,
            "    server {{ listen {address} http2; location / {{ grpc_pass grpc://{server}; }} }}"
        )?;
    }
    text.push_str("}\n");
    Ok(text)
}
