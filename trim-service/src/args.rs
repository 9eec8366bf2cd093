//! Flags, their environment variables and defaults.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use bootstrap::{
    logging::LogArgs,
    registry::RegistryArgs,
    values::{advertised_ip, duration, key_value, name, positive_duration, positive_number},
};
use clap::{Parser, ValueEnum};
use discovery::{
    Instance,
    registry::{Check, Registration},
};

use crate::fault::Fault;

/// Removes spaces from text over gRPC, registered in Consul for as long as it runs.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Port to listen on; 0 takes any free one
    #[arg(long, env = "TRIM_PORT", value_name = "PORT", default_value_t = 8975)]
    pub(crate) port: u16,
    /// Address to listen on
    #[arg(long, env = "TRIM_LISTEN", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(crate) listen: IpAddr,
    /// Address to advertise [default: --listen where it is a single address, else the machine's
    /// outbound address]
    #[arg(long, env = "TRIM_IP", value_name = "IP", value_parser = advertised_ip)]
    pub(crate) ip: Option<IpAddr>,
    /// Time to finish accepted requests once deregistered; in its first quarter new ones are still
    /// taken
    #[arg(long, env = "TRIM_DRAIN", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// For drills: what calls are to meet, as latency=300ms,rate=0.5 or error=unavailable,rate=1;
    /// repeatable
    #[arg(long, env = "TRIM_FAULT", value_name = "FAULT", value_delimiter = ';')]
    pub(crate) fault: Vec<Fault>,
    /// Maximum open connections; at the limit, new ones wait until one closes [default: three
    /// quarters of the process's limit of open files]
    #[arg(long, env = "TRIM_MAX_CONNECTIONS", value_name = "N", value_parser = positive_number)]
    pub(crate) max_connections: Option<NonZeroU32>,

    /// Service name to register under; the ID is NAME-IP-PORT
    #[arg(long, env = "TRIM_NAME", value_name = "NAME", default_value = "trim_service", value_parser = name, help_heading = "Registration")]
    pub(crate) name: String,
    /// Tag to register with; repeatable, in the variable with commas between
    #[arg(long, env = "TRIM_TAGS", value_name = "TAG", value_delimiter = ',', value_parser = name, help_heading = "Registration")]
    pub(crate) tag: Vec<String>,
    /// Metadata to register with; repeatable, in the variable with commas between
    #[arg(long, env = "TRIM_META", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value, help_heading = "Registration")]
    pub(crate) meta: Vec<(String, String)>,
    /// Weight to register with: the share of calls beside the other instances, for balancers that
    /// look at it
    #[arg(long, env = "TRIM_WEIGHT", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Registration")]
    pub(crate) weight: u16,
    /// How the registry learns that the instance is well
    #[arg(
        long,
        env = "TRIM_CHECK",
        value_name = "KIND",
        default_value = "grpc",
        help_heading = "Health check"
    )]
    pub(crate) check: CheckKind,
    /// grpc: time between two checks. ttl: the longest silence, with three heartbeats in it
    #[arg(long, env = "TRIM_CHECK_INTERVAL", value_name = "DURATION", default_value = "5s", value_parser = positive_duration, help_heading = "Health check")]
    pub(crate) check_interval: Duration,
    /// grpc: time one check may take
    #[arg(long, env = "TRIM_CHECK_TIMEOUT", value_name = "DURATION", default_value = "1s", value_parser = positive_duration, help_heading = "Health check")]
    pub(crate) check_timeout: Duration,
    /// Time after which the registry drops an instance whose check stays critical; 0s: never.
    /// Consul takes one minute at least
    #[arg(long, env = "TRIM_DEREGISTER_AFTER", value_name = "DURATION", default_value = "1m", value_parser = duration, help_heading = "Health check")]
    pub(crate) deregister_after: Duration,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// The kinds of health check.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CheckKind {
    /// The registry calls the gRPC health service
    Grpc,
    /// The instance sends heartbeats
    Ttl,
    /// No check: the instance counts as well for as long as it is registered
    None,
}

impl Args {
    pub(crate) fn registration(&self, instance: Instance) -> Registration {
        Registration {
            instance,
            check: match self.check {
                CheckKind::Grpc => Check::Grpc {
                    interval: self.check_interval,
                    timeout: self.check_timeout,
                },
                CheckKind::Ttl => Check::Ttl {
                    ttl: self.check_interval,
                },
                CheckKind::None => Check::None,
            },
            deregister_critical_after: Some(self.deregister_after).filter(|time| !time.is_zero()),
        }
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

    #[test]
    fn a_bad_value_is_refused_with_its_flag() {
        for (flag, value) in [
            ("--port", "70000"),
            ("--ip", "0.0.0.0"),
            ("--listen", "localhost"),
            ("--name", " "),
            ("--meta", "novalue"),
            ("--weight", "0"),
            ("--max-connections", "0"),
            ("--check", "http"),
            ("--check-interval", "5"),
            ("--check-timeout", "0s"),
            ("--drain", "soon"),
            ("--fault", "latency=1"),
            ("--consul", "localhost"),
            ("--registry", "gopher://x"),
            ("--log-level", "loud"),
            ("--log-format", "xml"),
        ] {
            let error = Args::try_parse_from(["trim-service", flag, value]).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
