//! Failures of the process that is registered: a real `trim-service`.

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{Case, Finding, Subject, entries::instance, report::seconds, watched::Watched};
use crate::{Signal, TrimService, trim_service};

/// A killed process leaves the set within the bound, and one that is started again at the same port
/// comes back although the entry of its predecessor may still be there.
pub(super) async fn killed<S: Subject>(subject: &mut S) -> Result<Finding> {
    let bound = S::promises().bound(Case::Killed);
    let service = "conformance-killed";
    let mut watched = Watched::start(&*subject.open()?, service)?;
    let mut trim = start(subject, service, 0).await?;
    let port = trim.grpc.port();
    watched.until_usable(port, bound).await?;
    let begun = Instant::now();
    trim.process.signal(Signal::SIGKILL)?;
    watched.until_gone(port, bound).await?;
    let took = begun.elapsed();
    // A registry may notice the end before the kernel has released the port.
    trim.process.exit(super::PATIENCE).await?;
    let mut second = start(subject, service, port).await?;
    watched.until_usable(port, bound).await?;
    // Killed and started again before the registry has noticed.
    second.process.signal(Signal::SIGKILL)?;
    second.process.exit(super::PATIENCE).await?;
    let third = start(subject, service, port).await?;
    // For longer than the entry of the predecessor can live.
    tokio::time::sleep(bound.unwrap_or_default()).await;
    watched.until_usable(port, bound).await?;
    end(third).await?;
    watched.until_gone(port, bound).await?;
    Ok(Finding::took(took).note("also restarted at its port at once"))
}

/// A stopped process leaves the set within the bound, and comes back once it continues.
pub(super) async fn stopped<S: Subject>(subject: &mut S) -> Result<Finding> {
    let bound = S::promises().bound(Case::Stopped);
    let service = "conformance-stopped";
    let mut watched = Watched::start(&*subject.open()?, service)?;
    let trim = start(subject, service, 0).await?;
    let port = trim.grpc.port();
    watched.until_usable(port, bound).await?;
    let begun = Instant::now();
    trim.process.signal(Signal::SIGSTOP)?;
    watched.until_gone(port, bound).await?;
    let took = begun.elapsed();
    trim.process.signal(Signal::SIGCONT)?;
    let back = watched.until_usable(port, bound).await?;
    end(trim).await?;
    watched.until_gone(port, bound).await?;
    Ok(Finding::took(took).note(format!("back {} after SIGCONT", seconds(back))))
}

async fn start<S: Subject>(subject: &S, service: &str, port: u16) -> Result<TrimService> {
    let (mut flags, port) = (subject.service_flags(), port.to_string());
    for flag in [
        "--name",
        service,
        "--ip",
        "127.0.0.1",
        "--port",
        &port,
        "--drain",
        "100ms",
    ] {
        flags.push(flag.to_owned());
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let trim = trim_service(&flags).await?;
    let expected = instance(service, trim.grpc.port())?.id;
    ensure!(trim.id == expected, "registers as {}", trim.id);
    Ok(trim)
}

/// Ends it in order, by SIGTERM.
async fn end(mut trim: TrimService) -> Result<()> {
    trim.process.signal(Signal::SIGTERM)?;
    let status = trim.process.exit(super::PATIENCE).await?;
    ensure!(status.success(), "trim-service exited with {status}");
    Ok(())
}
