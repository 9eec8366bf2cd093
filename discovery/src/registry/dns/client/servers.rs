//! The DNS servers to ask: given ones, or the system's.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use tokio::task::spawn_blocking;

use crate::registry::dns::config::PORT;

/// The servers that resolv.conf(5) allows.
const MAX_SYSTEM: usize = 3;

#[derive(Clone, Debug)]
pub(in super::super) enum Servers {
    /// Each as `HOST:PORT`.
    Given(Vec<String>),
    /// The nameservers in this file, which is read each time.
    System(PathBuf),
}

impl Servers {
    /// The given servers, or the system's if there are none.
    pub(in super::super) fn of(given: &[String]) -> Self {
        if given.is_empty() {
            Self::System("/etc/resolv.conf".into())
        } else {
            Self::Given(given.to_vec())
        }
    }

    /// The servers as `HOST:PORT`. Never empty.
    pub(in super::super) async fn list(&self) -> io::Result<Vec<String>> {
        let path = match self {
            Self::Given(servers) => return Ok(servers.clone()),
            Self::System(path) => path.clone(),
        };
        let read = spawn_blocking(move || fs::read(path)).await;
        let text = match read.map_err(io::Error::other)? {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let servers = nameservers(&text).into_iter();
        Ok(servers
            .map(|ip| SocketAddr::new(ip, PORT).to_string())
            .collect())
    }
}

/// The nameservers of a resolv.conf(5): without any, a server on this machine.
fn nameservers(text: &str) -> Vec<IpAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            // An address with a zone (`fe80::1%eth0`) is left out: it has no portable form.
            (Some("nameserver"), Some(address)) => address.parse().ok(),
            _ => None,
        }
    });
    let mut addresses: Vec<IpAddr> = addresses.take(MAX_SYSTEM).collect();
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_nameservers_of_the_system_are_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let servers = Servers::System(path.clone());
        // A missing file means a server on this machine.
        assert_eq!(servers.list().await.unwrap(), ["127.0.0.1:53"]);
        let text = "# nameserver 1.1.1.1\nsearch a.b\n nameserver\t10.0.0.2 # x\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\nnameserver ::1\noptions ndots:5\nnameserver 10.0.0.3\n\
                    nameserver 10.0.0.4\n";
        fs::write(&path, text).unwrap();
        assert_eq!(
            servers.list().await.unwrap(),
            ["10.0.0.2:53", "[::1]:53", "10.0.0.3:53"]
        );
        fs::write(&path, b"nameserver 10.0.0.9\n\xff\xfe").unwrap();
        assert_eq!(servers.list().await.unwrap(), ["10.0.0.9:53"]);
    }

    #[tokio::test]
    async fn given_servers_replace_those_of_the_system() {
        let given = ["h:1".to_owned()];
        assert_eq!(Servers::of(&given).list().await.unwrap(), given);
        assert!(matches!(Servers::of(&[]), Servers::System(_)));
    }
}
