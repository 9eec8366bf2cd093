//! Calls to an etcd cluster: one connection to one member at a time, with a deadline for every call.
//!
//! `connection` is the connection, `auth` the token, `error` the meaning of a failed status.
//!
//! The connection is made by the first call and shared by all. When it breaks, or when its member does
//! not answer in time or says that it cannot serve, the next call connects to the next member.
//!
//! HTTP/2 pings are not used: etcd closes connections that are pinged while no stream is open. A hung
//! member is found by the deadlines of calls and by the requests for progress on watches.

mod auth;
mod connection;
mod error;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use prost::Message;
use tokio::{runtime::Handle, sync::Mutex, time::timeout};
use tonic::Status;
use tracing::debug;

pub(super) use self::connection::Stream;
use self::{
    auth::Auth,
    connection::{Connection, Token},
    error::{blames_member, wants_new_token},
};
use super::config::Config;
use crate::{
    BoxError,
    connection::{Factory as _, Http2},
    error::chain,
    instance::Instance,
    registry::RegistryError,
};

/// The client of one cluster.
pub(super) struct Client {
    name: String,
    members: Vec<Instance>,
    /// The index of the member that the next connection is tried with first.
    next: AtomicUsize,
    current: Mutex<Option<Connection>>,
    auth: Auth,
    config: Arc<Config>,
}

impl Client {
    pub(super) fn new(config: Arc<Config>) -> Result<Self, RegistryError> {
        let name = config.name();
        let wrong = |reason: &str| RegistryError::invalid_setting(name.clone(), reason);
        let members = config
            .endpoints
            .iter()
            .map(|member| Instance::parse(member));
        let members: Vec<_> = members.collect::<Result<_, _>>()?;
        let user = config.user.clone().zip(config.password.clone());
        // The files are read for every connection. The first time is here, so that an unusable file
        // is reported at the start.
        factory(&config)?;
        Ok(Self {
            // Clients spread over the members.
            next: AtomicUsize::new(fastrand::usize(..members.len().max(1))),
            members,
            current: Mutex::default(),
            auth: Auth::new(user, config.token.as_deref()).map_err(wrong)?,
            name,
            config,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Sends one request and awaits the answer, within the request timeout for each.
    ///
    /// # Errors
    ///
    /// `Unreachable` without an answer in time, `Denied` and `Refused` as the server says, `NoRuntime`
    /// outside a tokio runtime.
    pub(super) async fn call<Q, A>(
        &self,
        action: &str,
        path: &'static str,
        request: &Q,
    ) -> Result<A, RegistryError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let limit = self.config.request_timeout;
        self.with_token(action, limit, |connection, token| {
            let request = request.clone();
            async move { connection.unary(path, request, token).await }
        })
        .await
    }

    /// Opens a stream with `first` as its first request. Completes with the first answer, which must
    /// come within `limit`.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(super) async fn stream<Q, A>(
        &self,
        action: &str,
        path: &'static str,
        first: &Q,
        limit: Duration,
    ) -> Result<Stream<Q, A>, RegistryError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.with_token(action, limit, |connection, token| {
            let first = first.clone();
            async move { connection.stream(path, first, token).await }
        })
        .await
    }

    /// Runs a call on the current connection. A token that is refused is replaced once.
    async fn with_token<A, F>(
        &self,
        action: &str,
        limit: Duration,
        call: impl Fn(Connection, Option<Token>) -> F,
    ) -> Result<A, RegistryError>
    where
        F: Future<Output = Result<A, Status>> + Send,
    {
        if Handle::try_current().is_err() {
            return Err(RegistryError::NoRuntime {
                action: action.to_owned(),
            });
        }
        let mut replaced = false;
        loop {
            let connection = self.connection(action).await?;
            let token = self.auth.token(&connection, limit).await;
            let answer = match token {
                Ok(token) => (
                    timeout(limit, call(connection.clone(), token.clone())).await,
                    token,
                ),
                Err(status) => (Ok(Err(status)), None),
            };
            let status = match answer {
                (Ok(Ok(answer)), _) => return Ok(answer),
                (Ok(Err(status)), token) if !replaced && wants_new_token(&status) => {
                    if self.auth.forget(token.as_ref()).await {
                        replaced = true;
                        continue;
                    }
                    status
                }
                (Ok(Err(status)), _) => status,
                (Err(elapsed), _) => {
                    connection.close();
                    return Err(self.unreachable(action, elapsed));
                }
            };
            return Err(self.judge(action, &connection, &status));
        }
    }

    /// The factory of one connection. A certificate that was renewed is used from here on.
    async fn factory(&self) -> Result<Http2, RegistryError> {
        let config = Arc::clone(&self.config);
        let made = tokio::task::spawn_blocking(move || factory(&config)).await;
        made.map_err(|error| self.unreachable("connect", error))?
    }

    /// The current connection, or a new one to the first member that answers.
    async fn connection(&self, action: &str) -> Result<Connection, RegistryError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let factory = self.factory().await?;
        let first = self.next.load(Relaxed);
        let mut reasons = Vec::new();
        for offset in 0..self.members.len() {
            let at = (first + offset) % self.members.len();
            let member = &self.members[at];
            let limit = self.config.connect_timeout;
            // First, because the caller may give up while a member that hangs is tried. And if the
            // new connection breaks, its member is tried last.
            self.next.store(at + 1, Relaxed);
            let reason = match timeout(limit, factory.connect(member)).await {
                Ok(Ok(connected)) => {
                    let endpoint = member.authority();
                    debug!(registry = self.name, endpoint, "connected");
                    let connection =
                        Connection::start(connected, endpoint, self.config.message_limit);
                    *current = Some(connection.clone());
                    return Ok(connection);
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no connection within {limit:?}"),
            };
            reasons.push(format!("{}: {reason}", member.authority()));
        }
        Err(self.unreachable(action, reasons.join("; ")))
    }

    /// The error of a stream that failed. If its member is to blame and there are others, the next call
    /// connects to another.
    pub(super) fn failed<Q, A>(
        &self,
        action: &str,
        stream: &Stream<Q, A>,
        status: &Status,
    ) -> RegistryError {
        self.judge(action, stream.connection(), status)
    }

    /// The error of a stream without an answer for `silence`. Closes its connection; the next call
    /// connects to the next member.
    pub(super) fn silent<Q, A>(
        &self,
        action: &str,
        stream: &Stream<Q, A>,
        silence: Duration,
    ) -> RegistryError {
        stream.connection().close();
        self.unreachable(action, format!("no answer within {silence:?}"))
    }

    /// The error of a watch that the server ended, with its reason.
    pub(super) fn canceled(&self, action: &str, reason: String) -> RegistryError {
        error::error(&self.name, action, &Status::cancelled(reason))
    }

    fn judge(&self, action: &str, connection: &Connection, status: &Status) -> RegistryError {
        if blames_member(status) && self.members.len() > 1 {
            let (registry, endpoint) = (&self.name, connection.endpoint());
            debug!(
                registry,
                endpoint,
                "leaving the member: {}",
                status.message()
            );
            connection.close();
        }
        error::error(&self.name, action, status)
    }

    fn unreachable(&self, action: &str, source: impl Into<BoxError>) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.name.clone(),
            action: action.to_owned(),
            source: source.into(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Makes the connections. With TLS, reads the certificate files.
fn factory(config: &Config) -> Result<Http2, RegistryError> {
    #[cfg(feature = "tls")]
    if config.tls {
        return super::tls::factory(config);
    }
    config.validate()?;
    Ok(Http2::new())
}
