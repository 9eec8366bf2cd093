//! The environment of a row: its own Consul, trim services and add service.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testkit::{AddService, Consul, Signal, TrimService, eventually, trim_service};

const LIMIT: Duration = Duration::from_secs(30);

/// The processes of one row. Dropping it kills them all.
pub(crate) struct Env {
    pub(crate) consul: Consul,
    pub(crate) trims: Vec<TrimService>,
    pub(crate) add: AddService,
    pub(crate) client: reqwest::Client,
}

impl Env {
    pub(crate) async fn start(trims: usize, keep_data: bool, flags: &[String]) -> Result<Self> {
        let options = Consul::options().hcl("limits { http_max_conns_per_client = 1000 }");
        let consul = if keep_data {
            options.data_dir().start().await?
        } else {
            options.start().await?
        };
        let address = consul.address();
        let mut all: Vec<&str> = vec!["--consul", &address, "--log-format", "json"];
        all.extend(flags.iter().map(String::as_str));
        let mut env = Self {
            add: testkit::add_service(&all).await?,
            consul,
            trims: Vec::new(),
            client: testkit::http_client()?,
        };
        for _ in 0..trims {
            let trim = env.trim(0, &[]).await?;
            env.trims.push(trim);
        }
        env.ready(trims).await?;
        Ok(env)
    }

    /// Starts a trim service that registers here; port 0 takes any free one.
    pub(crate) async fn trim(&self, port: u16, flags: &[&str]) -> Result<TrimService> {
        let (address, port) = (self.consul.address(), port.to_string());
        let mut all = vec!["--consul", &address, "--port", &port];
        all.extend([
            "--ip",
            "127.0.0.1",
            "--check-interval",
            "1s",
            "--drain",
            "1s",
        ]);
        all.extend(flags);
        trim_service(&all).await
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

    /// Waits until the add service is connected to this many instances.
    pub(crate) async fn ready(&self, count: usize) -> Result<()> {
        let limit = LIMIT * 2;
        eventually("connected instances", limit, async || {
            let metrics = self.metrics().await.map_err(|error| error.to_string())?;
            match metrics.ready() {
                ready if ready == count => Ok(()),
                ready => Err(format!("{ready} of {count}")),
            }
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        metrics(&self.client, self.add.http).await
    }

    /// Registers an address without a check, for a service that cannot register itself.
    pub(crate) async fn register(&self, id: &str, host: &str, port: u16) -> Result<()> {
        let body = json!({"ID": id, "Name": "trim_service", "Address": host, "Port": port});
        let _empty: Value = self.consul.put("/v1/agent/service/register", &body).await?;
        Ok(())
    }
}

/// The series of the add service's `/metrics`.
pub(crate) struct Metrics(BTreeMap<String, f64>);

pub(crate) async fn metrics(
    client: &reqwest::Client,
    http: std::net::SocketAddr,
) -> Result<Metrics> {
    let text = client
        .get(format!("http://{http}/metrics"))
        .timeout(Duration::from_secs(2))
        .send()
        .await?
        .text()
        .await?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    let mut all = BTreeMap::new();
    for (name, value) in pairs {
        let value = value
            .parse()
            .with_context(|| format!("metric {name}: {value}"))?;
        all.insert(name.to_owned(), value);
    }
    Ok(Metrics(all))
}

impl Metrics {
    /// The sum of all series whose name and labels contain every part.
    fn sum(&self, parts: &[&str]) -> usize {
        let matching = self
            .0
            .iter()
            .filter(|(name, _)| parts.iter().all(|part| name.contains(part)));
        // Counters and gauges of this size are exact.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let sum = matching.map(|(_, value)| *value as usize).sum();
        sum
    }

    pub(crate) fn ready(&self) -> usize {
        self.sum(&["discovery_endpoints", "state=\"ready\""])
    }

    /// Attempts that failed.
    pub(crate) fn bad_attempts(&self) -> usize {
        ["status", "broken", "timeout", "unprocessed"]
            .iter()
            .map(|outcome| {
                self.sum(&[
                    "discovery_attempts_total",
                    &format!("outcome=\"{outcome}\""),
                ])
            })
            .sum()
    }
}
