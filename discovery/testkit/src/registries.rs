//! The real servers of the registries other than Consul, one per test, ended with the test.
//!
//! A variable of the environment names where each is: `scripts/registry.sh NAME --fetch` prints it, and
//! `scripts/test.sh` sets all of them.
//!
//! | server | variable |
//! |---|---|
//! | [`Etcd`] | `ETCD_BIN` |
//! | [`ZooKeeper`] | `ZOOKEEPER_HOME` |
//! | [`Eureka`] | `EUREKA_HOME` |
//! | [`Knot`] (DNS) | `KNOT_HOME` |
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! use testkit::registries::{Etcd, Server};
//!
//! let Some(mut etcd) = Server::start(Etcd).await? else {
//!     return Ok(()); // it has said SKIPPED
//! };
//! etcd.put("/services/trim_service/a", "127.0.0.1:8975").await?;
//! etcd.kill().await?;
//! etcd.restart().await?;
//! # Ok(())
//! # }
//! ```

mod etcd;
mod eureka;
mod knot;
mod launch;
mod server;
mod skip;
mod zookeeper;

pub use self::{
    etcd::{ETCD_PASSWORD, Etcd},
    eureka::{EUREKA_CREDENTIALS, Eureka},
    knot::{Knot, ZONE},
    launch::{CommandLine, Launch, Place},
    server::Server,
    skip::skip,
    zookeeper::{ZooKeeper, client::ZooKeeperClient},
};
