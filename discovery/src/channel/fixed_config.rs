//! The settings of a service config that a builder reads once: the registry's query and the connections.

use std::time::Duration;

use super::{builder::ChannelBuilder, chosen_factory::ChosenFactory};
use crate::{
    config::{KEEP_ALIVE_TIMEOUT, OwnConnections},
    error::InvalidSetting,
};

impl<R> ChannelBuilder<R> {
    /// Applies them, in place of the builder's own.
    pub(super) fn with_fixed_config(mut self) -> Result<Self, InvalidSetting> {
        let fixed = self.service_config.own.fixed.clone();
        self.query.passing_only = fixed.passing_only.unwrap_or(self.query.passing_only);
        let datacenters = fixed.datacenters.map(|names| names.join(","));
        self.query.datacenter = datacenters.or(self.query.datacenter);
        let connections = fixed.connections;
        self.eager = connections.eager.unwrap_or(self.eager);
        self.connect_timeout = connections.timeout.unwrap_or(self.connect_timeout);
        self.connect_parallel = connections.parallel.unwrap_or(self.connect_parallel);
        let backoff = &mut self.connect_backoff;
        backoff.first = connections.initial_backoff.unwrap_or(backoff.first);
        backoff.ceiling = connections.max_backoff.unwrap_or(backoff.ceiling);
        self.factory = probed(self.factory, &connections)?;
        Ok(self)
    }
}

/// The factory with these pings and probes.
fn probed(
    factory: ChosenFactory,
    connections: &OwnConnections,
) -> Result<ChosenFactory, InvalidSetting> {
    if !connections.has_probes() {
        return Ok(factory);
    }
    let Some(http2) = factory.http2().cloned() else {
        return Err(InvalidSetting::new(
            "connections",
            "given with keepAlive or tcpKeepAlive",
            "a factory of the application's own has no such setting; leave it out",
        ));
    };
    let on = |time: Duration| (!time.is_zero()).then_some(time);
    let (interval, limit) = http2.keep_alive().unzip();
    let interval = connections.keep_alive.map_or(interval, on);
    let limit = connections.keep_alive_timeout.or(limit);
    let pings = interval.map(|interval| (interval, limit.unwrap_or(KEEP_ALIVE_TIMEOUT)));
    let tcp = connections
        .tcp_keep_alive
        .map_or_else(|| http2.tcp_keep_alive(), on);
    let http2 = http2.with_keep_alives(pings).with_tcp_keep_alive(tcp);
    Ok(factory.with_http2(http2))
}
