//! A server that is down, and one that hangs.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{
    Case, Control as _, Finding, Subject,
    entries::Entries,
    report::seconds,
    watched::{Watched, usable_ports},
};

const PORTS: [u16; 2] = [1, 2];

/// A killed server is reported, the set stays, and the watch recovers.
pub(super) async fn outage<S: Subject>(subject: &mut S) -> Result<Finding> {
    let down = async |subject: &mut S| subject.server().kill().await;
    let up = async |subject: &mut S| subject.server().restart().await;
    without_server(subject, Case::Outage, "conformance-outage", down, up).await
}

/// A hanging server is reported, the set stays, and the watch recovers.
pub(super) async fn hang<S: Subject>(subject: &mut S) -> Result<Finding> {
    let down = async |subject: &mut S| subject.server().pause();
    let up = async |subject: &mut S| subject.server().resume();
    without_server(subject, Case::Hang, "conformance-hang", down, up).await
}

async fn without_server<S: Subject>(
    subject: &mut S,
    case: Case,
    service: &str,
    down: impl AsyncFnOnce(&mut S) -> Result<()>,
    up: impl AsyncFnOnce(&mut S) -> Result<()>,
) -> Result<Finding> {
    let bound = S::promises().bound(case);
    let registry = subject.open()?;
    let mut entries = Entries::new(service, &registry);
    let mut watched = Watched::start(&*subject.open()?, service)?;
    entries.add(subject, &PORTS).await?;
    for port in PORTS {
        watched.until_usable(port, bound).await?;
    }
    let begun = Instant::now();
    down(subject).await?;
    let (set, _) = watched
        .until("the error", bound, |set| set.error.is_some())
        .await?;
    let took = begun.elapsed();
    ensure!(usable_ports(&set) == PORTS, "not kept: {set:?}");
    // A watch that starts now has no set, and says why.
    let mut late = Watched::separate(&*subject.open()?, service)?;
    let (set, _) = late
        .until("the error of a new watch", bound, |set| set.error.is_some())
        .await?;
    ensure!(
        set.confirmed.is_none(),
        "confirmed without a server: {set:?}"
    );
    let set = watched.set().clone();
    ensure!(usable_ports(&set) == PORTS, "not kept: {set:?}");
    let begun = Instant::now();
    up(subject).await?;
    watched.until_confirmed(begun, bound).await?;
    late.until_confirmed(begun, bound).await?;
    let recovered = begun.elapsed();
    for port in PORTS {
        watched
            .until_usable(port, bound.or(Some(Duration::ZERO)))
            .await?;
    }
    entries.clear(subject).await?;
    Ok(Finding::took(took).note(format!("confirmed {} after its return", seconds(recovered))))
}
