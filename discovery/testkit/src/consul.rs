//! A real Consul agent per test, on its own ports, ended with the test.

use std::{
    env, fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// The token with all permissions, if ACLs are on.
pub const MASTER_TOKEN: &str = "9a5c3b1e-0000-4000-8000-000000000001";

/// Electing a leader with a data folder takes 6 to 8 s on a quiet machine, and tests make it busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Options of an agent.
#[derive(Clone, Debug, Default)]
pub struct Options {
    data_dir: bool,
    tls: bool,
    hcl: Vec<String>,
    /// Default: `testkit`.
    node: Option<String>,
    /// The number of servers that elect a leader. Default: 1.
    servers: Option<usize>,
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

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.as_ref().and_then(Child::id);
        let id = id.context("consul is not running")?;
        kill(Pid::from_raw(id.try_into()?), signal)?;
        Ok(())
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
            command.arg(self.dir.path().join("data"));
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

/// A client for plain HTTP. `reqwest::Client::new` panics in this workspace, which has no default TLS
/// provider.
///
/// # Errors
///
/// When it cannot be made.
pub fn http_client() -> Result<reqwest::Client> {
    Ok(http_client_builder()?.build()?)
}

/// The builder of [`http_client`], for a client with other settings.
///
/// # Errors
///
/// When it cannot be made.
pub fn http_client_builder() -> Result<reqwest::ClientBuilder> {
    // Not used, but the client panics without a provider.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls);
    Ok(builder.timeout(Duration::from_secs(10)))
}

/// `CONSUL_BIN`, or the binary that the project's script finds or fetches.
async fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("CONSUL_BIN") {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/get-consul.sh");
    let run = Command::new(&script).output().await;
    let output = run.with_context(|| {
        format!(
            "these tests need a Consul: set CONSUL_BIN ({})",
            script.display()
        )
    })?;
    ensure!(
        output.status.success(),
        "these tests need a Consul: {}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().into())
}

/// Ports that nothing listens on, below those that the kernel gives to outgoing connections.
fn free_ports() -> Result<[u16; 5]> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let mut found = [0; 5];
    // Test processes run concurrently; each starts at another port.
    let offset = u16::try_from(std::process::id() % 600)? * 20;
    let mut tries = 0;
    for port in &mut found {
        *port = loop {
            ensure!(tries < 2000, "no free ports");
            tries += 1;
            let port = 20_000 + (offset + NEXT.fetch_add(1, Relaxed)) % 12_000;
            let address = ("127.0.0.1", port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                break port;
            }
        };
    }
    Ok(found)
}

/// A CA, a server and a client certificate, and a CA that signed neither.
async fn certificates(consul: &Path, dir: &Path) -> Result<()> {
    let other = dir.join("other");
    fs::create_dir(&other)?;
    let in_dir: [(&Path, &[&str]); 4] = [
        (dir, &["tls", "ca", "create"]),
        (dir, &["tls", "cert", "create", "-server", "-dc", "dc1"]),
        (dir, &["tls", "cert", "create", "-client", "-dc", "dc1"]),
        (&other, &["tls", "ca", "create"]),
    ];
    for (dir, arguments) in in_dir {
        let output = Command::new(consul)
            .args(arguments)
            .current_dir(dir)
            .output()
            .await?;
        ensure!(output.status.success(), "consul {arguments:?}: {output:?}");
    }
    for (made, name) in [
        ("consul-agent-ca.pem", "ca.pem"),
        ("dc1-server-consul-0.pem", "server.pem"),
        ("dc1-server-consul-0-key.pem", "server.key"),
        ("dc1-client-consul-0.pem", "client.pem"),
        ("dc1-client-consul-0-key.pem", "client.key"),
        ("other/consul-agent-ca.pem", "other-ca.pem"),
    ] {
        fs::rename(dir.join(made), dir.join(name)).with_context(|| made.to_owned())?;
    }
    Ok(())
}
