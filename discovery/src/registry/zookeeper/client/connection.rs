//! One connection to a server, with its session.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use super::{
    super::protocol::{self, Code, Event, Request, Stat, handshake::Session},
    driver::{Call, Driver, EVENTS, IN_FLIGHT},
    error::{Failure, Lost},
};

/// A connection to one server. Dropping it closes the connection and leaves the session.
pub(in super::super) struct Connection {
    session: Session,
    calls: mpsc::Sender<Call>,
    events: mpsc::Receiver<Event>,
    ended: Arc<OnceLock<Lost>>,
}

impl Connection {
    /// Starts the connection's task. The caller must be inside a tokio runtime.
    pub(super) fn start<S>(stream: S, session: Session, received: BytesMut) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (calls, calls_rx) = mpsc::channel(IN_FLIGHT);
        let (events_tx, events) = mpsc::channel(EVENTS);
        let ended = Arc::new(OnceLock::new());
        let driver = Driver::new(calls_rx, events_tx, session.timeout, received);
        tokio::spawn(driver.run(stream, Arc::clone(&ended)));
        Self {
            session,
            calls,
            events,
            ended,
        }
    }

    pub(in super::super) fn session(&self) -> &Session {
        &self.session
    }

    /// True if the connection has ended.
    pub(in super::super) fn has_ended(&self) -> bool {
        self.calls.is_closed()
    }

    /// Waits for the next event. Fails when the connection has ended. It may be cancelled.
    pub(in super::super) async fn event(&mut self) -> Result<Event, Lost> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.lost()),
        }
    }

    /// An event that has already come.
    pub(in super::super) fn event_now(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Sends a request and waits for its answer.
    pub(in super::super) async fn call(&self, request: Request) -> Result<Bytes, Failure> {
        if request.size() > Request::LIMIT {
            return Err(Failure::TooLarge(request.size()));
        }
        let (answer, answered) = oneshot::channel();
        if self.calls.send(Call { request, answer }).await.is_err() {
            return Err(self.lost().into());
        }
        match answered.await {
            Ok(answer) => answer.map_err(Failure::Refused),
            Err(_) => Err(self.lost().into()),
        }
    }

    /// The names of a node's children.
    pub(in super::super) async fn children(&self, path: &str) -> Result<Vec<String>, Failure> {
        let answer = self.call(Request::children(path)).await?;
        Ok(protocol::children(&answer)?)
    }

    /// A node's data and status.
    pub(in super::super) async fn data(&self, path: &str) -> Result<(Vec<u8>, Stat), Failure> {
        let answer = self.call(Request::data(path)).await?;
        let (data, stat) = protocol::data_and_stat(&answer)?;
        Ok((data.to_vec(), stat))
    }

    /// The status of a node, which need not exist.
    pub(in super::super) async fn exists(&self, path: &str) -> Result<Option<Stat>, Failure> {
        match self.call(Request::exists(path)).await {
            Ok(answer) => Ok(Some(protocol::stat(&answer)?)),
            Err(Failure::Refused(Code::NO_NODE)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Ends the session.
    pub(in super::super) async fn close(&self) -> Result<(), Failure> {
        self.call(Request::close_session()).await.map(drop)
    }

    /// The reason of the connection's end, for a call that found it ended.
    fn lost(&self) -> Lost {
        self.ended.get().cloned().unwrap_or(Lost::Closed)
    }
}
