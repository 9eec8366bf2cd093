//! Signals to the processes of tests.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Far longer than a busy kernel needs to stop every thread.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends a signal. After SIGSTOP it waits until every thread has stopped: a process may answer until then.
pub(crate) fn send(pid: Pid, signal: Signal) -> Result<()> {
    kill(pid, signal)?;
    if signal == Signal::SIGSTOP {
        let begun = Instant::now();
        while !has_stopped(pid) {
            ensure!(begun.elapsed() < LIMIT, "SIGSTOP has not stopped {pid}");
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// True if no thread of the process runs (proc(5): the state follows the name in brackets), or if there is no
/// `/proc` to tell.
fn has_stopped(pid: Pid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        // One that has ended in the meantime has no file.
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| "TtZX".contains(state))
    })
}
