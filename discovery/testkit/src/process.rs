//! A process under test: its output is captured and printed if the test fails, and it ends with the
//! test.

use std::{
    env,
    ffi::OsStr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
pub use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::signal;

/// Prefixes of variables that are not inherited from the environment of the test run.
const SETTINGS: [&str; 12] = [
    "CONSUL_",
    "DISCOVERY_",
    "ETCD",
    "ZOOKEEPER_",
    "EUREKA_",
    "TRIM_",
    "ADD_",
    "REGISTRY_",
    "LOG_",
    "NOTIFY_",
    "OTEL_",
    "WATCHDOG_",
];

/// A process that a test started. Dropping it kills it, and prints its output if the test failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdout: Capture,
    stderr: Capture,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        Self::spawn_with(program, arguments, [])
    }

    /// Starts a program with additional environment variables.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn_with<'a, A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if SETTINGS.iter().any(|begin| text.starts_with(begin)) {
                command.env_remove(name);
            }
        }
        command.envs(environment);
        let name = program.display().to_string();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Self {
            pid: Pid::from_raw(pid.try_into()?),
            stdout: Capture::of(child.stdout.take().context("no standard output")?),
            stderr: Capture::of(child.stderr.take().context("no standard error")?),
            child,
            name,
        })
    }

    /// The first line on standard output with `part` in it, once it is there.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`, or the output ends without it.
    pub async fn stdout_line(&self, part: &str, limit: Duration) -> Result<String> {
        let line = self.stdout.line(part, limit).await;
        line.with_context(|| format!("{}: standard output", self.name))
    }

    /// The first line on standard error with `part` in it, once it is there.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`, or the output ends without it.
    pub async fn stderr_line(&self, part: &str, limit: Duration) -> Result<String> {
        let line = self.stderr.line(part, limit).await;
        line.with_context(|| format!("{}: standard error", self.name))
    }

    /// Its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text.borrow().clone()
    }

    /// Its standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text.borrow().clone()
    }

    /// Its process ID.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // After its end has been seen, its ID may belong to another process.
        self.child.id().context("it has ended")?;
        signal::send(self.pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// True if it has ended.
    ///
    /// # Errors
    ///
    /// When the system cannot be asked.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Its exit status, once it has ended. All its output has been read by then.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`.
    pub async fn exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = async {
            let status = self.child.wait().await?;
            self.stdout.end().await;
            self.stderr.end().await;
            Ok(status)
        };
        match timeout(limit, end).await {
            Ok(status) => status,
            Err(_) => bail!("{} did not end within {limit:?}", self.name),
        }
    }
}

impl Drop for Process {
    #[allow(
        clippy::print_stderr,
        reason = "the test harness prints the output of failed tests only"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            eprintln!(
                "--- {} ({}) standard output:\n{stdout}--- standard error:\n{stderr}---",
                self.name, self.pid
            );
        }
    }
}

/// One output, read as it comes.
#[derive(Debug)]
struct Capture {
    text: watch::Receiver<String>,
    reader: JoinHandle<()>,
}

impl Capture {
    fn of(mut stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let (sender, text) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; 8192];
            // An error is treated as the end of the output.
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                let part = String::from_utf8_lossy(&bytes[..count]);
                sender.send_modify(|text| text.push_str(&part));
            }
        });
        Self { text, reader }
    }

    async fn line(&self, part: &str, limit: Duration) -> Result<String> {
        let find = |text: &str| {
            let mut whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            whole.find(|l| l.contains(part)).map(str::to_owned)
        };
        let mut text = self.text.clone();
        let waited = timeout(limit, text.wait_for(|text| find(text).is_some())).await;
        // The line may have arrived just before the output ended.
        match (find(&self.text.borrow()), waited) {
            (Some(line), _) => Ok(line.trim_end().to_owned()),
            (None, Err(_)) => bail!("no line with {part:?} within {limit:?}"),
            (None, Ok(_)) => bail!("ended without a line with {part:?}"),
        }
    }

    async fn end(&mut self) {
        if !self.reader.is_finished() {
            // A reader cannot fail; it ends with its stream.
            let _ended = (&mut self.reader).await;
        }
    }
}
