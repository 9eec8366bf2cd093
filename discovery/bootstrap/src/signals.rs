//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::io;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_tokio::{Handle, Signals};
use tracing::{info, warn};

/// The signals this process gets, from now on.
pub struct Shutdown {
    signals: Signals,
    handle: Handle,
}

impl Shutdown {
    /// Takes over both signals. Do it before anything that has to be undone.
    ///
    /// # Errors
    ///
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM])?;
        Ok(Self {
            handle: signals.handle(),
            signals,
        })
    }

    /// Waits for the first signal. From then on a second one ends the process at once, with the
    /// exit code that shells give it (128 and the signal's number).
    pub async fn requested(mut self) {
        let Some(signal) = self.signals.next().await else {
            // The stream ends with its handle, which is held here.
            return;
        };
        info!(
            signal = name(signal),
            "shutting down; a second signal exits at once"
        );
        tokio::spawn(async move {
            let _held = self.handle;
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
