//! A channel to one, two or three servers of a peer, and the checks around each case.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use discovery::{Channel, Instance, ServedBy, registry::StaticRegistry};
use http::Extensions;
use testkit::eventually;
use tokio::time::timeout;

use crate::{
    messages::{Empty, test_service_client::TestServiceClient},
    peer::Running,
};

/// The time of a unary call. Far above what one takes, even on a busy machine.
const CALL: Duration = Duration::from_secs(30);
/// The time for connections to be made, and for finished calls to be counted as such.
const SETTLE: Duration = Duration::from_secs(30);

/// The server and the channel of a case.
pub(crate) struct Target<'a> {
    /// The servers' process.
    pub(crate) servers: &'a Running,
    /// A channel to the servers.
    pub(crate) channel: Channel,
    /// The addresses that it has.
    addresses: &'a [SocketAddr],
    /// The errors from before its connections were made, by instance.
    errors: HashMap<String, String>,
}

impl<'a> Target<'a> {
    /// Connects to the first `count` of these servers.
    pub(crate) async fn connect(servers: &'a Running, count: usize) -> Result<Self> {
        let addresses = &servers.addresses[..count];
        let channel = connect(addresses).await?;
        let errors = channel
            .endpoints()
            .into_iter()
            .filter_map(|endpoint| {
                Some((
                    endpoint.instance.id.clone(),
                    endpoint.last_error?.to_string(),
                ))
            })
            .collect();
        Ok(Self {
            servers,
            channel,
            addresses,
            errors,
        })
    }

    /// The number of servers.
    pub(crate) fn count(&self) -> usize {
        self.addresses.len()
    }

    pub(crate) fn client(&self) -> TestServiceClient<Channel> {
        TestServiceClient::new(self.channel.clone())
    }

    /// A channel of its own to the same servers.
    pub(crate) async fn another_channel(&self) -> Result<Channel> {
        connect(self.addresses).await
    }

    /// Moves the rotation on, so that each repetition of a case begins at another server.
    pub(crate) async fn move_on(&self, repetition: usize) -> Result<()> {
        let before = self.addresses[repetition % self.count()];
        // A rotation reaches each server in one round. A connection that has just been made joins late.
        let reached = async || {
            let answer = self.client().empty_call(Empty {}).await;
            let answer = answer.map_err(|status| status.to_string())?;
            match served_by(answer.extensions()) {
                Ok(served) if served == before => Ok(()),
                Ok(other) => Err(other.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        eventually(&format!("{before} receives a call"), SETTLE, reached).await?;
        Ok(())
    }

    /// Checks that the case has left the channel as it was: every server ready, none ejected, no call
    /// under way.
    pub(crate) async fn check(&self) -> Result<()> {
        let idle = async || {
            let endpoints = self.channel.endpoints();
            let busy = endpoints.iter().find(|endpoint| endpoint.in_flight > 0);
            busy.map_or(Ok(()), |busy| Err(Box::new(busy.clone())))
        };
        eventually("no calls are under way", SETTLE, idle).await?;
        for endpoint in self.channel.endpoints() {
            ensure!(!endpoint.ejected, "{} was ejected", endpoint.instance);
            let last = endpoint.last_error.as_ref().map(ToString::to_string);
            let before = self.errors.get(&endpoint.instance.id);
            ensure!(
                last.as_ref() == before,
                "{} lost its connection: {last:?}",
                endpoint.instance
            );
        }
        Ok(())
    }
}

/// The server that answered a call.
pub(crate) fn served_by(extensions: &Extensions) -> Result<SocketAddr> {
    let served = extensions.get::<ServedBy>();
    let instance = &served.context("the response does not name its instance")?.0;
    Ok(instance.authority().parse()?)
}

async fn connect(addresses: &[SocketAddr]) -> Result<Channel> {
    let instances = addresses
        .iter()
        .map(|address| Instance::new(address.ip().to_string(), address.port()))
        .collect::<Result<Vec<_>, _>>()?;
    let count = instances.len();
    let registry = Arc::new(StaticRegistry::new(instances));
    let channel = Channel::from_registry(registry, "grpc.testing.TestService")
        .retry_timeout(CALL)
        .connect_timeout(CALL)
        .build()?;
    let ready = channel.wait_for(|status| status.ready == count);
    let ready = timeout(SETTLE, ready).await;
    ready.context("the servers cannot be connected to")??;
    Ok(channel)
}
