//! `discovery register`: runs a command, and registers it while it runs.
//!
//! `args` has the flags, `process` the command, `check` the checks that this program makes itself,
//! `registration` the registration. If this program is killed, the registry
//! notices by its own check, a lease or missing heartbeats.

mod args;
mod check;
mod process;
mod registration;

use bootstrap::signals::hangup_is_ignored;
use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook_tokio::Signals;

pub(crate) use self::args::RegisterArgs;
use self::{
    check::{Checks, HealthChange},
    process::Process,
    registration::Registered,
};
use crate::output;

/// Runs the command until it ends. Returns its exit code.
///
/// # Errors
///
/// When the registry or the registration cannot be used; the command is then not started.
pub(crate) async fn run(args: RegisterArgs) -> anyhow::Result<u8> {
    let mut registered = Registered::new(&args)?;
    let hangup = (!hangup_is_ignored()).then_some(SIGHUP);
    // Before the command starts, so that no signal is lost.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT].into_iter().chain(hangup))?;
    let mut process = match Process::start(&args.command) {
        Ok(process) => process,
        Err(failed) => {
            output::note(&format!("error: {failed}"));
            return Ok(failed.exit_code());
        }
    };
    let mut checks = Checks::start(&args);
    let mut stopping = false;
    // The signal that the command gets after the deregistration.
    let mut pending = None;
    let code = loop {
        tokio::select! {
            biased;
            code = process.ended() => break code?,
            Some(signal) = signals.next() => {
                if stopping {
                    if let Some(first) = pending.take() {
                        process.signal(first);
                    }
                    process.signal(signal);
                } else {
                    // Clients learn of the end before the command does.
                    stopping = true;
                    pending = Some(signal);
                    registered.begin_to_end();
                }
            }
            () = registered.ended(), if pending.is_some() => {
                if let Some(signal) = pending.take() {
                    process.signal(signal);
                }
            }
            change = checks.next(), if !stopping => match change {
                HealthChange::Passing => registered.begin()?,
                HealthChange::Failing(reason) => {
                    output::note(&format!("discovery: the check fails: {reason}"));
                    registered.begin_to_end();
                    registered.ended().await;
                }
            },
        }
    };
    registered.begin_to_end();
    registered.ended().await;
    Ok(code)
}
