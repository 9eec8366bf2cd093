//! Many instances of one service.

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Case, Finding, Subject,
    entries::Entries,
    report::seconds,
    watched::{Watched, usable_ports},
};

/// As many as the issue asks for.
const COUNT: u16 = 1000;

/// As many registrations at a time: fewer than the connections that Consul allows to one client.
const AT_ONCE: usize = 50;

/// All of them are in the first set of a new watch, and a running watch sees them come and go.
pub(super) async fn thousand<S: Subject>(subject: &mut S) -> Result<Finding> {
    let bound = S::promises().bound(Case::Thousand);
    let service = "conformance-thousand";
    let registry = subject.open()?;
    let mut entries = Entries::new(service, &registry);
    let mut running = Watched::start(&*subject.open()?, service)?;
    let ports: Vec<_> = (1..=COUNT).collect();
    let check = subject.check_of_many();
    let begun = Instant::now();
    for some in ports.chunks(AT_ONCE) {
        entries.add_with(subject, some, &check).await?;
    }
    let registered = begun.elapsed();
    let all = |set: &_| usable_ports(set) == ports;
    running.until("all", bound, all).await?;
    let begun = Instant::now();
    let mut new = Watched::separate(&*subject.open()?, service)?;
    new.until("all", bound, all).await?;
    let took = begun.elapsed();
    let begun = Instant::now();
    for some in ports.chunks(AT_ONCE) {
        entries.remove(subject, some).await?;
    }
    running
        .until("none", bound, |set| usable_ports(set).is_empty())
        .await?;
    Ok(Finding::took(took).note(format!(
        "registered in {}, gone in {}",
        seconds(registered),
        seconds(begun.elapsed())
    )))
}
