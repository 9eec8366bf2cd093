//! The environment of a row: its own registry, trim services and add service.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testkit::{Signal, TrimService, http_trim_service, trim_service};
use tokio::time::sleep;

use crate::{
    client::{Add, Client},
    fronts::{BEHIND_NGINX, Fronts, Nginx},
    observe::{Metrics, PUBLISHED},
    protocol::Protocol,
    registry::Registry,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Instances of a row, unless its fault needs another number.
pub(crate) const INSTANCES: usize = 5;

/// The instances that the add service finds when a row begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instances {
    /// Trim services, by their number and flags, which register themselves.
    Trims(usize, &'static [&'static str]),
    /// Trim services that the drill registers, and that nothing registers again.
    Listed(usize),
    /// Trim services behind nginx.
    BehindNginx,
    /// Servers whose connections end at this age.
    Aged(Duration),
}

/// The processes of one row. Dropping it kills them all.
pub(crate) struct Env {
    pub(crate) registry: Registry,
    pub(crate) trims: Vec<TrimService>,
    pub(crate) fronts: Option<Fronts>,
    pub(crate) add: Add,
    pub(crate) client: reqwest::Client,
    protocol: Protocol,
}

impl Env {
    /// Starts them, and waits until the add service is connected to every instance.
    pub(crate) async fn start(
        instances: Instances,
        registry: Registry,
        client: Client,
        protocol: Protocol,
        flags: &[String],
    ) -> Result<Self> {
        let mut env = Self {
            add: Add::start(client, protocol, &registry, flags).await?,
            protocol,
            registry,
            trims: Vec::new(),
            fronts: None,
            client: testkit::http_client()?,
        };
        let count = env.add(instances).await?;
        env.ready(count).await?;
        Ok(env)
    }

    /// Starts the instances. Returns how many the add service will find.
    async fn add(&mut self, instances: Instances) -> Result<usize> {
        let fronts = match instances {
            Instances::Trims(count, flags) => {
                for _ in 0..count {
                    let trim = self.trim(0, flags).await?;
                    self.trims.push(trim);
                }
                return Ok(count);
            }
            Instances::Listed(count) => {
                for _ in 0..count {
                    let trim = self.trim(0, &["--register", "false"]).await?;
                    self.register(&trim.id, "127.0.0.1", trim.grpc.port())
                        .await?;
                    self.trims.push(trim);
                }
                return Ok(count);
            }
            Instances::BehindNginx => {
                for _ in 0..BEHIND_NGINX {
                    // The add service looks for another name, and finds nginx only.
                    let trim = self.trim(0, &["--name", "behind_nginx"]).await?;
                    self.trims.push(trim);
                }
                let servers = std::array::from_fn(|index| self.trims[index].grpc);
                Fronts::Nginx(Box::new(Nginx::start(servers).await?))
            }
            Instances::Aged(age) => Fronts::aged(INSTANCES, age).await?,
        };
        let addresses = fronts.addresses();
        for (index, address) in addresses.iter().enumerate() {
            let id = format!("trim_service-front-{index}");
            self.register(&id, "127.0.0.1", address.port()).await?;
        }
        self.fronts = Some(fronts);
        Ok(addresses.len())
    }

    /// Starts a trim service that registers here; port 0 takes any free one.
    pub(crate) async fn trim(&self, port: u16, flags: &[&str]) -> Result<TrimService> {
        let port = port.to_string();
        if self.protocol == Protocol::Http {
            let registry = self.registry.add_flags();
            let mut all: Vec<_> = registry.iter().map(String::as_str).collect();
            all.extend(["--port", &port]);
            all.extend(flags);
            return http_trim_service(&all).await;
        }
        let registry = self.registry.trim_flags();
        let mut all: Vec<_> = registry.iter().map(String::as_str).collect();
        all.extend(["--port", &port, "--ip", "127.0.0.1", "--drain", "1s"]);
        all.extend(flags);
        trim_service(&all).await
    }

    /// The IDs of the first instances, as the add service names them.
    pub(crate) fn ids(&self, count: usize) -> Vec<String> {
        let trims = self.trims[..count].iter();
        trims.map(|trim| self.id(trim)).collect()
    }

    /// The ID of an instance, as the add service names it.
    pub(crate) fn id(&self, trim: &TrimService) -> String {
        self.add.id(&self.registry, trim)
    }

    /// Restarts a trim service on the port of one that has ended.
    pub(crate) async fn revive(&mut self, index: usize) -> Result<()> {
        let port = self.trims[index].grpc.port();
        self.trims[index] = self.trim(port, &[]).await?;
        Ok(())
    }

    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let process = &mut self.trims[index].process;
        process.signal(Signal::SIGKILL)?;
        process.exit(LIMIT).await?;
        Ok(())
    }

    /// Ends a trim service by SIGTERM and waits until it has ended.
    pub(crate) async fn terminate(&mut self, index: usize) -> Result<()> {
        let process = &mut self.trims[index].process;
        process.signal(Signal::SIGTERM)?;
        let status = process.exit(LIMIT).await?;
        ensure!(status.success(), "a trim service ended with {status}");
        Ok(())
    }

    /// Waits until the add service uses this many instances.
    pub(crate) async fn ready(&self, count: usize) -> Result<()> {
        self.add.ready(&self.client, count).await
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        self.add.metrics(&self.client).await
    }

    /// The metrics with every call counted that has ended.
    pub(crate) async fn counted(&self) -> Result<Metrics> {
        sleep(PUBLISHED).await;
        self.metrics().await
    }

    /// Registers an address without a check, for a service that cannot register itself.
    pub(crate) async fn register(&self, id: &str, host: &str, port: u16) -> Result<()> {
        let body = json!({"ID": id, "Name": "trim_service", "Address": host, "Port": port});
        let _empty: Value = self
            .registry
            .consul()?
            .put("/v1/agent/service/register", &body)
            .await?;
        Ok(())
    }
}
