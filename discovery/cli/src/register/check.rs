//! The checks that this program makes itself, for any registry: it connects to the port, or requests a path.

use std::{io, net::IpAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{RegisterArgs, args::CheckKind};

/// Longest pause between checks until the first one passes, so that a started command is soon
/// registered.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Length of an HTTP status line that is read.
const STATUS_LINE: usize = 64;

/// A change of the instance's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HealthChange {
    Passing,
    /// It fails, with the last reason.
    Failing(String),
}

/// The checks of the command.
pub(super) struct Checks {
    kind: CheckKind,
    address: (IpAddr, u16),
    path: String,
    interval: Duration,
    limit: Duration,
    state: State,
    /// True after the last change, if the registry makes the check.
    ended: bool,
}

/// The results so far.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    passing: bool,
    /// True after the first check that passed.
    passed: bool,
    failures: u32,
    allowed: u32,
}

impl State {
    /// Notes a result. Returns the change, if there is one.
    fn add(&mut self, result: Result<(), String>) -> Option<HealthChange> {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.passed = true;
                (!std::mem::replace(&mut self.passing, true)).then_some(HealthChange::Passing)
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                let fails = self.passing && self.failures >= self.allowed;
                self.passing &= !fails;
                fails.then_some(HealthChange::Failing(reason))
            }
        }
    }
}

impl Checks {
    pub(super) fn start(args: &RegisterArgs) -> Self {
        Self {
            kind: args.check,
            // The command may listen on the loopback interface only, if no address is given.
            address: (args.ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), args.port),
            path: args.check_path.clone(),
            interval: args.check_interval,
            limit: args.check_timeout,
            state: State {
                allowed: args.check_failures.get(),
                ..State::default()
            },
            ended: false,
        }
    }

    /// The next change. If the registry makes the check, there is one: the instance passes, at once or once
    /// its port accepts connections. Consul lists a new instance as healthy until its first check.
    pub(super) async fn next(&mut self) -> HealthChange {
        if self.ended {
            return std::future::pending().await;
        }
        if self.kind.is_without_port() {
            self.ended = true;
            return HealthChange::Passing;
        }
        loop {
            let result = match timeout(self.limit, self.check()).await {
                Ok(result) => result.map_err(|error| format!("{error:#}")),
                Err(_elapsed) => Err(format!("no answer within {:?}", self.limit)),
            };
            if let Some(change) = self.state.add(result) {
                self.ended = !self.kind.is_own();
                return change;
            }
            let pause = if self.state.passed {
                self.interval
            } else {
                self.interval.min(FIRST_PAUSE)
            };
            sleep(pause).await;
        }
    }

    async fn check(&self) -> anyhow::Result<()> {
        let (ip, port) = self.address;
        let mut stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("cannot connect to {ip} port {port}"))?;
        if self.kind == CheckKind::Http {
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: discovery\r\nConnection: close\r\n\r\n",
                self.path,
                std::net::SocketAddr::from(self.address),
            );
            stream.write_all(request.as_bytes()).await?;
            is_success(&status_line(&mut stream).await?)?;
        }
        Ok(())
    }
}

/// The beginning of an answer, up to the end of its first line.
async fn status_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut part = [0; STATUS_LINE];
    while !line.contains(&b'\n') && line.len() < STATUS_LINE {
        match stream.read(&mut part).await? {
            0 => break,
            count => line.extend_from_slice(&part[..count]),
        }
    }
    let line = String::from_utf8_lossy(&line);
    Ok(line.lines().next().unwrap_or_default().to_owned())
}

fn is_success(line: &str) -> anyhow::Result<()> {
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    match status {
        None => bail!("the answer is not HTTP/1"),
        Some(status) => ensure!(status.starts_with('2'), "HTTP status {status}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_passes_and_several_failures_in_a_row_fail() {
        let mut state = State {
            allowed: 2,
            ..State::default()
        };
        let bad = || Err("refused".to_owned());
        assert_eq!(state.add(bad()), None);
        assert_eq!(state.add(bad()), None);
        assert_eq!(state.add(Ok(())), Some(HealthChange::Passing));
        assert_eq!(state.add(Ok(())), None);
        assert_eq!(state.add(bad()), None);
        assert_eq!(state.add(Ok(())), None);
        assert_eq!(state.add(bad()), None);
        assert_eq!(
            state.add(bad()),
            Some(HealthChange::Failing("refused".to_owned()))
        );
        assert_eq!(state.add(bad()), None);
        assert_eq!(state.add(Ok(())), Some(HealthChange::Passing));
    }

    #[test]
    fn only_a_2xx_answer_passes() {
        assert!(is_success("HTTP/1.1 204 No Content").is_ok());
        for line in [
            "HTTP/1.1 404 Not Found",
            "HTTP/1.1 301 Moved",
            "HTTP/2 200",
            "",
        ] {
            assert!(is_success(line).is_err(), "{line}");
        }
    }
}
