//! A running server of any kind: started on free ports with a data folder, and failed on demand.

use std::{env, fs, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Launch, Place, skip};
use crate::{
    ports::free_ports,
    process::{Process, Signal},
};

/// A Java server needs 5 s on a quiet machine, and tests make it busy.
const START_LIMIT: Duration = Duration::from_secs(300);

/// Limit for the end of a process.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A server process. Dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct Server<L> {
    process: Option<Process>,
    launch: L,
    place: Place,
    _dir: TempDir,
}

impl<L: Launch> Server<L> {
    /// Starts a server and waits until it answers. `None` if the server is not on this machine: the
    /// test is then to be skipped, which has been said on standard error.
    ///
    /// # Errors
    ///
    /// When it does not start, with the end of its log; in CI also if the server is not on this machine.
    pub async fn start(launch: L) -> Result<Option<Self>> {
        let Some(home) = env::var_os(L::VARIABLE) else {
            skip(
                L::NAME,
                &format!(
                    "{} is not set; set it to what `scripts/registry.sh {} --fetch` prints",
                    L::VARIABLE,
                    L::NAME
                ),
            )?;
            return Ok(None);
        };
        let dir = tempfile::tempdir()?;
        let place = Place {
            home: home.into(),
            data: dir.path().join("data"),
            ports: [0; 2],
        };
        let mut server = Self {
            process: None,
            launch,
            place,
            _dir: dir,
        };
        let mut log = String::new();
        // Another process may take a port between the search and the start.
        for _ in 0..5 {
            server.place.ports = free_ports()?;
            server.wipe()?;
            server.spawn()?;
            match server.wait_until_up().await? {
                Ok(()) => return Ok(Some(server)),
                Err(end) => log = end,
            }
        }
        bail!("{} did not start: {log}", L::NAME)
    }

    /// `127.0.0.1:PORT` for clients.
    #[must_use]
    pub fn address(&self) -> String {
        self.place.address()
    }

    /// Its URL for `registry::connect`, without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        self.launch.url(&self.place)
    }

    /// Ends it by SIGKILL, as a crash does.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    /// Ends it by SIGTERM and waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it is not running or does not end within 30 s.
    pub async fn terminate(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM).await
    }

    /// Starts it again after it ended, on the same ports with its data, and returns when it answers.
    ///
    /// # Errors
    ///
    /// When it is running or does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is still running", L::NAME);
        self.spawn()?;
        match self.wait_until_up().await? {
            Ok(()) => Ok(()),
            Err(log) => bail!("{} did not restart: {log}", L::NAME),
        }
    }

    /// Starts it again after it ended, on the same ports without its data.
    ///
    /// # Errors
    ///
    /// As [`restart`](Self::restart).
    pub async fn restart_wiped(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is still running", L::NAME);
        self.wipe()?;
        self.restart().await
    }

    /// Stops it by SIGSTOP: connections stay open and get no answer.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)
    }

    /// Continues it after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    pub(crate) fn launch(&self) -> &L {
        &self.launch
    }

    /// Its folder and ports.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn running(&self) -> Result<&Process> {
        let process = self.process.as_ref();
        process.with_context(|| format!("{} is not running", L::NAME))
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        self.running()?.signal(signal)?;
        if let Some(mut process) = self.process.take() {
            process.exit(END_LIMIT).await?;
        }
        Ok(())
    }

    fn wipe(&self) -> Result<()> {
        if self.place.data.exists() {
            fs::remove_dir_all(&self.place.data)?;
        }
        fs::create_dir(&self.place.data)?;
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        let line = self.launch.command(&self.place)?;
        let environment = line.environment.iter();
        let environment = environment.map(|(name, value)| (name.as_str(), value.as_str()));
        let process = Process::spawn_with(&line.program, &line.arguments, environment)?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it answers; the inner error is the end of its log if it ended instead.
    async fn wait_until_up(&mut self) -> Result<Result<(), String>> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if self.launch.answers(&self.place).await {
                return Ok(Ok(()));
            }
            let process = self.process.as_mut().context("it is not running")?;
            if process.has_ended()? {
                process.exit(END_LIMIT).await?;
                let log = log_end(process);
                self.process = None;
                return Ok(Err(log));
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!(
            "{} did not answer within {START_LIMIT:?}: {}",
            L::NAME,
            log_end(self.running()?)
        )
    }
}

/// The last lines of both outputs.
fn log_end(process: &Process) -> String {
    let log = process.stdout() + &process.stderr();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
