//! Flags, their environment variables and defaults, and the channel that they describe.

mod calls;
mod connections;
mod ejection;
mod instances;

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use anyhow::Context as _;
use axum::http::HeaderName;
use bootstrap::{
    logging::LogArgs,
    registry::RegistryArgs,
    values::{duration, positive_number},
};
use clap::Parser;
use discovery::Channel;

use self::{
    calls::CallArgs, connections::ConnectionArgs, ejection::EjectionArgs, instances::InstanceArgs,
};

/// Adds numbers and joins texts, over gRPC and HTTP/JSON; finds trim instances through a registry.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Port for HTTP/JSON; 0 takes any free one
    #[arg(
        long,
        env = "ADD_HTTP_PORT",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub(crate) http_port: u16,
    /// Port for gRPC; 0 takes any free one
    #[arg(
        long,
        env = "ADD_GRPC_PORT",
        value_name = "PORT",
        default_value_t = 8972
    )]
    pub(crate) grpc_port: u16,
    /// Address to listen on
    #[arg(long, env = "ADD_LISTEN", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(crate) listen: IpAddr,
    /// Time to finish accepted requests after a signal
    #[arg(long, env = "ADD_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// Longest request and answer, in bytes
    #[arg(long, env = "ADD_MAX_BODY", value_name = "BYTES", default_value_t = 1 << 20, value_parser = max_body)]
    pub(crate) max_body: usize,
    /// Maximum requests per second, HTTP and gRPC together; further ones fail with 429 or
    /// `RESOURCE_EXHAUSTED` [default: no limit]
    #[arg(long, env = "ADD_RATE_LIMIT", value_name = "N", value_parser = positive_number)]
    pub(crate) rate_limit: Option<NonZeroU32>,
    /// Open connections of each port; at the limit, new ones wait until one closes [default: three
    /// eighths of the process's limit of open files]
    #[arg(long, env = "ADD_MAX_CONNECTIONS", value_name = "N", value_parser = positive_number)]
    pub(crate) max_connections: Option<NonZeroU32>,

    #[command(flatten)]
    instances: InstanceArgs,
    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    ejection: EjectionArgs,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Args {
    /// The channel to the trim instances.
    pub(crate) fn channel(&self) -> anyhow::Result<Channel> {
        let url = match &self.instances.addresses {
            Some(addresses) => format!("static://{addresses}"),
            None => self.registry.url(),
        };
        let builder = Channel::builder(url, self.instances.name());
        let builder = self.instances.apply(builder);
        let builder = self.calls.apply(builder);
        let builder = self.ejection.apply(builder);
        let builder = self.connections.apply(builder);
        builder.build().context("cannot set up discovery")
    }

    /// The header whose value keeps requests with one trim instance.
    pub(crate) fn key_header(&self) -> Option<HeaderName> {
        self.calls.key_header.clone()
    }
}

fn max_body(text: &str) -> Result<usize, String> {
    match text.parse() {
        // The trim service takes messages of 4 MiB, gRPC's usual limit, frame and all.
        Ok(bytes) if (64..=4_000_000).contains(&bytes) => Ok(bytes),
        _ => Err("expected a number of bytes from 64 to 4000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_make_sense() {
        Args::command().debug_assert();
    }

    #[tokio::test]
    async fn the_defaults_make_a_channel() {
        let args = Args::try_parse_from(["add-service"]).unwrap();
        args.channel().unwrap();
    }

    #[test]
    fn a_bad_value_is_refused_with_its_flag() {
        for (flag, value) in [
            ("--http-port", "x"),
            ("--grpc-port", "70000"),
            ("--listen", "localhost"),
            ("--max-body", "1"),
            ("--rate-limit", "0"),
            ("--trim-name", ""),
            ("--static", "127.0.0.1"),
            ("--balancer", "best"),
            ("--retry-max", "0"),
            ("--retry-timeout", "500"),
            ("--hedge", "sometimes"),
            ("--retry-codes", "UNAVAILABLE,BAD"),
            ("--key-header", "a b"),
            ("--eject", "maybe"),
            ("--consul", "::1:80"),
        ] {
            let error = Args::try_parse_from(["add-service", flag, value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }

    #[tokio::test]
    async fn what_only_the_channel_knows_is_refused_when_it_is_built() {
        for (flag, value, reason) in [
            ("--eject-share", "2", "shares must"),
            ("--retry-budget", "-1", "retry budget"),
            ("--eject-time", "2h", "base time"),
            ("--connect-parallel", "0", "connect_parallel"),
            (
                "--overprovisioning-factor",
                "0.5",
                "overprovisioning_factor",
            ),
            ("--removal-protection-share", "2", "shares must"),
            ("--retry-backoff", "1s", "retry backoff"),
        ] {
            // The equals sign makes a negative number a value.
            let flag = format!("{flag}={value}");
            let line = ["add-service", "--static=127.0.0.1:1", "--zone=a", &flag];
            let args = Args::try_parse_from(line).unwrap();
            let error = format!("{:#}", args.channel().unwrap_err());
            assert!(error.contains(reason), "{flag}: {error}");
        }
    }
}
