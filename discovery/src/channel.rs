//! The channel: discovery, balancing, retry and ejection together, as one `tower::Service` that any
//! generated client takes.
//!
//! A request travels through these files: `run` (the loop of attempts) and `race` (several at a time) on the
//! state in `call`, with the caller's `options`; `pick` (an endpoint from the snapshot; `targeted` if the
//! caller says where); `attempt` (one send); `answer` (reading up to the first message); `tracker`
//! (bookkeeping); `response` (the body that the caller reads). `record` and `trace` are what is seen of them
//! from outside: gRPC's metrics, and spans. `shared` is what all calls of a channel have in common,
//! `method_policy` what those of a method have. `builder` makes both from `settings`, and `service_config`
//! replaces the policies. `grpc_status` and this file are the only ones that know tonic's types.

mod answer;
mod attempt;
mod builder;
mod call;
mod chosen_factory;
mod events;
#[cfg(feature = "service-config")]
mod fixed_config;
mod fixed_settings;
mod grpc_status;
mod in_process;
mod limit;
mod method_policy;
mod options;
mod pick;
mod place;
mod race;
mod record;
#[cfg(feature = "service-config")]
mod report;
mod response;
mod retry_overrides;
#[cfg(feature = "service-config")]
mod route;
mod run;
#[cfg(feature = "service-config")]
mod service_config;
mod settings;
mod shared;
mod size_limit;
mod snapshot;
mod status;
mod targeted;
mod trace;
mod tracker;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use tonic::Status;

#[cfg(feature = "http")]
pub(crate) use self::builder::ProtocolSettings;
pub(crate) use self::builder::Source;
use self::shared::Shared;
pub use self::{
    attempt::ServedBy,
    builder::{BuildError, ChannelBuilder},
    events::Events,
    fixed_settings::ChannelSettings,
    in_process::InProcess,
    options::{CallOptions, InstanceFilter},
    response::ResponseBody,
    snapshot::{CallTotals, ChannelPolicy, ChannelSnapshot},
    status::{Changes, ChannelEnded, ChannelStatus, EndpointStatus, Protection},
};
#[cfg(feature = "http")]
use crate::protocol::Protocol;
use crate::{BoxError, grpc::Grpc, registry::Registry};

/// A client of all instances of one service.
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
    shared: Arc<Shared>,
}

impl Channel {
    /// A channel to `service` in the registry that `url` names: `consul://localhost:8500`,
    /// `static://host:port,host:port`.
    pub fn builder(url: impl Into<String>, service: impl Into<String>) -> ChannelBuilder {
        ChannelBuilder::new(Source::Url(url.into()), service.into())
    }

    /// A channel to `service` in a registry made elsewhere.
    pub fn from_registry(
        registry: Arc<dyn Registry>,
        service: impl Into<String>,
    ) -> ChannelBuilder {
        ChannelBuilder::new(Source::Registry(registry), service.into())
    }

    /// Waits until an instance can take a call; bound it with a timeout. Cancel safe. Without eager
    /// connections, an instance can that a call would connect to.
    ///
    /// Returns early if the channel's runtime has ended.
    pub async fn ready(&self) {
        // An ended channel can only be reported by the next call.
        let _ended = self.wait_for(|status| status.available > 0).await;
    }

    /// Waits until the status fulfils a condition, such as a number of ready instances; bound it with
    /// a timeout. Cancel safe.
    ///
    /// # Errors
    ///
    /// If the channel's runtime has ended.
    pub async fn wait_for(
        &self,
        mut condition: impl FnMut(&ChannelStatus) -> bool,
    ) -> Result<ChannelStatus, ChannelEnded> {
        let mut changes = self.changes();
        loop {
            let status = self.status();
            if condition(&status) {
                return Ok(status);
            }
            changes.changed().await?;
        }
    }

    /// The state of the channel at this moment.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        self.shared.endpointer.status(ChannelStatus::of)
    }

    /// The known instances at this moment, sorted by ID.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        EndpointStatus::all(&self.shared.endpointer)
    }

    /// Everything that the channel knows at this moment: [`status`](Self::status),
    /// [`endpoints`](Self::endpoints), counters and the policy in effect.
    #[must_use]
    pub fn snapshot(&self) -> ChannelSnapshot {
        ChannelSnapshot::of(&self.shared)
    }

    /// Subscribes to what happens from now on: instances added, removed, connected, disconnected,
    /// ejected and admitted, and the registry lost and back.
    ///
    /// ```no_run
    /// # async fn example(channel: discovery::Channel) {
    /// use discovery::ChannelEventKind;
    ///
    /// let mut events = channel.events();
    /// while let Ok(event) = events.next().await {
    ///     if let ChannelEventKind::Ejected { instance, reason, time } = event.kind {
    ///         println!("{instance} is ejected for {time:?}: {reason}");
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::new(self.shared.endpointer.events())
    }

    /// Subscribes to changes of [`status`](Self::status) and [`endpoints`](Self::endpoints).
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::new(self.shared.endpointer.versions())
    }
}

/// A future that carries out one call of another protocol, and returns what `finish` makes of its result.
#[cfg(feature = "http")]
pub(crate) fn call<P: Protocol, B, T>(
    channel: &Channel,
    request: Request<B>,
    finish: fn(run::Called) -> T,
) -> Pin<Box<dyn Future<Output = T> + Send>>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    T: Send + 'static,
{
    run::run::<P, B, T>(Arc::clone(&channel.shared), request, finish)
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("service", &self.shared.service)
            .field("status", &self.status())
            .finish()
    }
}

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

    /// Always ready: a call that cannot be made returns an error.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let shared = Arc::clone(&self.shared);
        run::run::<Grpc, B, _>(shared, request, |called| called.map_err(Status::from))
    }
}
