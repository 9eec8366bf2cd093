//! The processes at the other end: servers of the test service. All print the same lines: first
//! `listening ADDRESS ADDRESS ...`, then `begun PATH` and `cancelled PATH` for calls that have a stream.

use std::{
    env,
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{Process, eventually};

/// Time for a peer to start, and for a line of it that must come.
const LIMIT: Duration = Duration::from_secs(60);

/// An implementation of the test service.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name in the table.
    pub(crate) name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Peer {
    /// grpc-go's server, built from `scripts/interop/go`.
    pub(crate) fn grpc_go(program: &Path) -> Self {
        Self::new("grpc-go", program, ["serve"])
    }

    /// grpc-java's server, with this class path.
    pub(crate) fn grpc_java(class_path: &OsStr) -> Self {
        // Short-lived: the quick compiler and a small heap start faster.
        let flags = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"];
        let arguments = flags.iter().map(OsStr::new).chain([
            OsStr::new("-cp"),
            class_path,
            OsStr::new("InteropServer"),
        ]);
        Self::new("grpc-java", Path::new("java"), arguments)
    }

    /// Our service on tonic's own server.
    pub(crate) fn tonic() -> Result<Self> {
        let own = env::current_exe()?;
        Ok(Self::new("tonic", &own, ["serve", "tonic"]))
    }

    /// Our service on the server of both service binaries.
    pub(crate) fn bootstrap() -> Result<Self> {
        let own = env::current_exe()?;
        Ok(Self::new("bootstrap", &own, ["serve", "bootstrap"]))
    }

    fn new<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            name,
            program: program.to_owned(),
            arguments: arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
        }
    }

    /// Starts a process with so many servers, and waits until they listen.
    pub(crate) async fn start(&self, servers: usize) -> Result<Running> {
        let count = OsString::from(servers.to_string());
        let process = Process::spawn(&self.program, self.arguments.iter().chain([&count]))?;
        let line = process.stdout_line("listening ", LIMIT).await;
        let line = line.with_context(|| process.stderr())?;
        let addresses: Vec<SocketAddr> = line
            .split(' ')
            .skip(1)
            .map(|address| address.parse().with_context(|| format!("in {line:?}")))
            .collect::<Result<_>>()?;
        ensure!(addresses.len() == servers, "{line:?}: not {servers}");
        Ok(Running { process, addresses })
    }
}

/// The servers of one peer, in one process.
#[derive(Debug)]
pub(crate) struct Running {
    process: Process,
    /// The address of each server.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Running {
    /// The number of these lines so far.
    pub(crate) fn lines(&self, line: &str) -> usize {
        self.process.stdout().lines().filter(|l| *l == line).count()
    }

    /// Waits until there are more than `before` of these lines.
    pub(crate) async fn another(&self, line: &str, before: usize) -> Result<()> {
        let more = async || self.lines(line) > before;
        eventually(&format!("the server's line {line:?}"), LIMIT, more).await?;
        Ok(())
    }
}
