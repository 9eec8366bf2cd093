//! The flags about calls to trim instances. All other policy is in the file of `--trim-config`.

use std::time::Duration;

use bootstrap::{CompressionEncoding, values::positive_duration};
use clap::{Args, ValueEnum};
use discovery::{ChannelBuilder, balance::Policy, retry::RetryPolicy};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Calls to trim instances")]
pub(super) struct CallArgs {
    /// Balancer that picks the instance of each call
    #[arg(long, env = "ADD_BALANCER", value_name = "NAME", default_value_t = Policy::default(), value_parser = balancer())]
    balancer: Policy,
    /// Maximum attempts of a call, the first included
    #[arg(long, env = "ADD_RETRY_MAX", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    retry_max: u32,
    /// Time limit of a call with all its attempts, also where the caller's deadline is later
    /// [default: the caller's deadline, or 500ms without one]
    #[arg(long, env = "ADD_RETRY_TIMEOUT", value_name = "DURATION", value_parser = positive_duration)]
    retry_timeout: Option<Duration>,
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

impl CallArgs {
    pub(super) fn apply(&self, builder: ChannelBuilder) -> ChannelBuilder {
        let mut retry = RetryPolicy::default().with_max_attempts(self.retry_max);
        retry.timeout = self.retry_timeout;
        builder
            .balancer(self.balancer)
            .retry(retry)
            .file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .user_agent(concat!("add-service/", env!("CARGO_PKG_VERSION")))
    }

    pub(super) fn trim_compression(&self) -> Option<CompressionEncoding> {
        match self.trim_compression {
            Compression::Off => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
        }
    }
}

/// Shows the names in `--help` and in the error.
fn balancer() -> impl clap::builder::TypedValueParser<Value = Policy> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Policy::NAMES).try_map(|name| name.parse::<Policy>())
}
