//! The conformance suite against a real DNS server, whose records the test writes.

#![cfg(feature = "dns")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use discovery::{
    Instance,
    registry::{Registry, connect},
};
use testkit::{
    conformance::{self, Case, Promises, Subject},
    registries::{Knot, Server, ZONE},
};

/// The least refresh, and the time for an answer.
const REFRESH: Duration = Duration::from_millis(1500);

/// The TTL of the records. The zone's empty answers are valid for 1 s.
const TTL: u32 = 0;

const NOTHING_REGISTERS: &str =
    "DNS registers nothing: the records of a dead process stay until somebody removes them";

struct KnotServer(Server<Knot>);

fn owner(service: &str) -> String {
    format!("_{service}._tcp")
}

fn records(instances: &[Instance]) -> Vec<String> {
    let record = |i: &Instance| format!("SRV 0 {} {} ns", i.weight, i.port);
    instances.iter().map(record).collect()
}

impl Subject for KnotServer {
    const NAME: &'static str = "dns";
    const REGISTERS: bool = false;
    type Server = Server<Knot>;

    async fn start() -> Result<Option<Self>> {
        Ok(Server::start(Knot).await?.map(Self))
    }

    fn server(&mut self) -> &mut Server<Knot> {
        &mut self.0
    }

    fn promises() -> Promises {
        Promises::default()
            .within(Case::Seen, REFRESH)
            .within(Case::Updated, REFRESH)
            .within(Case::Deregistered, REFRESH)
            .within(Case::Thousand, REFRESH)
            .within(Case::Outage, REFRESH)
            // The time-out of an answer more.
            .within(Case::Hang, REFRESH + Duration::from_secs(2))
            // After an outage, the driver asks again within 5 s.
            .within(Case::Kept, REFRESH + Duration::from_secs(5))
            .within(Case::Wiped, 2 * REFRESH + Duration::from_secs(5))
            .without(Case::Killed, NOTHING_REGISTERS)
            .without(Case::Stopped, NOTHING_REGISTERS)
            .without(Case::RightCredentials, "DNS has no credentials")
            .without(Case::WrongCredentials, "DNS has no credentials")
            .feature("watch", "a refresh by the TTL, every 1 s to 30 s")
            .feature("registration", "none: the test writes the records")
            .feature("tags, metadata, zone", "none; the weight is kept")
    }

    async fn version(&self) -> Result<String> {
        Ok(format!("Knot DNS {}", self.0.version().await?))
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        Ok(connect(&format!(
            "{}/_{{service}}._tcp.{ZONE}",
            self.0.url()
        ))?)
    }

    fn service_flags(&self) -> Vec<String> {
        Vec::new()
    }

    fn fitting(&self, instance: Instance) -> Instance {
        // The suite changes the metadata, which DNS does not have.
        let version = instance.meta.get("version").and_then(|v| v.parse().ok());
        let mut fitting = instance
            .with_weight(version.unwrap_or(7))
            .with_tags([""; 0])
            .with_meta([("target", format!("ns.{ZONE}"))]);
        fitting.id = fitting.authority();
        fitting.zone = None;
        fitting
    }

    async fn write(&mut self, service: &str, instances: &[Instance]) -> Result<()> {
        let records = records(instances);
        self.0.set_records(&owner(service), TTL, &records).await
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        let mut all: Vec<_> = [1, 2].map(|port| format!("SRV 0 1 {port} ns")).into();
        let malformed = [
            "SRV 0 1 0 ns",
            "SRV 0 1 3 nowhere",
            "SRV 0 1 4 .",
            "SRV 0 1 5 a\\032b",
            "SRV 0 1 6 127.0.0.1.",
        ];
        all.extend(malformed.map(str::to_owned));
        self.0.set_records(&owner(service), TTL, &all).await?;
        Ok(malformed.len())
    }
}

#[tokio::test]
async fn dns_keeps_every_promise() {
    conformance::run::<KnotServer>().await.unwrap();
}
