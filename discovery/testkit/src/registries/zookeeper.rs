//! ZooKeeper 3.9.

pub(super) mod client;

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{CommandLine, Launch, Place, Server};
use client::ZooKeeperClient;

/// A standalone ZooKeeper. Sessions last 1 to 10 s.
#[derive(Clone, Copy, Debug, Default)]
pub struct ZooKeeper;

impl Launch for ZooKeeper {
    const NAME: &'static str = "zookeeper";
    const VARIABLE: &'static str = "ZOOKEEPER_HOME";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let mut configuration = String::new();
        for (name, value) in [
            ("tickTime", "500"),
            ("minSessionTimeout", "1000"),
            ("clientPortAddress", "127.0.0.1"),
            ("maxClientCnxns", "0"),
            ("admin.enableServer", "false"),
            ("4lw.commands.whitelist", "*"),
            ("clientPort", &place.ports[0].to_string()),
            ("dataDir", &place.data.join("zk").display().to_string()),
        ] {
            writeln!(configuration, "{name}={value}")?;
        }
        let file = place.data.join("zoo.cfg");
        fs::write(&file, configuration)?;
        let jars = place.home.join("lib/*");
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        Ok(CommandLine::java(&[&jars], main, 128).arg(file))
    }

    fn url(&self, place: &Place) -> String {
        format!("zookeeper://{}", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        let answer = four_letters(place, b"srvr");
        let answer = timeout(Duration::from_secs(2), answer).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|text| text.starts_with("Zookeeper version")))
    }
}

impl Server<ZooKeeper> {
    /// Its version, for example `3.9.5`.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn version(&self) -> Result<String> {
        let text = four_letters(self.place(), b"srvr").await?;
        let rest = text.strip_prefix("Zookeeper version: ");
        let version = rest.and_then(|rest| rest.split(['-', ',', '\n']).next());
        Ok(version.context("no version")?.to_owned())
    }

    /// A client with a session of its own, for entries that the registry under test does not write.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn client(&self) -> Result<ZooKeeperClient> {
        ZooKeeperClient::connect(&self.address()).await
    }
}

/// The answer to one of the commands that ZooKeeper takes as four bytes.
async fn four_letters(place: &Place, command: &[u8; 4]) -> Result<String> {
    let mut stream = TcpStream::connect(place.address()).await?;
    stream.write_all(command).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
