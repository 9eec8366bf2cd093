//! The conformance suite against a real ZooKeeper.

#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use discovery::registry::{Check, Registry, connect};
use testkit::{
    conformance::{self, Case, Credentials, Promises, SECURED_SERVICE, Subject},
    registries::{Server, ZooKeeper},
};

const SECOND: Duration = Duration::from_secs(1);

/// The session of a registration.
const SESSION: Duration = Duration::from_secs(4);

const RIGHT: &str = "trim:right-secret";

struct ZooKeeperServer(Server<ZooKeeper>);

impl ZooKeeperServer {
    fn open_with(&self, credentials: &str, path: &str) -> Result<Arc<dyn Registry>> {
        let url = self.0.url().replace("://", &format!("://{credentials}"));
        // The suite's own watches notice a hanging server as soon as one with a session of 4 s.
        Ok(connect(&format!("{url}{path}?session_timeout=4s"))?)
    }
}

impl Subject for ZooKeeperServer {
    const NAME: &'static str = "ZooKeeper";
    type Server = Server<ZooKeeper>;

    async fn start() -> Result<Option<Self>> {
        Ok(Server::start(ZooKeeper).await?.map(Self))
    }

    fn server(&mut self) -> &mut Server<ZooKeeper> {
        &mut self.0
    }

    fn promises() -> Promises {
        Promises::default()
            .within(Case::Seen, SECOND)
            .within(Case::Updated, SECOND)
            .within(Case::Deregistered, SECOND)
            .within(Case::Thousand, SECOND)
            // The session, and the tick in which ZooKeeper looks for expired ones.
            .within(Case::Killed, SESSION + SECOND)
            .within(Case::Stopped, SESSION + SECOND)
            .within(Case::Outage, SECOND)
            // Two thirds of the session, and as long for an attempt to connect again.
            .within(Case::Hang, SESSION * 4 / 3 + SECOND)
            .within(Case::Kept, 6 * SECOND)
            .within(Case::Wiped, 6 * SECOND)
            .within(Case::RightCredentials, SECOND)
            .within(Case::WrongCredentials, SECOND)
            .feature("watch", "one-shot watches on the list and on each node")
            .feature(
                "checks",
                "the session (ttl); the suite's is 4 s, the default 10 s",
            )
            .feature("credentials", "digest, TLS with client certificates")
    }

    async fn version(&self) -> Result<String> {
        self.0.version().await
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        self.open_with("", "/services")
    }

    fn service_flags(&self) -> Vec<String> {
        let url = format!("{}/services", self.0.url());
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
        Check::ttl(SESSION)
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        let values: [&[u8]; 6] = [
            b"",
            b"127.0.0.1:9",
            b"{\"address\":",
            b"{\"address\":null,\"port\":9}",
            b"{\"address\":\"127.0.0.1\",\"port\":70000}",
            b"{\"address\":\"127.0.0.1\",\"port\":null}",
        ];
        let mut client = self.0.client().await?;
        for (at, value) in values.iter().enumerate() {
            let path = format!("/services/{service}/malformed-{at}");
            client.put(&path, value).await?;
        }
        client.close().await?;
        Ok(values.len())
    }

    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        let Some(server) = Server::start(ZooKeeper).await? else {
            return Ok(None);
        };
        let mut client = server.client().await?;
        client.authenticate(RIGHT).await?;
        // Rights are those of each node, and a missing one has none.
        for path in ["/secured", &format!("/secured/{SECURED_SERVICE}")] {
            client.create_private(path).await?;
        }
        client.close().await?;
        let subject = Self(server);
        let open = |credentials: &str| {
            let opened = subject.open_with(credentials, "/secured");
            opened.context("the registry with credentials")
        };
        let credentials = Credentials {
            right: open(&format!("{RIGHT}@"))?,
            wrong: vec![
                ("a wrong password", open("trim:wr0ng-secret@")?),
                ("no user", open("")?),
            ],
            secrets: vec!["wr0ng-secret".to_owned()],
        };
        Ok(Some((subject, credentials)))
    }
}

#[tokio::test]
async fn zookeeper_keeps_every_promise() {
    conformance::run::<ZooKeeperServer>().await.unwrap();
}
