//! The channel: discovery, balancing, retry and ejection together, as one `tower::Service` that any
//! generated client takes.
//!
//! This is the one place where the stack is put together, and where tonic's types meet the rest: a
//! [`CallError`] becomes a [`tonic::Status`] here and nowhere else.

mod attempt;
mod builder;
mod call;
mod in_process;
mod response;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;

pub use self::{
    builder::{BuildError, ChannelBuilder},
    call::HashKey,
    in_process::InProcess,
    response::ResponseBody,
};
use crate::{
    BoxError,
    endpoint::ConnectivityState,
    endpointer::SetState,
    grpc::Code,
    instance::Instance,
    registry::{Registry, RegistryError},
    retry::CallError,
};

/// A client's way to all instances of one service.
///
/// Clones share everything. The background work (the registry's watch, the connections) ends when
/// the last clone is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use discovery::Channel;
/// use proto::{TrimRequest, trim_client::TrimClient};
///
/// let channel = Channel::builder("consul://localhost:8500", "trim_service").build()?;
/// let mut client = TrimClient::new(channel);
/// let answer = client.trim_space(TrimRequest { s: " a b ".into() }).await?;
/// assert_eq!(answer.into_inner().s, "ab");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel {
    shared: Arc<call::Shared>,
}

impl Channel {
    /// A channel to `service` in the registry that `url` names: `consul://localhost:8500`,
    /// `static://host:port,host:port`.
    pub fn builder(url: impl Into<String>, service: impl Into<String>) -> ChannelBuilder {
        ChannelBuilder::new(builder::Source::Url(url.into()), service.into())
    }

    /// A channel to `service` in a registry made elsewhere.
    pub fn from_registry(
        registry: Arc<dyn Registry>,
        service: impl Into<String>,
    ) -> ChannelBuilder {
        ChannelBuilder::new(builder::Source::Registry(registry), service.into())
    }

    /// Ends when an instance can take a call. Waits for ever where none ever comes; bound it with
    /// a timeout.
    pub async fn ready(&self) {
        let mut versions = self.shared.endpointer.versions();
        loop {
            versions.borrow_and_update();
            if self.status().ready > 0 {
                return;
            }
            if versions.changed().await.is_err() {
                // The endpointer's task lives as long as this handle, unless its runtime ended.
                return;
            }
        }
    }

    /// What the channel knows at this moment.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        let snapshot = self.shared.endpointer.snapshot();
        let ready = |e: &&Arc<crate::endpoint::Endpoint>| {
            e.subchannel().state() == ConnectivityState::Ready
        };
        ChannelStatus {
            instances: snapshot.all.len(),
            listed: snapshot
                .all
                .iter()
                .filter(|e| e.missing_since().is_none())
                .count(),
            ready: snapshot.all.iter().filter(ready).count(),
            discovered: snapshot.state != SetState::Unknown,
            confirmed: snapshot.confirmed,
            registry_error: snapshot.registry_error.clone(),
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("service", &self.shared.service)
            .field("status", &self.status())
            .finish()
    }
}

/// What a channel knows at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// Instances known.
    pub instances: usize,
    /// Instances that the registry's last good answer names. The others are protected removals.
    pub listed: usize,
    /// Instances with a working connection.
    pub ready: usize,
    /// Whether the registry has ever answered.
    pub discovered: bool,
    /// When it last did.
    pub confirmed: Option<Instant>,
    /// Why it has not since.
    pub registry_error: Option<Arc<RegistryError>>,
}

/// Which instance answered: an extension of every response.
#[derive(Clone, Debug)]
pub struct ServedBy(pub Arc<Instance>);

/// A call under way. Dropping it cancels the call.
pub type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>;

impl<B> tower_service::Service<Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    /// Always ready: a call that cannot be made fails at once, with a reason.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { call::run(shared, request).await.map_err(Status::from) })
    }
}

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let mut status = Self::new(error.code.into(), error.to_string());
        status.set_source(Arc::new(error));
        status
    }
}

impl From<Code> for tonic::Code {
    fn from(code: Code) -> Self {
        // The numbers are the protocol's.
        Self::from_i32(code as i32)
    }
}
