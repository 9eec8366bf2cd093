//! The tokio runtime of a service.

use std::{env, ffi::OsStr, future::Future, num::NonZeroUsize, thread};

use anyhow::Context as _;
use tokio::runtime::Builder;

/// tokio's own variable for the number of worker threads.
const WORKERS: &str = "TOKIO_WORKER_THREADS";

/// Runs a service's `main` on a multi-threaded runtime.
///
/// It has one worker thread fewer than the machine has cores, at least one: about a third of the CPU
/// time of a small call is the kernel's network stack, which runs beside the workers. On two cores,
/// one worker takes a quarter less CPU time per call than two, which wake each other for every call.
/// `TOKIO_WORKER_THREADS` sets another number.
///
/// In contrast to `#[tokio::main]`, it does not wait for blocking threads at the end. The system's
/// resolver blocks such a thread for as long as its name servers do not answer, and the process would
/// outlast the drain.
///
/// # Errors
///
/// If the variable is not a positive number or the runtime cannot be made; the errors of `main`.
pub fn block_on(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers(env::var_os(WORKERS).as_deref(), cores)?)
        .enable_all()
        .build()
        .context("cannot start the tokio runtime")?;
    let ended = runtime.block_on(main);
    runtime.shutdown_background();
    ended
}

fn workers(variable: Option<&OsStr>, cores: usize) -> anyhow::Result<usize> {
    let Some(value) = variable else {
        return Ok(cores.saturating_sub(1).max(1));
    };
    let number = value
        .to_str()
        .and_then(|text| text.parse::<NonZeroUsize>().ok());
    number.map(NonZeroUsize::get).with_context(|| {
        format!(
            "{WORKERS} is {}: must be a positive number",
            value.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// Far above the time that it takes on a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn the_variable_wins_and_must_be_a_positive_number() {
        assert_eq!(workers(None, 1).unwrap(), 1);
        assert_eq!(workers(None, 2).unwrap(), 1);
        assert_eq!(workers(None, 8).unwrap(), 7);
        assert_eq!(workers(Some(OsStr::new("3")), 8).unwrap(), 3);
        for value in ["0", "-1", "many", ""] {
            let error = workers(Some(OsStr::new(value)), 8).unwrap_err();
            let expected = format!("TOKIO_WORKER_THREADS is {value}: must be a positive number");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn it_runs_main_with_workers_and_returns_its_error() {
        let main = async {
            let workers = tokio::runtime::Handle::current().metrics().num_workers();
            tokio::spawn(async move { anyhow::bail!("{workers} workers") }).await?
        };
        let error = block_on(main).unwrap_err().to_string();
        let workers: usize = error.strip_suffix(" workers").unwrap().parse().unwrap();
        assert!(workers >= 1);
    }

    #[test]
    fn it_does_not_wait_for_a_name_that_is_being_resolved() {
        let (name, resolver) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let result = block_on(async {
                let (started, resolving) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _receiver_gone = started.send(());
                    resolver.recv()
                });
                resolving.await?;
                anyhow::bail!("the drain is over")
            });
            let _receiver_gone = ended.send(result);
        });
        let result = end.recv_timeout(LIMIT).unwrap();
        assert_eq!(result.unwrap_err().to_string(), "the drain is over");
        drop(name);
    }
}
