//! Registering, registering again with other metadata, deregistering.

use std::{slice, time::Duration};

use anyhow::{Context as _, Result, ensure};
use discovery::{
    Instance,
    registry::{Registration, RegistryError},
};
use tokio::time::Instant;

use super::{
    Case, Finding, Subject,
    entries::{Entries, instance},
    report::seconds,
    watched::{Watched, usable},
};

/// Repetitions of a case whose time is short.
const TIMES: u16 = 5;

/// Each registered instance is seen by a running watch.
pub(super) async fn seen<S: Subject>(subject: &mut S) -> Result<Finding> {
    let registry = subject.open()?;
    let bound = S::promises().bound(Case::Seen);
    let service = "conformance-seen";
    let mut entries = Entries::new(service, &registry);
    let mut watched = Watched::start(&*subject.open()?, service)?;
    let (empty, _) = watched
        .until("an answer", bound, |set| set.confirmed.is_some())
        .await?;
    ensure!(empty.instances.is_empty(), "a new service has instances");
    ensure!(
        empty.error.is_none(),
        "an empty service is an error: {:?}",
        empty.error
    );
    let mut times = Vec::new();
    for port in 1..=TIMES {
        let begun = Instant::now();
        entries.add(subject, &[port]).await?;
        watched.until_usable(port, bound).await?;
        times.push(begun.elapsed());
    }
    match registry.services().await {
        // Eureka keeps names in upper case.
        Ok(names) => ensure!(
            names.iter().any(|name| name.eq_ignore_ascii_case(service)),
            "the registry lists the services {names:?}"
        ),
        Err(RegistryError::Unsupported { .. }) => {}
        Err(error) => return Err(error).context("the services are not listed"),
    }
    entries.clear(subject).await?;
    Ok(measured(times))
}

/// Each deregistered instance leaves the set, and no other does.
pub(super) async fn deregistered<S: Subject>(subject: &mut S) -> Result<Finding> {
    let registry = subject.open()?;
    let bound = S::promises().bound(Case::Deregistered);
    let service = "conformance-deregistered";
    let mut entries = Entries::new(service, &registry);
    let mut watched = Watched::start(&*subject.open()?, service)?;
    let ports: Vec<_> = (1..=TIMES).collect();
    entries.add(subject, &ports).await?;
    for port in &ports {
        watched.until_usable(*port, bound).await?;
    }
    let mut times = Vec::new();
    for port in &ports {
        let begun = Instant::now();
        entries.remove(subject, &[*port]).await?;
        watched.until_gone(*port, bound).await?;
        times.push(begun.elapsed());
        for other in port + 1..=TIMES {
            let set = watched.set();
            ensure!(usable(&set, other).is_some(), "{port} took {other} with it");
        }
    }
    Ok(measured(times))
}

/// A registration comes back as it was given.
pub(super) async fn round_trip<S: Subject>(subject: &mut S) -> Result<Finding> {
    let service = "conformance-round-trip";
    let given = subject.fitting(full(service, "1")?);
    let seen = through_a_watch(subject, given.clone()).await?;
    ensure!(same(&seen, &given), "given {given:?}, seen {seen:?}");
    Ok(Finding::holds().note(format!(
        "{} tags, {} metadata",
        given.tags.len(),
        given.meta.len()
    )))
}

/// A second registration under the same ID replaces the first.
pub(super) async fn updated<S: Subject>(subject: &mut S) -> Result<Finding> {
    let bound = S::promises().bound(Case::Updated);
    let service = "conformance-updated";
    let mut watched = Watched::start(&*subject.open()?, service)?;
    let registry = subject.open()?;
    let register = async |subject: &mut S, version: &str| {
        let instance = subject.fitting(full(service, version)?);
        if S::REGISTERS {
            let registration = Registration::new(instance.clone(), subject.check());
            let client = registry.registration(registration)?;
            client.register().await?;
            anyhow::Ok((instance, Some(client)))
        } else {
            subject.write(service, slice::from_ref(&instance)).await?;
            Ok((instance, None))
        }
    };
    let (first, earlier) = register(subject, "1").await?;
    watched.until_usable(first.port, bound).await?;
    let mut times = Vec::new();
    let mut clients = vec![earlier];
    for version in 2..=TIMES {
        let begun = Instant::now();
        let (given, client) = register(subject, &version.to_string()).await?;
        let updated = watched.until("the update", bound, |set| {
            usable(set, given.port).is_some_and(|seen| same(seen, &given))
        });
        let (set, _) = updated.await?;
        ensure!(set.instances.len() == 1, "the update is a second instance");
        times.push(begun.elapsed());
        clients.push(client);
    }
    if let Some(Some(client)) = clients.pop() {
        client.deregister().await?;
    }
    Ok(measured(times))
}

/// The instance as a watch sees it after its registration.
async fn through_a_watch<S: Subject>(subject: &mut S, given: Instance) -> Result<Instance> {
    let registry = subject.open()?;
    let mut watched = Watched::start(&*subject.open()?, &given.service)?;
    let mut client = None;
    if S::REGISTERS {
        let registration = Registration::new(given.clone(), subject.check());
        let made = registry.registration(registration)?;
        made.register().await?;
        client = Some(made);
    } else {
        subject
            .write(&given.service, slice::from_ref(&given))
            .await?;
    }
    watched.until_usable(given.port, None).await?;
    let seen = usable(&watched.set(), given.port).cloned();
    if let Some(client) = client {
        client.deregister().await?;
    }
    seen.context("it has gone again")
}

/// An instance with every field that a registry may hold.
fn full(service: &str, version: &str) -> Result<Instance> {
    Ok(instance(service, 8975)?
        .with_tags(["blue", "Grün", "a=b"])
        .with_meta([
            ("version", version),
            ("empty", ""),
            ("text", "a, \"b\"; ü/{}"),
        ])
        .with_weight(7)
        .with_zone("z1"))
}

/// True if a registry has kept what was given. The zone may also be among the metadata, as in Consul.
fn same(seen: &Instance, given: &Instance) -> bool {
    let mut meta = seen.meta.clone();
    if !given.meta.contains_key("zone") {
        meta.remove("zone");
    }
    seen.host == given.host
        && seen.port == given.port
        && seen.id == given.id
        && seen.service == given.service
        && seen.tags == given.tags
        && meta == given.meta
        && seen.weight == given.weight
        && seen.zone == given.zone
}

/// The median, with the slowest as a remark.
fn measured(mut times: Vec<Duration>) -> Finding {
    times.sort_unstable();
    let (Some(median), Some(slowest)) = (times.get(times.len() / 2), times.last()) else {
        return Finding::holds();
    };
    let note = format!("median of {}, slowest {}", times.len(), seconds(*slowest));
    Finding::took(*median).note(note)
}
