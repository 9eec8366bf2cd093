//! SIGINT, SIGTERM, SIGHUP and SIGQUIT: the first one starts an orderly shutdown, the second one exits
//! at once. A service that can read its settings again does so at SIGHUP, as daemons do.

use std::{fs, io};

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook_tokio::{Handle, Signals};
use tracing::{info, warn};

/// The action of a SIGHUP that is not a shutdown.
type OnHangup = Box<dyn Fn() + Send>;

/// The shutdown signals that this process receives.
pub struct Shutdown {
    signals: Signals,
    handle: Handle,
    on_hangup: Option<OnHangup>,
}

impl Shutdown {
    /// Handles the signals from now on. Call it before anything that must be undone at the end.
    ///
    /// A SIGHUP that was ignored when the process started stays ignored: `nohup` does that.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers, or outside a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let hangup = (!hangup_is_ignored()).then_some(SIGHUP);
        let signals = Signals::new([SIGINT, SIGTERM, SIGQUIT].into_iter().chain(hangup))?;
        Ok(Self {
            handle: signals.handle(),
            signals,
            on_hangup: None,
        })
    }

    /// Calls `action` at each SIGHUP, which then neither starts a shutdown nor hastens one. It is called
    /// also if SIGHUP was ignored when the process started: it no longer ends the process.
    ///
    /// # Errors
    ///
    /// When the system refuses the handler.
    pub fn on_hangup(mut self, action: impl Fn() + Send + 'static) -> io::Result<Self> {
        self.handle.add_signal(SIGHUP)?;
        self.on_hangup = Some(Box::new(action));
        Ok(self)
    }

    /// The next signal that ends the service; `None` if there will be none.
    async fn next(&mut self) -> Option<i32> {
        loop {
            let signal = self.signals.next().await?;
            match &self.on_hangup {
                Some(action) if signal == SIGHUP => action(),
                _ => return Some(signal),
            }
        }
    }

    /// Waits for the first signal. A second signal then ends the process at once, with the exit code
    /// that shells use (128 and the signal's number).
    pub async fn requested(mut self) {
        let Some(signal) = self.next().await else {
            // The stream ends only after its handle is dropped.
            return;
        };
        info!(
            signal = name(signal),
            "shutting down; a second signal exits at once"
        );
        tokio::spawn(async move {
            if let Some(signal) = self.next().await {
                warn!(signal = name(signal), "exiting at once");
                std::process::exit(128 + signal);
            }
        });
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        SIGHUP => "SIGHUP",
        SIGQUIT => "SIGQUIT",
        _ => "signal",
    }
}

/// True if this process ignores SIGHUP, as `nohup` has it. Ask before the first handler is installed.
#[must_use]
pub fn hangup_is_ignored() -> bool {
    ignores_hangup(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// True if SIGHUP is ignored, by the text of `/proc/self/status`. Its mask has a bit per signal, the
/// first for signal 1, which is SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_recognized() {
        let ignored = |mask| ignores_hangup(&format!("SigBlk:\t1\nSigIgn:\t{mask}\nSigCgt:\t1\n"));
        assert!(ignored("0000000000000001") && ignored("0000000000001003"));
        assert!(!ignored("0000000000001000") && !ignored("x"));
        assert!(!ignores_hangup(""));
    }

    #[test]
    fn outside_a_runtime_it_is_an_error() {
        let error = Shutdown::listen().map(drop).unwrap_err().to_string();
        assert!(error.contains("no reactor running"), "{error}");
    }
}
