//! Flags, their environment variables and defaults, and the channel that they describe.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use discovery::{
    Channel, Doubt, EjectionPolicy,
    balance::Policy,
    connection::Http2,
    retry::{Hedge, RetryPolicy},
    service::args::{LogArgs, RegistryArgs, duration, host_port, name, positive_duration},
};

use crate::trim;

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
    /// Requests taken in a second, HTTP and gRPC together; more are refused with 429 or
    /// `RESOURCE_EXHAUSTED` [default: no limit]
    #[arg(long, env = "ADD_RATE_LIMIT", value_name = "N")]
    pub(crate) rate_limit: Option<NonZeroU32>,

    /// Name under which trim instances are registered
    #[arg(long, env = "ADD_TRIM_NAME", value_name = "NAME", default_value = "trim_service", value_parser = name, help_heading = "Discovery")]
    trim_name: String,
    /// Only instances with this tag; repeatable, all must be there
    #[arg(long, env = "ADD_TAGS", value_name = "TAG", value_delimiter = ',', value_parser = name, help_heading = "Discovery")]
    tag: Vec<String>,
    /// Only instances whose health checks pass
    #[arg(long, env = "ADD_PASSING_ONLY", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Discovery")]
    passing_only: bool,
    /// These instances instead of a registry
    #[arg(long, env = "ADD_FIXED", value_name = "HOST:PORT,...", value_delimiter = ',', value_parser = host_port, conflicts_with_all = ["consul", "registry"], help_heading = "Discovery")]
    fixed: Vec<String>,
    /// Instances that vanish from the registry all at once (more than half, or all) stay in use
    /// this long as a last resort, while their connections work
    #[arg(long, env = "ADD_DOUBT", value_name = "DURATION", default_value = "30s", value_parser = duration, help_heading = "Discovery")]
    doubt: Duration,

    /// Which instance gets the next call
    #[arg(long, env = "ADD_BALANCER", value_name = "NAME", default_value_t = Policy::default(), value_parser = balancer(), help_heading = "Calls to trim instances")]
    balancer: Policy,
    /// This service's zone: its instances come first as long as they can carry the calls
    #[arg(long, env = "ADD_ZONE", value_name = "ZONE", value_parser = name, help_heading = "Calls to trim instances")]
    zone: Option<String>,
    /// Use only so many instances of a large fleet, the same ones for the same --subset-id
    #[arg(long, env = "ADD_SUBSET", value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Calls to trim instances")]
    subset: Option<u32>,
    /// What --subset is chosen by [default: random per process]
    #[arg(long, env = "ADD_SUBSET_ID", value_name = "ID", value_parser = name, requires = "subset", help_heading = "Calls to trim instances")]
    subset_id: Option<String>,
    /// Attempts a call may take, the first included
    #[arg(long, env = "ADD_RETRY_MAX", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Calls to trim instances")]
    retry_max: u32,
    /// Time for a call with all its attempts
    #[arg(long, env = "ADD_RETRY_TIMEOUT", value_name = "DURATION", default_value = "500ms", value_parser = positive_duration, help_heading = "Calls to trim instances")]
    retry_timeout: Duration,
    /// Time for one attempt [default: a third of --retry-timeout]
    #[arg(long, env = "ADD_ATTEMPT_TIMEOUT", value_name = "DURATION", value_parser = positive_duration, help_heading = "Calls to trim instances")]
    attempt_timeout: Option<Duration>,
    /// Retries allowed per successful call; keeps retries from multiplying an outage
    #[arg(long, env = "ADD_RETRY_BUDGET", value_name = "SHARE", default_value_t = RetryPolicy::default().budget.share, help_heading = "Calls to trim instances")]
    retry_budget: f64,
    /// Retries allowed whatever came before
    #[arg(long, env = "ADD_RETRY_RESERVE", value_name = "N", default_value_t = RetryPolicy::default().budget.reserve, help_heading = "Calls to trim instances")]
    retry_reserve: u32,
    /// A second attempt while the first is out: after a fixed time, after what 95 of 100 answers
    /// take (p95), or never (off)
    #[arg(long, env = "ADD_HEDGE", value_name = "off|p95|DURATION", default_value = "off", value_parser = hedge, help_heading = "Calls to trim instances")]
    hedge: HedgeArg,

    /// Whether sick instances are taken out on the evidence of calls
    #[arg(long, env = "ADD_EJECT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Sick instances")]
    eject: bool,
    /// Broken or unanswered calls in a row that eject; 0: none do
    #[arg(long, env = "ADD_EJECT_AFTER_BROKEN", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_transport, help_heading = "Sick instances")]
    eject_after_broken: u32,
    /// Bad statuses in a row that eject; 0: none do
    #[arg(long, env = "ADD_EJECT_AFTER_ERRORS", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_status, help_heading = "Sick instances")]
    eject_after_errors: u32,
    /// Failing share that ejects if it is far above the others'; 1: none does
    #[arg(long, env = "ADD_EJECT_SHARE", value_name = "SHARE", default_value_t = EjectionPolicy::default().failing_share, help_heading = "Sick instances")]
    eject_share: f64,
    /// Time of a first ejection; the n-th in short order takes n times as long
    #[arg(long, env = "ADD_EJECT_TIME", value_name = "DURATION", default_value = "3s", value_parser = positive_duration, help_heading = "Sick instances")]
    eject_time: Duration,
    /// No ejection takes longer
    #[arg(long, env = "ADD_EJECT_TIME_MAX", value_name = "DURATION", default_value = "60s", value_parser = positive_duration, help_heading = "Sick instances")]
    eject_time_max: Duration,
    /// Share of the instances that may be out at the same time
    #[arg(long, env = "ADD_EJECT_MAX", value_name = "SHARE", default_value_t = EjectionPolicy::default().max_share, help_heading = "Sick instances")]
    eject_max: f64,
    /// Time over which a returning instance gets back to its full share
    #[arg(long, env = "ADD_SLOW_START", value_name = "DURATION", default_value = "5s", value_parser = duration, help_heading = "Sick instances")]
    slow_start: Duration,

    /// Connect before the first call, and again when a connection is lost
    #[arg(long, env = "ADD_EAGER", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Connections")]
    eager: bool,
    /// Time for making one connection
    #[arg(long, env = "ADD_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = positive_duration, help_heading = "Connections")]
    connect_timeout: Duration,
    /// Longest wait between attempts to connect to one instance
    #[arg(long, env = "ADD_CONNECT_BACKOFF_MAX", value_name = "DURATION", default_value = "1s", value_parser = positive_duration, help_heading = "Connections")]
    connect_backoff_max: Duration,
    /// Connections being made at the same time
    #[arg(
        long,
        env = "ADD_CONNECT_PARALLEL",
        value_name = "N",
        default_value_t = 32,
        help_heading = "Connections"
    )]
    connect_parallel: usize,
    /// HTTP/2 ping after this much silence, to find dead connections that carry nothing; 0s: off.
    /// Go servers by default close connections that are pinged more than every 5 minutes
    #[arg(long, env = "ADD_KEEPALIVE", value_name = "DURATION", default_value = "0s", value_parser = duration, help_heading = "Connections")]
    keepalive: Duration,
    /// Time for the answer to such a ping
    #[arg(long, env = "ADD_KEEPALIVE_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = positive_duration, help_heading = "Connections")]
    keepalive_timeout: Duration,

    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// A clap value of its own: `Option` would make the flag optional instead of its value.
