//! A server that is started again, with and without its data.

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Case, Control as _, Finding, Subject, entries::Entries, report::seconds, watched::Watched,
};

const PORTS: [u16; 2] = [1, 2];

/// The restarted server has the instances, the watch follows it, and the registrations live on.
pub(super) async fn kept<S: Subject>(subject: &mut S) -> Result<Finding> {
    let restart = async |subject: &mut S| subject.server().restart().await;
    restarted(subject, Case::Kept, "conformance-kept", restart).await
}

/// The empty server gets the instances again, and the watch sees it.
pub(super) async fn wiped<S: Subject>(subject: &mut S) -> Result<Finding> {
    let restart = async |subject: &mut S| subject.server().restart_wiped().await;
    restarted(subject, Case::Wiped, "conformance-wiped", restart).await
}

async fn restarted<S: Subject>(
    subject: &mut S,
    case: Case,
    service: &str,
    restart: impl AsyncFnOnce(&mut S) -> Result<()>,
) -> Result<Finding> {
    let bound = S::promises().bound(case);
    let registry = subject.open()?;
    let mut entries = Entries::new(service, &registry);
    let mut watched = Watched::start(&*subject.open()?, service)?;
    entries.add(subject, &PORTS).await?;
    for port in PORTS {
        watched.until_usable(port, bound).await?;
    }
    if S::HAS_SERVER {
        subject.server().kill().await?;
        watched
            .until("the error", bound, |set| set.error.is_some())
            .await?;
    }
    restart(subject).await?;
    // From here on the server answers.
    let begun = Instant::now();
    watched.until_confirmed(begun, bound).await?;
    let confirmed = begun.elapsed();
    if case == Case::Wiped && !S::REGISTERS {
        // An empty server is a good answer, and whoever has written the list writes it again.
        for port in PORTS {
            watched.until_gone(port, bound).await?;
        }
        entries.write(subject).await?;
    }
    for port in PORTS {
        watched.until_usable(port, bound).await?;
    }
    // Not only in the set of the old watch: in the server.
    let mut new = Watched::separate(&*subject.open()?, service)?;
    for port in PORTS {
        new.until_usable(port, bound).await?;
    }
    let took = begun.elapsed();
    // The old watch follows the new server, and does not only show what it knew.
    entries.add(subject, &[3]).await?;
    watched.until_usable(3, bound).await?;
    entries.remove(subject, &PORTS).await?;
    for port in PORTS {
        watched.until_gone(port, bound).await?;
    }
    watched.stays_usable(3, bound.unwrap_or_default()).await?;
    entries.clear(subject).await?;
    Ok(Finding::took(took).note(format!("confirmed after {}", seconds(confirmed))))
}
