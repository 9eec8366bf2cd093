//! The servers of one ZooKeeper, and the way to one of them.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::timeout;
use tracing::{debug, info};

use super::{
    super::{
        config::Config,
        protocol::{Request, handshake::Session},
    },
    connection::Connection,
    error::{Failure, Lost},
    handshake,
    stream::Dialer,
};
use crate::{error::chain, registry::RegistryError};

/// Time limit for a connection to one server, with the handshake.
const CONNECT: Duration = Duration::from_secs(3);

/// The servers, and what is needed to open a session with them.
pub(in super::super) struct Ensemble {
    /// Hosts and ports. Not empty.
    servers: Vec<(String, u16)>,
    /// `user:password`.
    credentials: Option<String>,
    /// The path that `sync` names. The server does not look at it.
    root: String,
    dialer: Dialer,
    /// The place of the server that is tried next.
    next: AtomicUsize,
}

impl Ensemble {
    /// `servers` is not empty.
    pub(in super::super) fn new(
        servers: Vec<(String, u16)>,
        config: &Config,
    ) -> Result<Self, RegistryError> {
        // The first server is drawn, so that clients spread over the servers.
        let next = AtomicUsize::new(fastrand::usize(..servers.len().max(1)));
        Ok(Self {
            servers,
            credentials: config.credentials.clone(),
            root: config.base_path.clone(),
            dialer: Dialer::new(config)?,
            next,
        })
    }

    /// Opens a session with a timeout of `wish`, or resumes one. Tries each server once, the one
    /// after the last first. What is read over the connection is not older than the call.
    ///
    /// # Errors
    ///
    /// [`Failure::Expired`] if the session to resume has expired, [`Failure::Refused`] if the
    /// credentials are refused, and [`Failure::NoServer`] with each server's reason.
    pub(in super::super) async fn connect(
        &self,
        wish: Duration,
        resume: Option<&Session>,
    ) -> Result<Connection, Failure> {
        let limit = resume.map_or(CONNECT, |session| CONNECT.min(session.timeout));
        let mut reasons = Vec::new();
        for _ in &self.servers {
            let place = self.next.fetch_add(1, Relaxed) % self.servers.len();
            let (host, port) = &self.servers[place];
            let attempt = timeout(limit, self.open(host, *port, wish, resume)).await;
            match attempt.unwrap_or(Err(Lost::Silent(limit).into())) {
                Ok(connection) => return Ok(connection),
                Err(Failure::Expired) => return Err(Failure::Expired),
                Err(Failure::Refused(code)) if code.is_denial() => {
                    return Err(Failure::Refused(code));
                }
                Err(failure) => reasons.push(format!("{host}:{port}: {}", chain(&failure))),
            }
        }
        Err(Failure::NoServer(reasons.join("; ")))
    }

    /// As [`connect`](Self::connect), and opens a new session if the last one has expired.
    pub(in super::super) async fn reconnect(
        &self,
        wish: Duration,
        session: &mut Option<Session>,
    ) -> Result<Connection, Failure> {
        let mut connection = self.connect(wish, session.as_ref()).await;
        if let Err(Failure::Expired) = connection {
            *session = None;
            connection = self.connect(wish, None).await;
        }
        if let Ok(connection) = &connection {
            *session = Some(connection.session().clone());
        }
        connection
    }

    async fn open(
        &self,
        host: &str,
        port: u16,
        wish: Duration,
        resume: Option<&Session>,
    ) -> Result<Connection, Failure> {
        let mut stream = self.dialer.dial(host, port).await.map_err(Lost::from)?;
        let mut received = BytesMut::new();
        let credentials = self.credentials.as_deref();
        let session =
            handshake::open(&mut stream, &mut received, wish, resume, credentials).await?;
        debug!(server = %format_args!("{host}:{port}"), ?session, "connected");
        if resume.is_none() && session.timeout != wish {
            let granted = session.timeout;
            info!(?wish, ?granted, "ZooKeeper granted another session timeout");
        }
        let connection = Connection::start(stream, session, received);
        // A server may lag behind its leader, and behind what this client has seen.
        connection.call(Request::sync(&self.root)).await?;
        Ok(connection)
    }
}
