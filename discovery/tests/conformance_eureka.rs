//! The conformance suite against a real Eureka.

#![cfg(feature = "eureka")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use discovery::registry::{Check, Registry, connect};
use serde_json::json;
use testkit::{
    conformance::{self, Case, Credentials, Promises, Subject},
    registries::{EUREKA_CREDENTIALS, Eureka, Server},
};

const SECOND: Duration = Duration::from_secs(1);

/// The time between two requests of a watch, with its jitter, and an answer. It is the default of 2 s.
const SEEN: Duration = Duration::from_millis(2500);

/// The lease of a registration. A renewal is sent three times in it.
const LEASE: Duration = Duration::from_secs(4);

struct EurekaServer(Server<Eureka>);

impl EurekaServer {
    fn open_with(&self, credentials: &str) -> Result<Arc<dyn Registry>> {
        let url = self.0.url().replace("://", &format!("://{credentials}"));
        Ok(connect(&url)?)
    }
}

impl Subject for EurekaServer {
    const NAME: &'static str = "Eureka";
    type Server = Server<Eureka>;

    async fn start() -> Result<Option<Self>> {
        Ok(Server::start(Eureka::default()).await?.map(Self))
    }

    fn server(&mut self) -> &mut Server<Eureka> {
        &mut self.0
    }

    fn promises() -> Promises {
        // After a restart, an instance registers again when its renewal is refused.
        let again = LEASE / 3 + SEEN;
        // The server looks for leases that have ended every half second.
        let gone = LEASE + SECOND / 2 + SEEN;
        Promises::default()
            .within(Case::Seen, SEEN)
            .within(Case::Updated, SEEN)
            .within(Case::Deregistered, SEEN)
            .within(Case::Thousand, SECOND)
            .within(Case::Killed, gone)
            .within(Case::Stopped, gone)
            .within(Case::Outage, SEEN)
            // The request timeout, after the interval.
            .within(Case::Hang, SEEN + 5 * SECOND)
            .without(
                Case::Kept,
                "Eureka has its entries in memory only: every restart is an empty one",
            )
            .within(Case::Wiped, again + 5 * SECOND)
            .within(Case::RightCredentials, SEEN)
            .within(Case::WrongCredentials, SEEN)
            .feature(
                "watch",
                "polling every 2 s; the suite's server has no response cache, the default's is 30 s",
            )
            .feature(
                "checks",
                "the lease (ttl); the suite's is 4 s, the default 30 s",
            )
            .feature("credentials", "HTTP basic, TLS with client certificates")
    }

    async fn version(&self) -> Result<String> {
        // The server does not state it. Its jar has it in its name.
        let home = std::env::var_os("EUREKA_HOME").context("EUREKA_HOME")?;
        let jars = fs::read_dir(std::path::Path::new(&home).join("lib"))?;
        for jar in jars {
            let name = jar?.file_name();
            let name = name.to_string_lossy();
            let version = name.strip_prefix("spring-cloud-netflix-eureka-server-");
            if let Some(version) = version.and_then(|rest| rest.strip_suffix(".jar")) {
                return Ok(version.to_owned());
            }
        }
        anyhow::bail!("no jar of the server")
    }

    fn open(&self) -> Result<Arc<dyn Registry>> {
        self.open_with("")
    }

    fn service_flags(&self) -> Vec<String> {
        let url = self.0.url();
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

    fn check_of_many(&self) -> Check {
        // Without 750 renewals a second.
        Check::Default
    }

    async fn write_malformed(&mut self, service: &str) -> Result<usize> {
        let port = |number: serde_json::Value| json!({ "$": number, "@enabled": "true" });
        // The server takes all of these.
        let malformed = [
            ("127.0.0.1", port(json!(-1))),
            ("127.0.0.1", port(json!(0))),
            ("127.0.0.1", port(json!(70000))),
            ("a b", port(json!(9))),
            ("0.0.0.0", port(json!(9))),
            ("[::1", port(json!(9))),
            ("127.0.0.1", json!({ "$": 9, "@enabled": "false" })),
        ];
        for (at, (host, port)) in malformed.iter().enumerate() {
            let entry = json!({ "instance": {
                "instanceId": format!("malformed-{at}"), "app": service, "hostName": host,
                "ipAddr": host, "status": "UP", "port": port,
                "securePort": { "$": 443, "@enabled": "true" },
                "dataCenterInfo": {
                    "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
                    "name": "MyOwn",
                },
            }});
            let path = format!("/apps/{service}");
            self.0.call("POST", &path, Some(&entry)).await?;
        }
        Ok(malformed.len())
    }

    async fn start_secured() -> Result<Option<(Self, Credentials)>> {
        let with_credentials = Eureka::default().with_credentials();
        let Some(server) = Server::start(with_credentials).await? else {
            return Ok(None);
        };
        let subject = Self(server);
        let (user, _) = EUREKA_CREDENTIALS.split_once(':').context("credentials")?;
        let credentials = Credentials {
            right: subject.open_with(&format!("{EUREKA_CREDENTIALS}@"))?,
            wrong: vec![
                (
                    "a wrong password",
                    subject.open_with(&format!("{user}:wr0ng-secret@"))?,
                ),
                ("no user", subject.open_with("")?),
            ],
            secrets: vec!["wr0ng-secret".to_owned()],
        };
        Ok(Some((subject, credentials)))
    }
}

#[tokio::test]
async fn eureka_keeps_every_promise() {
    conformance::run::<EurekaServer>().await.unwrap();
}
