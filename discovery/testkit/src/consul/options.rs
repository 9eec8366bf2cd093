//! The options of an agent or a cluster, and their start.

use anyhow::{Result, bail, ensure};

use super::{
    Consul, MASTER_TOKEN,
    setup::{binary, certificates},
};
use crate::ports::free_ports;

/// Options of an agent.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(super) data_dir: bool,
    pub(super) tls: bool,
    pub(super) hcl: Vec<String>,
    /// Default: `testkit`.
    pub(super) node: Option<String>,
    /// The number of servers that elect a leader. Default: 1.
    pub(super) servers: Option<usize>,
}

impl Options {
    /// Keeps its state across restarts; a dev agent does not.
    #[must_use]
    pub fn data_dir(mut self) -> Self {
        self.data_dir = true;
        // A leader is elected in 2 s instead of 8.
        self.hcl("performance { raft_multiplier = 1 }")
    }

    /// Denies what no token allows. [`MASTER_TOKEN`] allows everything.
    #[must_use]
    pub fn acl(self) -> Self {
        self.hcl(&format!(
            "acl {{ enabled = true default_policy = \"deny\" tokens {{ master = \"{MASTER_TOKEN}\" }} }}"
        ))
    }

    /// Also serves HTTPS, only to clients with a certificate of its CA.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds configuration in HCL.
    #[must_use]
    pub fn hcl(mut self, text: &str) -> Self {
        self.hcl.push(text.to_owned());
        self
    }

    /// Its datacenter. Default: `dc1`.
    #[must_use]
    pub fn datacenter(self, name: &str) -> Self {
        self.hcl(&format!("datacenter = {name:?}"))
    }

    /// Starts a cluster of this many servers, named `server-0` and so on, and waits until each of them
    /// has a leader.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_cluster(self, servers: usize) -> Result<Vec<Consul>> {
        let binary = binary().await?;
        let mut cluster = Vec::with_capacity(servers);
        let mut first = None;
        for nth in 0..servers {
            let ports = free_ports()?;
            let first = *first.get_or_insert(ports[3]);
            let mut options = self.clone().data_dir().hcl(&format!(
                "retry_join = [\"127.0.0.1:{first}\"] retry_interval = \"200ms\""
            ));
            options.node = Some(format!("server-{nth}"));
            options.servers = Some(servers);
            let mut consul = Consul {
                binary: binary.clone(),
                dir: tempfile::tempdir()?,
                options,
                ports,
                process: None,
            };
            consul.spawn()?;
            cluster.push(consul);
        }
        for consul in &mut cluster {
            ensure!(consul.is_up().await?, "{}", consul.log_end());
        }
        Ok(cluster)
    }

    /// Starts the agent and waits until it has a leader.
    ///
    /// # Errors
    ///
    /// When there is no Consul on this machine or it does not come up; with the end of its log.
    pub async fn start(self) -> Result<Consul> {
        let binary = binary().await?;
        let dir = tempfile::tempdir()?;
        if self.tls {
            certificates(&binary, dir.path()).await?;
        }
        let mut consul = Consul {
            binary,
            dir,
            options: self,
            ports: [0; 5],
            process: None,
        };
        // Another process may take a port between the search and the start.
        for _ in 0..5 {
            consul.ports = free_ports()?;
            consul.spawn()?;
            if consul.is_up().await? {
                return Ok(consul);
            }
        }
        bail!("consul did not start: {}", consul.log_end())
    }
}
