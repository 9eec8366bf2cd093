//! The add service of a row: the project's own, or one that is written in Go with another client of
//! gRPC services, to compare them.

use std::{collections::BTreeSet, env, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use testkit::{AddService, TrimService, add_service, eventually, http_add_service};

use crate::{
    gokit::GoAdd,
    load::send,
    observe::{Metrics, metrics},
    protocol::Protocol,
    registry::Registry,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Calls per instance within which a rotation uses all of them.
const TURNS: usize = 4;
/// Part of the answer of a trim service that fails as it was told.
const FAULT: &str = "fault injected by --fault";

/// The client that the add service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// The project's own.
    Discovery,
    /// Go kit's `sd` and `lb`.
    Gokit,
    /// grpc-go's round robin, outlier detection and retries.
    GrpcGo,
}

impl Client {
    /// The reason why this client cannot be run on this machine, if it cannot.
    pub(crate) fn unavailable(self) -> Option<String> {
        (self != Self::Discovery && env::var_os("GOKIT_BIN").is_none_or(|path| path.is_empty()))
            .then(|| {
                "the Go services are not built: drill.sh builds them where there is Go".to_owned()
            })
    }
}

/// A running add service.
pub(crate) enum Add {
    Discovery(AddService),
    Go(GoAdd),
}

impl Add {
    /// Starts it. The flags are those of the project's own.
    pub(crate) async fn start(
        client: Client,
        protocol: Protocol,
        registry: &Registry,
        flags: &[String],
    ) -> Result<Self> {
        let service = match client {
            Client::Discovery => {
                let mut all = registry.add_flags();
                if protocol == Protocol::Grpc {
                    all.extend(["--log-format".to_owned(), "json".to_owned()]);
                }
                all.extend_from_slice(flags);
                let all: Vec<_> = all.iter().map(String::as_str).collect();
                return Ok(Self::Discovery(match protocol {
                    Protocol::Grpc => add_service(&all).await?,
                    Protocol::Http => http_add_service(&all).await?,
                }));
            }
            Client::Gokit => "add",
            Client::GrpcGo => "add-grpc",
        };
        let binary = env::var_os("GOKIT_BIN").context("GOKIT_BIN is not set")?;
        let consul = registry.consul()?.address();
        let add = GoAdd::start(&PathBuf::from(binary), service, &consul).await?;
        Ok(Self::Go(add))
    }

    pub(crate) fn http(&self) -> SocketAddr {
        match self {
            Self::Discovery(add) => add.http,
            Self::Go(add) => add.http,
        }
    }

    /// The name that answers give a trim service.
    pub(crate) fn id(&self, registry: &Registry, trim: &TrimService) -> String {
        match self {
            Self::Discovery(_) => registry.id(trim),
            Self::Go(_) => trim.grpc.to_string(),
        }
    }

    /// The metrics; none of a service in Go.
    pub(crate) async fn metrics(&self, client: &reqwest::Client) -> Result<Metrics> {
        match self {
            Self::Discovery(add) => metrics(client, add.http).await,
            Self::Go(_) => Metrics::parse(""),
        }
    }

    /// Waits until it uses this many instances.
    pub(crate) async fn ready(&self, client: &reqwest::Client, count: usize) -> Result<()> {
        let url = format!("http://{}/concat", self.http());
        eventually("instances in use", LIMIT, async || {
            let used = match self {
                Self::Discovery(_) => {
                    let metrics = self.metrics(client).await;
                    metrics.map_err(|error| error.to_string())?.ready()
                }
                Self::Go(_) => {
                    let mut used = BTreeSet::new();
                    let mut refused = 0;
                    for _ in 0..TURNS * count {
                        match send(client, &url, "1S").await {
                            Ok(served) => used.extend(served.split(',').map(str::to_owned)),
                            Err(error) if error.contains(FAULT) => refused += 1,
                            Err(error) => return Err(error),
                        }
                    }
                    // Instances that all fail are not named, and were reached.
                    if refused == TURNS * count {
                        count
                    } else {
                        used.len()
                    }
                }
            };
            if used == count {
                Ok(())
            } else {
                Err(format!("{used} of {count}"))
            }
        })
        .await?;
        Ok(())
    }
}
