//! The side of systemd in its notification protocol (`sd_notify(3)`).

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram as Socket},
    },
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{net::UnixDatagram, time::timeout};

/// More than a message has.
const MAX_MESSAGE: usize = 4096;

/// A service manager that services under test notify, at an abstract socket of its own.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: String,
}

impl ServiceManager {
    /// Begins to listen. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses the socket.
    pub fn start() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("testkit-service-manager-{}-{number}", process::id());
        let socket = Socket::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
            address: format!("@{name}"),
        })
    }

    /// The value of `NOTIFY_SOCKET`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The first message from now on with this variable, such as `READY=1`, and those before it.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`.
    pub async fn message(&self, variable: &str, limit: Duration) -> Result<(String, Vec<String>)> {
        let mut others = Vec::new();
        let found = async {
            loop {
                let mut bytes = [0; MAX_MESSAGE];
                let count = self.socket.recv(&mut bytes).await?;
                let message = std::str::from_utf8(&bytes[..count])
                    .context("not UTF-8")?
                    .to_owned();
                if message.lines().any(|line| line == variable) {
                    return Ok(message);
                }
                others.push(message);
            }
        };
        match timeout(limit, found).await {
            Ok(found) => found.map(|message| (message, others)),
            Err(_) => bail!("no {variable} within {limit:?}, but {others:?}"),
        }
    }
}
