//! The flags about connections to trim instances.

use std::time::Duration;

use bootstrap::values::{duration, positive_duration};
use clap::Args;
use discovery::{ChannelBuilder, connection::Http2};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub(super) struct ConnectionArgs {
    /// Connect before the first call, and reconnect when a connection is lost
    #[arg(long, env = "ADD_EAGER", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    eager: bool,
    /// Time limit of one attempt to connect
    #[arg(long, env = "ADD_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = positive_duration)]
    connect_timeout: Duration,
    /// First wait between attempts to connect to one instance
    #[arg(long, env = "ADD_CONNECT_BACKOFF", value_name = "DURATION", default_value = "100ms", value_parser = positive_duration)]
    connect_backoff: Duration,
    /// Maximum wait between attempts to connect to one instance
    #[arg(long, env = "ADD_CONNECT_BACKOFF_MAX", value_name = "DURATION", default_value = "750ms", value_parser = positive_duration)]
    connect_backoff_max: Duration,
    /// Maximum simultaneous attempts to connect
    #[arg(
        long,
        env = "ADD_CONNECT_PARALLEL",
        value_name = "N",
        default_value_t = 32
    )]
    connect_parallel: usize,
    /// Idle time before an HTTP/2 ping, which finds dead connections without calls; 0s: off. By
    /// default, Go servers close connections that are pinged more often than every 5 minutes
    #[arg(long, env = "ADD_KEEPALIVE", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    keepalive: Duration,
    /// Time limit for the answer to an HTTP/2 ping
    #[arg(long, env = "ADD_KEEPALIVE_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = positive_duration)]
    keepalive_timeout: Duration,
    /// Idle time before the kernel probes a connection, to find vanished machines; 0s: off
    #[arg(long, env = "ADD_TCP_KEEPALIVE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    tcp_keepalive: Duration,
}

impl ConnectionArgs {
    pub(super) fn apply(&self, builder: ChannelBuilder) -> ChannelBuilder {
        let on = |time: Duration| (!time.is_zero()).then_some(time);
        let mut http2 = Http2::new().with_tcp_keep_alive(on(self.tcp_keepalive));
        if let Some(interval) = on(self.keepalive) {
            http2 = http2.with_keep_alive(interval, self.keepalive_timeout);
        }
        builder
            .eager(self.eager)
            .connect_timeout(self.connect_timeout)
            .connect_backoff(self.connect_backoff, self.connect_backoff_max)
            .connect_parallel(self.connect_parallel)
            .factory(http2)
            .user_agent(concat!("add-service/", env!("CARGO_PKG_VERSION")))
    }
}
