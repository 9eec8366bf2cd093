//! The command: a child process in a process group of its own.
//!
//! A Ctrl-C in the terminal then reaches this program only, which passes it on after the deregistration. In
//! the terminal's own group the command would receive it twice.

use std::{
    ffi::OsString,
    io::{ErrorKind, IsTerminal as _, stdin},
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use crate::{exit, output};

/// A command that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {command:?}: {source}")]
pub(super) struct NotStarted {
    command: OsString,
    source: std::io::Error,
}

impl NotStarted {
    /// The code that `env` and `timeout` use.
    pub(super) fn exit_code(&self) -> u8 {
        match self.source.kind() {
            ErrorKind::NotFound => exit::NOT_FOUND,
            ErrorKind::PermissionDenied => exit::NOT_EXECUTABLE,
            _ => exit::NOT_RUN,
        }
    }
}

/// A running command.
pub(super) struct Process {
    child: Child,
    /// Its process group, which has its process ID. `None` after its end.
    group: Option<Pid>,
}

impl Process {
    /// Starts a command. `line` has the program first.
    pub(super) fn start(line: &[OsString]) -> Result<Self, NotStarted> {
        let program = line.first().cloned().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(line.iter().skip(1)).process_group(0);
        if stdin().is_terminal() {
            // A group in the background that reads from the terminal is stopped.
            command.stdin(Stdio::null());
        }
        let child = command.spawn().map_err(|source| NotStarted {
            command: program,
            source,
        })?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            group: id.map(Pid::from_raw),
            child,
        })
    }

    /// Waits for the end. Returns the exit code as a shell does. Cancel safe.
    pub(super) async fn ended(&mut self) -> std::io::Result<u8> {
        let status = self.child.wait().await?;
        self.group = None;
        Ok(code(status))
    }

    /// Sends a signal to the command and its children in its group.
    pub(super) fn signal(&self, number: i32) {
        let Some((group, signal)) = self.group.zip(Signal::try_from(number).ok()) else {
            return;
        };
        match killpg(group, signal) {
            // It has just ended.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => output::note(&format!("discovery: cannot send {signal}: {error}")),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let number = status.code().map(|code| (0, code));
    let number = number.or(status.signal().map(|signal| (exit::SIGNAL, signal)));
    let code = number.and_then(|(base, code)| base.checked_add(u8::try_from(code).ok()?));
    code.unwrap_or(exit::NOT_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[tokio::test]
    async fn the_exit_code_is_that_of_a_shell() {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
            let mut process = Process::start(&line(&["sh", "-c", script])).unwrap();
            assert_eq!(process.ended().await.unwrap(), code, "{script}");
            // The process ID may belong to another process by now.
            assert!(process.group.is_none());
        }
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_run_has_a_code_of_its_own() {
        for (program, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
            let failed = Process::start(&line(&[program])).err().unwrap();
            assert_eq!(failed.exit_code(), code);
            assert!(failed.to_string().contains(program), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_signal_reaches_the_children_of_a_shell() {
        let mut process = Process::start(&line(&["sh", "-c", "sleep 60; true"])).unwrap();
        process.signal(15);
        assert_eq!(process.ended().await.unwrap(), 143);
    }
}