#[derive(Clone, Copy, Debug)]
struct HedgeArg(Option<Hedge>);

impl Args {
    /// The channel to the trim instances.
    pub(crate) fn channel(&self) -> anyhow::Result<Channel> {
        let url = if self.fixed.is_empty() {
            self.registry.url()
        } else {
            format!("static://{}", self.fixed.join(","))
        };
        let mut http2 = Http2::default();
        if !self.keepalive.is_zero() {
            http2 = http2.keep_alive(self.keepalive, self.keepalive_timeout);
        }
        let mut doubt = Doubt::default();
        doubt.grace = self.doubt;
        let first = Duration::from_millis(100).min(self.connect_backoff_max);
        let mut builder = Channel::builder(url, &self.trim_name);
        if let Some(zone) = &self.zone {
            builder = builder.zone(zone);
        }
        if let Some(subset) = self.subset {
            builder = builder.subset(subset as usize);
        }
        if let Some(id) = &self.subset_id {
            builder = builder.subset_id(id);
        }
        builder
            .tags(&self.tag)
            .passing_only(self.passing_only)
            .balancer(self.balancer)
            .retry(self.retry())
            .idempotent([trim::PATH])
            .ejection(self.ejection())
            .doubt(doubt)
            .eager(self.eager)
            .connect_timeout(self.connect_timeout)
            .connect_backoff(first, self.connect_backoff_max)
            .connect_parallel(self.connect_parallel)
            .factory(http2)
            .user_agent(concat!("add-service/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("cannot set up discovery")
    }

    fn retry(&self) -> RetryPolicy {
        let mut retry = RetryPolicy::default();
        retry.max_attempts = self.retry_max;
        retry.timeout = self.retry_timeout;
        retry.attempt_timeout = self.attempt_timeout;
        retry.budget.share = self.retry_budget;
        retry.budget.reserve = self.retry_reserve;
        retry.hedge = self.hedge.0;
        retry
    }

    fn ejection(&self) -> EjectionPolicy {
        let mut ejection = EjectionPolicy::default();
        ejection.enabled = self.eject;
        ejection.consecutive_transport = self.eject_after_broken;
        ejection.consecutive_status = self.eject_after_errors;
        ejection.failing_share = self.eject_share;
        ejection.base_time = self.eject_time;
        ejection.max_time = self.eject_time_max;
        ejection.max_share = self.eject_max;
        ejection.slow_start = self.slow_start;
        ejection
    }
}

fn hedge(text: &str) -> Result<HedgeArg, String> {
    Ok(HedgeArg(match text {
        "off" => None,
        "p95" => Some(Hedge::Percentile95),
        _ => Some(Hedge::After(
            positive_duration(text).map_err(|error| format!("{error}; or off, or p95"))?,
        )),
    }))
}

fn max_body(text: &str) -> Result<usize, String> {
    match text.parse() {
        // The trim service takes messages of 4 MiB, gRPC's usual limit, frame and all.
        Ok(bytes) if (64..=4_000_000).contains(&bytes) => Ok(bytes),
        _ => Err("expected a number of bytes from 64 to 4000000".to_owned()),
    }
}

/// Shows the names in `--help` and in the error.
fn balancer() -> impl clap::builder::TypedValueParser<Value = Policy> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Policy::NAMES).try_map(|name| name.parse::<Policy>())
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
            ("--fixed", "127.0.0.1"),
            ("--balancer", "best"),
            ("--retry-max", "0"),
            ("--retry-timeout", "500"),
            ("--hedge", "sometimes"),
            ("--eject", "maybe"),
            ("--consul", "::1:80"),
        ] {
            let error = Args::try_parse_from(["add-service", flag, value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }

    #[tokio::test]
    async fn what_only_the_channel_knows_is_refused_when_it_is_built() {
        for flags in [
            ["--eject-share", "2"],
            ["--retry-budget", "-1"],
            ["--eject-time", "2h"],
            ["--connect-parallel", "0"],
        ] {
            let flags = ["add-service", "--fixed=127.0.0.1:1"]
                .into_iter()
                .chain(flags);
            let args = Args::try_parse_from(flags.clone());
            // A negative number reads like a flag, and clap says so first.
            assert!(args.is_err() || args.unwrap().channel().is_err());
        }
    }
}
