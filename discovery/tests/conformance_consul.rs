//! The conformance suite against a real Consul.

#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use discovery::registry::{
    Check, Registry,
    consul::{Config, Consul},
};
use serde_json::json;
use testkit::{
    MASTER_TOKEN,
    conformance::{self, Case, Credentials, Promises, Subject},
};

const SECOND: Duration = Duration::from_secs(1);

/// The time for which Consul holds a request of the watch. The default of 55 s would make the case of
/// a hanging server last as long.
const WAIT: Duration = Duration::from_secs(5);

struct Server(testkit::Consul);

impl Server {
    async fn start_with(options: testkit::Options) -> Result<Self> {
        // Every registration holds a request open, and the suite has 1 000 of them in one process.
        let options = options
            .data_dir()
            .hcl("limits { http_max_conns_per_client = 4000 }");
        Ok(Self(options.start().await?))
    }

    fn open_with(&self, token: Option<&str>) -> Result<Arc<dyn Registry>> {
        let mut config = Config::new(self.0.address()).with_wait(WAIT);
        config.token = token.map(str::to_owned);
        Ok(Arc::new(Consul::new(&config)?))
    }
}

impl Subject for Server {
    const NAME: &'static str = "Consul";

    type Server = testkit::Consul;

    async fn start() -> Result<Option<Self>> {
        Ok(Some(Self::start_with(testkit::Consul::options()).await?))
    }

    fn server(&mut self) -> &mut testkit::Consul {
        &mut self.0
    }

    fn promises() -> Promises {
        Promises::default()
            .within(Case::Seen, SECOND)
            .within(Case::Updated, SECOND)
            .within(Case::Deregistered, SECOND)
            .within(Case::Thousand, SECOND)
            // One interval of the check, and its time limit.
            .within(Case::Killed, 2 * SECOND)
            .within(Case::Stopped, 3 * SECOND)
            .within(Case::Outage, SECOND)
            // The wait and a sixteenth of it, which Consul adds, and 5 s for the answer.
            .within(Case::Hang, WAIT * 17 / 16 + 6 * SECOND)
            .within(Case::Kept, 10 * SECOND)
            .within(Case::Wiped, 5 * SECOND)
            .within(Case::RightCredentials, SECOND)
            .within(Case::WrongCredentials, SECOND)
            .feature(
                "watch",
                "blocking queries; the suite's wait is 5 s, the default 55 s",
            )
            .feature("checks", "grpc (by Consul), ttl (by heartbeats), none")
            .feature(
                "credentials",
                "token or token file, HTTP basic, TLS with client certificates",
            )
    }

    async fn version(&self) -> Result<String> {
        let agent = self.0.get("/v1/agent/self").await?;
        Ok(agent["Config"]["Version"]
            .as_str()
            .unwrap_or("?")
            .to_owned())
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        self.open_with(None)
    }

    fn service_flags(&self) -> Vec<String> {
        let url = self.0.url();
        let flags = [
            "--registry",
            &url,
            "--check",
            "grpc",
            "--check-interval",
            "1s",
        ];
        flags.map(str::to_owned).to_vec()
    }

    fn check_of_many(&self) -> Check {
        // An agent with a data folder writes every heartbeat to its disk.
        Check::None
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        // Consul does not check ports and takes any text as an address.
        let malformed = [
            ("127.0.0.1", -1),
            ("127.0.0.1", 70000),
            ("a b", 80),
            ("0", 0),
        ];
        for (at, (address, port)) in malformed.iter().enumerate() {
            let body = json!({
                "ID": format!("malformed-{at}"), "Name": service, "Address": address, "Port": port,
            });
            self.0.put("/v1/agent/service/register", &body).await?;
        }
        Ok(malformed.len())
    }

    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        let server = Self::start_with(testkit::Consul::options().acl()).await?;
        let wrong = "5ec3e700-0000-4000-8000-000000000001";
        let credentials = Credentials {
            right: server.open_with(Some(MASTER_TOKEN))?,
            wrong: vec![
                ("a wrong token", server.open_with(Some(wrong))?),
                ("no token", server.open_with(None)?),
            ],
            secrets: vec![wrong.to_owned()],
        };
        Ok(Some((server, credentials)))
    }
}

#[tokio::test]
async fn consul_keeps_every_promise() {
    conformance::run::<Server>().await.unwrap();
}
