//! A real Consul agent per test, on its own ports, ended with the test.

mod options;
mod setup;

use std::{env, fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

pub use self::options::Options;
use crate::{http::http_client, signal};

/// The token with all permissions, if ACLs are on.
pub const MASTER_TOKEN: &str = "9a5c3b1e-0000-4000-8000-000000000001";

/// Electing a leader with a data folder takes 6 to 8 s on a quiet machine, and tests make it busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A Consul agent, in dev mode unless its [`Options`] differ.
#[derive(Debug)]
pub struct Consul {
    binary: PathBuf,
    dir: TempDir,
    options: Options,
    /// HTTP, HTTPS, server, Serf in the LAN, Serf in the WAN.
    ports: [u16; 5],
    process: Option<Child>,
}

impl Consul {
    /// A dev agent: fast, without a cluster, and empty after a restart.
    ///
    /// # Errors
    ///
    /// As [`Options::start`].
    pub async fn start() -> Result<Self> {
        Options::default().start().await
    }

    /// An agent with more than the defaults.
    #[must_use]
    pub fn options() -> Options {
        Options::default()
    }

    /// `127.0.0.1:PORT` of its HTTP API.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// `127.0.0.1:PORT` of its HTTPS API, if it has one.
    #[must_use]
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// `consul://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("consul://{}", self.address())
    }

    /// True if it is the leader of its cluster.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn is_leader(&self) -> Result<bool> {
        let leader = self.get("/v1/status/leader").await?;
        Ok(leader.as_str() == Some(&format!("127.0.0.1:{}", self.ports[2])))
    }

    /// Joins the datacenter of another server over WAN.
    ///
    /// # Errors
    ///
    /// When the other cannot be reached.
    pub async fn join_wan(&self, other: &Self) -> Result<()> {
        let path = format!("/v1/agent/join/127.0.0.1:{}?wan=true", other.ports[4]);
        self.put(&path, &Value::Null).await.map(drop)
    }

    /// A file that [`Options::tls`] made: `ca.pem`, `client.pem`, `client.key`, `other-ca.pem`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends it by SIGKILL, as a crash does.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("consul is not running")?;
        process.kill().await?;
        Ok(())
    }

    /// Ends it by SIGTERM and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it is not running or does not end within 30 s.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let mut process = self.process.take().context("consul is not running")?;
        tokio::time::timeout(Duration::from_secs(30), process.wait()).await??;
        Ok(())
    }

    /// Starts it again after it ended, on the same ports, and returns when it has a leader.
    ///
    /// # Errors
    ///
    /// When it is running or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "consul is still running");
        self.spawn()?;
        ensure!(
            self.is_up().await?,
            "consul did not restart: {}",
            self.log_end()
        );
        Ok(())
    }

    /// Starts it again after it ended, on the same ports without its data.
    ///
    /// # Errors
    ///
    /// As [`restart`](Self::restart).
    pub async fn restart_wiped(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "consul is still running");
        if self.options.data_dir {
            fs::remove_dir_all(self.data_dir())?;
        }
        self.restart().await
    }

    /// Stops it by SIGSTOP: connections stay open and get no answer.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Continues it after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The answer to `GET PATH`, with all permissions.
    ///
    /// # Errors
    ///
    /// When it does not answer, or with an error.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = http_client()?.get(format!("http://{}{path}", self.address()));
        let response = request
            .header("x-consul-token", MASTER_TOKEN)
            .send()
            .await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "GET {path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// The answer to `PUT PATH` with this body, with all permissions; null if it is empty.
    ///
    /// # Errors
    ///
    /// When it does not answer, or with an error.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http_client()?.put(format!("http://{}{path}", self.address()));
        let request = request.header("x-consul-token", MASTER_TOKEN).json(body);
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "PUT {path}: {status}: {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.as_ref().and_then(Child::id);
        let id = id.context("consul is not running")?;
        signal::send(Pid::from_raw(id.try_into()?), signal)
    }

    fn spawn(&mut self) -> Result<()> {
        let [http, https, server, lan, wan] = self.ports;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.file("log"))?;
        let mut command = Command::new(&self.binary);
        command.args([
            "agent",
            "-bind",
            "127.0.0.1",
            "-client",
            "127.0.0.1",
            "-dns-port",
            "-1",
        ]);
        let node = self.options.node.as_deref().unwrap_or("testkit");
        command.args(["-grpc-port", "-1", "-node", node]);
        for (flag, port) in [
            ("-http-port", http),
            ("-server-port", server),
            ("-serf-lan-port", lan),
            ("-serf-wan-port", wan),
        ] {
            command.arg(flag).arg(port.to_string());
        }
        if self.options.data_dir {
            let servers = self.options.servers.unwrap_or(1).to_string();
            command.args(["-server", "-bootstrap-expect", &servers, "-data-dir"]);
            command.arg(self.data_dir());
        } else {
            command.arg("-dev");
        }
        if self.options.tls {
            let path = |name| self.file(name).display().to_string();
            command
                .args(["-https-port", &https.to_string(), "-hcl"])
                .arg(format!(
                    "ca_file = {:?} cert_file = {:?} key_file = {:?} verify_incoming_https = true",
                    path("ca.pem"),
                    path("server.pem"),
                    path("server.key"),
                ));
        }
        for text in &self.options.hcl {
            command.arg("-hcl").arg(text);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // Its settings come from the test, not from the environment of the test run.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CONSUL_") {
                command.env_remove(name);
            }
        }
        let spawned = command.kill_on_drop(true).spawn();
        self.process = Some(spawned.with_context(|| format!("{}", self.binary.display()))?);
        Ok(())
    }

    /// Waits until it has a leader. False if it ended instead.
    async fn is_up(&mut self) -> Result<bool> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let leader = self.get("/v1/status/leader").await;
            // A leader exists before the agent's own node; instances registered in between are lost.
            if leader.is_ok_and(|l| l.as_str().is_some_and(|l| !l.is_empty()))
                && let Ok(Value::Array(nodes)) = self.get("/v1/catalog/nodes").await
                && !nodes.is_empty()
            {
                return Ok(true);
            }
            let process = self.process.as_mut().context("consul is not running")?;
            if process.try_wait()?.is_some() {
                self.process = None;
                return Ok(false);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!(
            "consul has no leader after {START_LIMIT:?}: {}",
            self.log_end()
        )
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.file("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
