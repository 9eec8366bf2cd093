//! SIGINT and SIGTERM: the first one starts an orderly shutdown, the second one exits at once.

use std::io;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::{Handle, Signals};
use tracing::{info, warn};

/// The shutdown signals that this process receives.
pub struct Shutdown {
    signals: Signals,
    handle: Handle,
}

impl Shutdown {
    /// Handles both signals from now on. Call it before anything that must be undone at the end.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers, or outside a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let signals = Signals::new([SIGINT, SIGTERM])?;
        Ok(Self {
            handle: signals.handle(),
            signals,
        })
    }

    /// Waits for the first signal. A second signal then ends the process at once, with the exit code
    /// that shells use (128 and the signal's number).
    pub async fn requested(mut self) {
        let Some(signal) = self.signals.next().await else {
            // The stream ends only after its handle is dropped.
            return;
        };
        info!(
            signal = name(signal),
            "shutting down; a second signal exits at once"
        );
        tokio::spawn(async move {
            let _handle = self.handle;
            if let Some(signal) = self.signals.next().await {
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
        _ => "signal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_runtime_it_is_an_error() {
        let error = Shutdown::listen().map(drop).unwrap_err().to_string();
        assert!(error.contains("no reactor running"), "{error}");
    }
}
