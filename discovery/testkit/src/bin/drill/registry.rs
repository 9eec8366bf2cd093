//! The registry of a row: its server, the flags with which the services use it, and its faults.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use tempfile::TempDir;
use testkit::{
    Consul, TrimService, free_ports,
    registries::{Etcd, Eureka, Launch as _, Server, ZooKeeper},
};

/// The kinds of registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[default]
    Consul,
    Etcd,
    #[value(name = "zookeeper")]
    ZooKeeper,
    Eureka,
    /// The instances register in Consul, and the add service asks its DNS.
    Dns,
    /// A folder.
    Embedded,
}

/// The faults of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It stops answering, and goes on.
    Hangs,
    /// It is killed and restarts empty.
    Empties,
    /// It is killed and restarts with what it held.
    Restarts,
}

impl Kind {
    /// The time after which a poll shows a change, as its conformance test states it; zero where the
    /// registry reports changes.
    pub(crate) fn poll(self) -> Duration {
        match self {
            Self::Dns => Duration::from_millis(1_500),
            Self::Eureka => Duration::from_millis(2_500),
            Self::Consul | Self::Etcd | Self::ZooKeeper | Self::Embedded => Duration::ZERO,
        }
    }

    /// The reason why a row over this kind cannot run on this machine, or this fault does not exist.
    pub(crate) fn cannot_run(self, fault: Option<Fault>) -> Option<String> {
        let variable = match self {
            Self::Etcd => Etcd::VARIABLE,
            Self::ZooKeeper => ZooKeeper::VARIABLE,
            Self::Eureka => Eureka::VARIABLE,
            Self::Consul | Self::Dns => "CONSUL_BIN",
            Self::Embedded => "",
        };
        let set = |variable| std::env::var_os(variable).is_some_and(|path| !path.is_empty());
        if !variable.is_empty() && !set(variable) {
            return Some(format!("{variable} is not set"));
        }
        match (self, fault?) {
            (Self::Embedded, Fault::Hangs | Fault::Restarts) => {
                Some("a folder has no server".to_owned())
            }
            (Self::Eureka, Fault::Restarts) => {
                Some("Eureka keeps nothing over a restart".to_owned())
            }
            _ => None,
        }
    }
}

/// A running registry. Dropping it ends its server.
pub(crate) enum Registry {
    Consul(Consul),
    Etcd(Server<Etcd>),
    ZooKeeper(Server<ZooKeeper>),
    Eureka(Server<Eureka>),
    /// A Consul and the port of its DNS.
    Dns(Consul, u16),
    Embedded(TempDir),
}

/// The same call to the server of any registry that has one.
macro_rules! server {
    ($registry:expr, $server:ident => $call:expr) => {
        match $registry {
            Registry::Consul($server) | Registry::Dns($server, _) => $call,
            Registry::Etcd($server) => $call,
            Registry::ZooKeeper($server) => $call,
            Registry::Eureka($server) => $call,
            Registry::Embedded(_) => bail!("a folder has no server"),
        }
    };
}

impl Registry {
    /// Starts one that will have this fault.
    pub(crate) async fn start(kind: Kind, fault: Option<Fault>) -> Result<Self> {
        const GONE: &str = "the server is not on this machine";
        let consul = Consul::options().hcl("limits { http_max_conns_per_client = 1000 }");
        let consul = match fault {
            Some(Fault::Restarts) => consul.data_dir(),
            _ => consul,
        };
        Ok(match kind {
            Kind::Consul => Self::Consul(consul.start().await?),
            Kind::Dns => {
                let [port] = free_ports()?;
                let dns = format!("ports {{ dns = {port} }}");
                Self::Dns(consul.hcl(&dns).start().await?, port)
            }
            Kind::Etcd => Self::Etcd(Server::start(Etcd).await?.context(GONE)?),
            Kind::ZooKeeper => Self::ZooKeeper(Server::start(ZooKeeper).await?.context(GONE)?),
            Kind::Eureka => Self::Eureka(Server::start(Eureka::default()).await?.context(GONE)?),
            Kind::Embedded => Self::Embedded(TempDir::new()?),
        })
    }

    /// The Consul, for what only a Consul has.
    pub(crate) fn consul(&self) -> Result<&Consul> {
        match self {
            Self::Consul(consul) => Ok(consul),
            _ => bail!("this row needs a Consul"),
        }
    }

    /// The flags with which trim services register.
    pub(crate) fn trim_flags(&self) -> Vec<String> {
        let consul =
            |consul: &Consul| strings(["--consul", &consul.address(), "--check-interval", "1s"]);
        // Of a session, a lease or a renewal; Consul asks the instances itself.
        let heartbeat = |url: &str| {
            strings([
                "--registry",
                url,
                "--check",
                "ttl",
                "--check-interval",
                "4s",
            ])
        };
        match self {
            Self::Consul(server) | Self::Dns(server, _) => consul(server),
            Self::Embedded(folder) => strings(["--registry", &url_of(folder)]),
            Self::Etcd(_) | Self::ZooKeeper(_) | Self::Eureka(_) => heartbeat(&self.url()),
        }
    }

    /// The flags with which the add service finds them.
    pub(crate) fn add_flags(&self) -> Vec<String> {
        match self {
            Self::Consul(server) => strings(["--consul", &server.address()]),
            _ => strings(["--registry", &self.url()]),
        }
    }

    /// The ID under which this registry lists an instance.
    pub(crate) fn id(&self, trim: &TrimService) -> String {
        match self {
            Self::Dns(..) => trim.grpc.to_string(),
            _ => trim.id.clone(),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Consul(server) => server.url(),
            Self::Etcd(server) => format!("{}/services?layout=grpc", server.url()),
            Self::ZooKeeper(server) => server.url(),
            Self::Eureka(server) => server.url(),
            Self::Dns(_, port) => format!("dns://127.0.0.1:{port}/trim_service.service.consul"),
            Self::Embedded(folder) => url_of(folder),
        }
    }

    pub(crate) fn pause(&self) -> Result<()> {
        server!(self, server => server.pause())
    }

    pub(crate) fn resume(&self) -> Result<()> {
        server!(self, server => server.resume())
    }

    /// Kills it. A folder loses its services.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Self::Embedded(folder) = self {
            return empty(folder);
        }
        server!(self, server => server.kill().await)
    }

    /// Starts it again after [`kill`](Self::kill), with what it held or without.
    pub(crate) async fn restart(&mut self, fault: Fault) -> Result<()> {
        match (&mut *self, fault) {
            (Self::Embedded(_), _) => Ok(()),
            (_, Fault::Empties) => server!(self, server => server.restart_wiped().await),
            (_, _) => server!(self, server => server.restart().await),
        }
    }
}

fn url_of(folder: &TempDir) -> String {
    format!("embedded://{}", folder.path().display())
}

fn empty(folder: &TempDir) -> Result<()> {
    for service in fs::read_dir(folder.path())? {
        let path = service?.path();
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn strings<const N: usize>(flags: [&str; N]) -> Vec<String> {
    flags.map(str::to_owned).to_vec()
}
