//! The conformance suite against a real etcd.

#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use discovery::registry::{Check, Registry, connect};
use testkit::{
    conformance::{self, Case, Credentials, Promises, Subject},
    http_client,
    registries::{ETCD_PASSWORD, Etcd, Server},
};

const SECOND: Duration = Duration::from_secs(1);

/// The lease of a registration. A keep-alive is sent three times in it.
const LEASE: Duration = Duration::from_secs(4);

struct EtcdServer(Server<Etcd>);

impl EtcdServer {
    fn open_with(&self, credentials: &str) -> Result<Arc<dyn Registry>> {
        let url = self.0.url().replace("://", &format!("://{credentials}"));
        Ok(connect(&format!("{url}/services?layout=grpc"))?)
    }
}

impl Subject for EtcdServer {
    const NAME: &'static str = "etcd";
    type Server = Server<Etcd>;

    async fn start() -> Result<Option<Self>> {
        Ok(Server::start(Etcd).await?.map(Self))
    }

    fn server(&mut self) -> &mut Server<Etcd> {
        &mut self.0
    }

    fn promises() -> Promises {
        Promises::default()
            .within(Case::Seen, SECOND)
            .within(Case::Updated, SECOND)
            .within(Case::Deregistered, SECOND)
            .within(Case::Thousand, SECOND)
            // The lease, and half a second in which etcd looks for expired ones, twice.
            .within(Case::Killed, LEASE + SECOND)
            .within(Case::Stopped, LEASE + SECOND)
            .within(Case::Outage, SECOND)
            // The confirm interval, and the request timeout.
            .within(Case::Hang, 11 * SECOND)
            .within(Case::Kept, 6 * SECOND)
            .within(Case::Wiped, 6 * SECOND)
            .within(Case::RightCredentials, SECOND)
            .within(Case::WrongCredentials, SECOND)
            .feature("watch", "a stream from the revision of the first read")
            .feature("checks", "the lease (ttl, at least 2 s), none")
            .feature(
                "credentials",
                "user and password, JWT, TLS with client certificates",
            )
    }

    async fn version(&self) -> Result<String> {
        let url = format!("http://{}/version", self.0.address());
        let text = http_client()?.get(url).send().await?.text().await?;
        let version: serde_json::Value = serde_json::from_str(&text)?;
        let version = version["etcdserver"].as_str();
        Ok(version.context("no version")?.to_owned())
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        self.open_with("")
    }

    fn service_flags(&self) -> Vec<String> {
        let url = format!("{}/services?layout=grpc", self.0.url());
        let flags = [
            "--registry",
            &url,
            "--check",
            "ttl",
            "--check-interval",
            "4s",
        ];
        flags.map(str::to_owned).to_vec()
    }

    fn check(&self) -> Check {
        Check::ttl(LEASE)
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        let values: [&[u8]; 7] = [
            b"",
            b"not an address",
            b"127.0.0.1:70000",
            b"127.0.0.1:0",
            b"{\"Op\":0,\"Addr\":",
            b"{\"Op\":1,\"Addr\":\"127.0.0.1:9\"}",
            b"\xff\xfe",
        ];
        for (at, value) in values.iter().enumerate() {
            let key = format!("services/{service}/malformed-{at}");
            self.0.put(&key, value).await?;
        }
        Ok(values.len())
    }

    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        let Some(server) = Server::start(Etcd).await? else {
            return Ok(None);
        };
        server.enable_auth().await?;
        let subject = Self(server);
        let credentials = Credentials {
            right: subject.open_with(&format!("root:{ETCD_PASSWORD}@"))?,
            wrong: vec![
                ("a wrong password", subject.open_with("root:wr0ng-secret@")?),
                ("an unknown user", subject.open_with("nemo:wr0ng-secret@")?),
                ("no user", subject.open_with("")?),
            ],
            secrets: vec!["wr0ng-secret".to_owned()],
        };
        Ok(Some((subject, credentials)))
    }
}

#[tokio::test]
async fn etcd_keeps_every_promise() {
    conformance::run::<EtcdServer>().await.unwrap();
}
