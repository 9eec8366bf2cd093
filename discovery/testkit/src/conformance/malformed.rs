//! Entries that are not instances.

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{
    Case, Finding, Subject,
    entries::Entries,
    watched::{Watched, usable_ports},
};

/// Malformed entries hide no good ones, neither in a running watch nor in a new one.
pub(super) async fn skipped<S: Subject>(subject: &mut S) -> Result<Finding> {
    let bound = S::promises().bound(Case::Malformed);
    let service = "conformance-malformed";
    let registry = subject.open()?;
    let mut entries = Entries::new(service, &registry);
    let mut running = Watched::start(&*subject.open()?, service)?;
    entries.add(subject, &[1, 2]).await?;
    for port in [1, 2] {
        running.until_usable(port, bound).await?;
    }
    let count = subject.write_malformed(service).await?;
    ensure!(count > 0, "no malformed entry was written");
    if S::REGISTERS {
        // A change after them shows that they have been read. Where the whole list is written, it would
        // replace them.
        entries.add(subject, &[3]).await?;
        running.until_usable(3, bound).await?;
    } else {
        running.until_confirmed(Instant::now(), bound).await?;
    }
    let good: &[u16] = if S::REGISTERS { &[1, 2, 3] } else { &[1, 2] };
    let mut new = Watched::separate(&*subject.open()?, service)?;
    new.until("an answer", bound, |set| set.confirmed.is_some())
        .await?;
    for (name, watched) in [("running", &running), ("new", &new)] {
        let set = watched.set();
        let ports = usable_ports(&set);
        ensure!(ports == good, "{name} watch: {ports:?} instead of {good:?}");
        ensure!(set.error.is_none(), "{name} watch: {:?}", set.error);
    }
    entries.clear(subject).await?;
    Ok(Finding::holds().note(format!("{count} beside {} good ones", good.len())))
}
