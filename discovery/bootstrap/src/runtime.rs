//! The runtime of a service.

use std::future::Future;

use anyhow::Context as _;
use tokio::runtime::Builder;

/// Runs a service's `main` on a multi-threaded runtime.
///
/// In contrast to `#[tokio::main]`, it does not wait for blocking threads at the end. The system's
/// resolver blocks such a thread for as long as its name servers do not answer, and the process would
/// outlast the drain.
///
/// # Errors
///
/// The error of `main`, and when the runtime cannot be built.
pub fn block_on(main: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(main);
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    /// Far above the time that it takes on a busy machine.
    const LIMIT: Duration = Duration::from_secs(20);

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
