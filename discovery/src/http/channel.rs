//! The channel as a `tower::Service`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};

use super::{
    body::ResponseBody,
    protocol::{CODES, Http},
    rules::Rules,
    transport::WithRules,
};
use crate::{
    BoxError, BuildError, Changes, ChannelEnded, ChannelSnapshot, ChannelStatus, EndpointStatus,
    Events,
    channel::{Channel as Engine, ProtocolSettings, Source, call},
    code::Code,
    connection::negotiated::Connections,
    registry::Registry,
    retry::CallError,
};
#[cfg(feature = "service-config")]
use crate::{
    config::{Dialect, ServiceConfig},
    error::InvalidSetting,
};

/// A client of all instances of one HTTP service.
///
/// It is a `tower::Service` of [`http::Request`](https://docs.rs/http)s with any body, so hyper's, axum's and
/// reqwest's requests can go through it. Clones share everything. The background work ends when the last
/// clone is dropped. The [module](super) says what is repeated.
#[derive(Clone)]
pub struct Channel {
    engine: Engine,
}

/// Builds a [`Channel`].
///
/// The [codes](crate::RetryPolicy::codes) and [methods](crate::RetryPolicy::idempotent) of a
/// [`retry`](crate::ChannelBuilder::retry) policy are not used: [`Rules`] take their place.
/// A [service config](crate::ChannelBuilder::service_config) has names of paths, see the
/// [module](super#policy).
pub type ChannelBuilder = crate::ChannelBuilder<Rules>;

impl Channel {
    /// A channel to `service` in the registry that `url` names: `consul://localhost:8500`,
    /// `static://host:port,host:port`.
    pub fn builder(url: impl Into<String>, service: impl Into<String>) -> ChannelBuilder {
        Self::build_from(Source::Url(url.into()), service.into())
    }

    /// A channel to `service` in a registry made elsewhere.
    pub fn from_registry(
        registry: Arc<dyn Registry>,
        service: impl Into<String>,
    ) -> ChannelBuilder {
        Self::build_from(Source::Registry(registry), service.into())
    }

    fn build_from(source: Source, service: String) -> ChannelBuilder {
        ChannelBuilder::with_rules(source, service, Connections::default(), Rules::default())
    }

    /// Waits until an instance can take a call; see [`Channel::ready`](crate::Channel::ready).
    pub async fn ready(&self) {
        self.engine.ready().await;
    }

    /// Waits until the status fulfils a condition; see [`Channel::wait_for`](crate::Channel::wait_for).
    ///
    /// # Errors
    ///
    /// If the channel's runtime has ended.
    pub async fn wait_for(
        &self,
        condition: impl FnMut(&ChannelStatus) -> bool,
    ) -> Result<ChannelStatus, ChannelEnded> {
        self.engine.wait_for(condition).await
    }

    /// The state of the channel at this moment.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        self.engine.status()
    }

    /// The known instances at this moment, sorted by ID.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.engine.endpoints()
    }

    /// Everything that the channel knows at this moment.
    #[must_use]
    pub fn snapshot(&self) -> ChannelSnapshot {
        self.engine.snapshot()
    }

    /// Subscribes to what happens from now on; see [`Channel::events`](crate::Channel::events).
    #[must_use]
    pub fn events(&self) -> Events {
        self.engine.events()
    }

    /// Subscribes to changes of [`status`](Self::status) and [`endpoints`](Self::endpoints).
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.engine.changes()
    }
}

#[cfg(feature = "service-config")]
impl Channel {
    /// Replaces the [service config](crate::config), without losing a request or a connection; see
    /// [`Channel::set_service_config`](crate::Channel::set_service_config).
    ///
    /// # Errors
    ///
    /// If the config has a part that plain HTTP does not have, or a setting of it cannot work together with
    /// one of the builder. The old config stays.
    pub fn set_service_config(&self, config: ServiceConfig) -> Result<(), InvalidSetting> {
        self.engine.set_service_config(config)
    }

    /// The policy in effect, as a service config with a value for every setting that has one. A channel
    /// with this config has the same policy. The [rules](Rules) are not part of it.
    #[must_use]
    pub fn effective_config(&self) -> String {
        self.engine.effective_config()
    }

    /// The header whose value is the key of requests without a [`HashKey`](crate::HashKey); see
    /// [`Channel::request_hash_header`](crate::Channel::request_hash_header).
    #[must_use]
    pub fn request_hash_header(&self) -> Option<http::HeaderName> {
        self.engine.request_hash_header()
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.engine.fmt(f)
    }
}

impl ChannelBuilder {
    /// HTTP's own rules: the statuses that are retried, `Retry-After`, and the health path.
    pub fn rules(mut self, rules: Rules) -> Self {
        *self.rules_mut() = rules;
        self
    }

    /// Starts the registry's watch and the connections, and returns the channel without waiting for
    /// either: the first call waits for them until its deadline.
    ///
    /// # Errors
    ///
    /// If there is no tokio runtime, or if the registry's URL or a setting cannot work.
    pub fn build(mut self) -> Result<Channel, BuildError> {
        let rules = self.rules_mut().clone();
        rules.validate().map_err(|setting| BuildError::Setting {
            service: self.service().to_owned(),
            setting,
        })?;
        self.retry_codes(CODES.to_vec(), Code::ALL.to_vec());
        let engine = self.start(&ProtocolSettings {
            #[cfg(feature = "service-config")]
            dialect: Dialect::Http,
            factory: &|inner| Arc::new(WithRules::new(inner, rules.clone())),
            some_idempotent: true,
            // An instance may take few requests at a time, or none for a while.
            min_capacity: 0,
        })?;
        Ok(Channel { engine })
    }
}

/// A call under way. Dropping it cancels the call.
pub type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, CallError>> + Send>>;

impl<B> tower_service::Service<Request<B>> for Channel
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = CallError;
    type Future = ResponseFuture;

    /// Always ready: a call that cannot be made returns an error.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        call::<Http, B, _>(
            &self.engine,
            request,
            |called| Ok(called?.map(ResponseBody)),
        )
    }
}
