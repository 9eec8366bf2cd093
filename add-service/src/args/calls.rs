//! The flags about calls to trim instances: balancing, retries and timeouts.

use std::{fmt, time::Duration};

use axum::http::HeaderName;
use bootstrap::{
    CompressionEncoding,
    values::{duration, positive_duration},
};
use clap::{Args, ValueEnum};
use discovery::{
    ChannelBuilder, Code,
    balance::Policy,
    retry::{Hedge, RetryPolicy},
};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Calls to trim instances")]
pub(super) struct CallArgs {
    /// Balancer that picks the instance of each call
    #[arg(long, env = "ADD_BALANCER", value_name = "NAME", default_value_t = Policy::default(), value_parser = balancer())]
    balancer: Policy,
    /// Header or metadata of requests that --balancer consistent-hash uses as the key: requests with
    /// the same value go to the same instance
    #[arg(long, env = "ADD_KEY_HEADER", value_name = "NAME")]
    pub(super) key_header: Option<HeaderName>,
    /// Maximum attempts of a call, the first included
    #[arg(long, env = "ADD_RETRY_MAX", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    retry_max: u32,
    /// Time limit of a call with all its attempts, also where the caller's deadline is later
    /// [default: the caller's deadline, or 500ms without one]
    #[arg(long, env = "ADD_RETRY_TIMEOUT", value_name = "DURATION", value_parser = positive_duration)]
    retry_timeout: Option<Duration>,
    /// Latest time after which a second attempt begins elsewhere; it begins earlier if trimming usually
    /// takes far less [default: a third of --retry-timeout, or of 500ms]
    #[arg(long, env = "ADD_ATTEMPT_TIMEOUT", value_name = "DURATION", value_parser = positive_duration)]
    attempt_timeout: Option<Duration>,
    /// Status codes after which any call is retried
    #[arg(long, env = "ADD_RETRY_CODES", value_name = "CODE,...", value_parser = codes, default_value_t = Codes(RetryPolicy::default().codes))]
    retry_codes: Codes,
    /// Additional status codes retried for idempotent methods; trimming is one
    #[arg(long, env = "ADD_RETRY_IDEMPOTENT_CODES", value_name = "CODE,...", value_parser = codes, default_value_t = Codes(RetryPolicy::default().idempotent_codes))]
    retry_idempotent_codes: Codes,
    /// First wait before an attempt that returns to an instance or follows a second failure
    #[arg(long, env = "ADD_RETRY_BACKOFF", value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    retry_backoff: Duration,
    /// Maximum wait before an attempt
    #[arg(long, env = "ADD_RETRY_BACKOFF_MAX", value_name = "DURATION", default_value = "250ms", value_parser = duration)]
    retry_backoff_max: Duration,
    /// Maximum size of a request that is kept for another attempt, in bytes
    #[arg(long, env = "ADD_REPLAY_LIMIT", value_name = "BYTES", default_value_t = RetryPolicy::default().replay_limit)]
    replay_limit: usize,
    /// Retries allowed per successful call, so that retries do not multiply an outage
    #[arg(long, env = "ADD_RETRY_BUDGET", value_name = "SHARE", default_value_t = RetryPolicy::default().budget.share)]
    retry_budget: f64,
    /// Retries allowed without previous successful calls
    #[arg(long, env = "ADD_RETRY_RESERVE", value_name = "N", default_value_t = RetryPolicy::default().budget.reserve)]
    retry_reserve: u32,
    /// Start a second attempt while the first one runs: after a fixed time, after the 95th percentile
    /// of response times (p95), or never (off)
    #[arg(long, env = "ADD_HEDGE", value_name = "off|p95|DURATION", default_value = "off", value_parser = hedge)]
    hedge: HedgeArg,
    /// Compression of calls to trim instances and of their answers; all instances must accept it
    #[arg(
        long,
        env = "ADD_TRIM_COMPRESSION",
        value_name = "NAME",
        default_value = "off"
    )]
    trim_compression: Compression,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compression {
    Off,
    Gzip,
    Zstd,
}

/// A type of its own: with `Option`, clap would make the flag optional instead of its value.
#[derive(Clone, Copy, Debug)]
struct HedgeArg(Option<Hedge>);

/// Status codes in one value, so that an empty value can be given.
#[derive(Clone, Debug)]
struct Codes(Vec<Code>);

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|code| code.name()).collect();
        f.write_str(&names.join(","))
    }
}

impl CallArgs {
    pub(super) fn apply(&self, builder: ChannelBuilder) -> ChannelBuilder {
        builder
            .balancer(self.balancer)
            .retry(self.retry())
            .file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
    }

    pub(super) fn trim_compression(&self) -> Option<CompressionEncoding> {
        match self.trim_compression {
            Compression::Off => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
        }
    }

    fn retry(&self) -> RetryPolicy {
        let mut retry = RetryPolicy::default();
        retry.max_attempts = self.retry_max;
        retry.timeout = self.retry_timeout;
        retry.attempt_timeout = self.attempt_timeout;
        retry.codes.clone_from(&self.retry_codes.0);
        retry
            .idempotent_codes
            .clone_from(&self.retry_idempotent_codes.0);
        retry.backoff.first = self.retry_backoff;
        retry.backoff.ceiling = self.retry_backoff_max;
        retry.replay_limit = self.replay_limit;
        retry.budget.share = self.retry_budget;
        retry.budget.reserve = self.retry_reserve;
        retry.hedge = self.hedge.0;
        retry
    }
}

fn hedge(text: &str) -> Result<HedgeArg, String> {
    Ok(HedgeArg(match text {
        "off" => None,
        "p95" => Some(Hedge::Percentile95),
        _ => Some(Hedge::After(positive_duration(text).map_err(|error| {
            format!("{error}; off and p95 are also accepted")
        })?)),
    }))
}

fn codes(text: &str) -> Result<Codes, String> {
    let names = text.split(',').filter(|name| !name.trim().is_empty());
    let codes = names.map(|name| name.parse::<Code>().map_err(|error| error.to_string()));
    codes.collect::<Result<_, _>>().map(Codes)
}

/// Shows the names in `--help` and in the error.
fn balancer() -> impl clap::builder::TypedValueParser<Value = Policy> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Policy::NAMES).try_map(|name| name.parse::<Policy>())
}
