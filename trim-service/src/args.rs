//! The flags, with their environment variables and defaults.

mod tls;

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use bootstrap::{
    Limits,
    logging::LogArgs,
    registry::RegistryArgs,
    values::{
        advertised_ip, concurrency_limit, duration, key_value, name, positive_duration,
        positive_number,
    },
};
use clap::{Parser, ValueEnum};
use discovery::{
    Instance,
    limit::ConcurrencyLimit,
    registry::{Check, Registration},
};

use self::tls::TlsArgs;
use crate::fault::Fault;

/// gRPC service that removes spaces from text and registers itself in Consul.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Port to listen on; 0 chooses a free port
    #[arg(long, env = "TRIM_PORT", value_name = "PORT", default_value_t = 8975)]
    pub(crate) port: u16,
    /// Address to listen on
    #[arg(long, env = "TRIM_LISTEN", value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub(crate) listen: IpAddr,
    /// Address to advertise [default: --listen if it is a single address, else the machine's
    /// outbound address]
    #[arg(long, env = "TRIM_IP", value_name = "IP", value_parser = advertised_ip)]
    pub(crate) ip: Option<IpAddr>,
    /// Time to finish accepted requests after deregistration; new requests are still accepted in
    /// its first quarter
    #[arg(long, env = "TRIM_DRAIN", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// Fault to inject into calls, for drills: latency=300ms,rate=0.5 or error=unavailable,rate=1;
    /// repeatable
    #[arg(long, env = "TRIM_FAULT", value_name = "FAULT", value_delimiter = ';')]
    pub(crate) fault: Vec<Fault>,
    /// Maximum open connections; at the limit, new ones wait until one closes [default: three
    /// quarters of the process's limit of open files, at most 16384]
    #[arg(long, env = "TRIM_MAX_CONNECTIONS", value_name = "N", value_parser = positive_number)]
    max_connections: Option<NonZeroU32>,
    /// Maximum open connections of one client address; more are closed at once [default: three
    /// quarters of --max-connections]
    #[arg(long, env = "TRIM_MAX_CONNECTIONS_PER_PEER", value_name = "N", value_parser = positive_number)]
    max_connections_per_peer: Option<NonZeroU32>,
    /// Maximum concurrent requests of one HTTP/2 connection; clients wait, or are refused
    #[arg(long, env = "TRIM_MAX_STREAMS", value_name = "N", default_value = "256", value_parser = positive_number)]
    max_streams: NonZeroU32,
    /// Maximum calls under way at the same time; more end at once with `RESOURCE_EXHAUSTED`. auto
    /// learns it from the latency; off or a number
    #[arg(long, env = "TRIM_CONCURRENCY_LIMIT", value_name = "N", default_value = "off", value_parser = concurrency_limit)]
    pub(crate) concurrency_limit: ConcurrencyLimit,

    /// Register in the registry; false where something else lists the instances, as Kubernetes does
    #[arg(long, env = "TRIM_REGISTER", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, help_heading = "Registration")]
    pub(crate) register: bool,
    /// Service name to register; the ID is NAME-IP-PORT
    #[arg(long, env = "TRIM_NAME", value_name = "NAME", default_value = "trim_service", value_parser = name, help_heading = "Registration")]
    pub(crate) name: String,
    /// Tag to register; repeatable, comma-separated in the variable
    #[arg(long, env = "TRIM_TAGS", value_name = "TAG", value_delimiter = ',', value_parser = name, help_heading = "Registration")]
    pub(crate) tag: Vec<String>,
    /// Metadata to register; repeatable, comma-separated in the variable
    #[arg(long, env = "TRIM_META", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value, help_heading = "Registration")]
    pub(crate) meta: Vec<(String, String)>,
    /// Weight to register: the share of calls relative to other instances, for weighted balancers
    #[arg(long, env = "TRIM_WEIGHT", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Registration")]
    pub(crate) weight: u16,
    /// How the registry checks the instance's health [default: the registry's own way, which is grpc
    /// for Consul; grpc if one of the settings below is given]
    #[arg(
        long,
        env = "TRIM_CHECK",
        value_name = "KIND",
        help_heading = "Health check"
    )]
    pub(crate) check: Option<CheckKind>,
    /// grpc: service to check, for example pb.Trim [default: the overall health]
    #[arg(
        long,
        env = "TRIM_CHECK_SERVICE",
        value_name = "NAME",
        help_heading = "Health check"
    )]
    pub(crate) check_service: Option<String>,
    /// grpc: time between two checks. ttl: time without a heartbeat until the check is critical;
    /// three heartbeats are sent in it [default: 5s]
    #[arg(long, env = "TRIM_CHECK_INTERVAL", value_name = "DURATION", value_parser = positive_duration, help_heading = "Health check")]
    pub(crate) check_interval: Option<Duration>,
    /// grpc: time limit of one check [default: 1s]
    #[arg(long, env = "TRIM_CHECK_TIMEOUT", value_name = "DURATION", value_parser = positive_duration, help_heading = "Health check")]
    pub(crate) check_timeout: Option<Duration>,
    /// Time after which the registry drops an instance whose check stays critical; 0s: never.
    /// Consul's minimum is one minute
    #[arg(long, env = "TRIM_DEREGISTER_AFTER", value_name = "DURATION", default_value = "1m", value_parser = duration, help_heading = "Health check")]
    pub(crate) deregister_after: Duration,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Time between two checks, and until a check without heartbeats is critical.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The kind of health check.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CheckKind {
    /// The registry calls the gRPC health service
    Grpc,
    /// The instance sends heartbeats
    Ttl,
    /// No check: the instance counts as healthy while it is registered
    None,
}

impl Args {
    /// The limits of what clients may take.
    pub(crate) fn limits(&self) -> Limits {
        Limits::default()
            .with_max_connections(self.max_connections)
            .with_max_connections_per_peer(self.max_connections_per_peer)
            .with_max_streams(Some(self.max_streams))
    }

    pub(crate) fn registration(&self, instance: Instance) -> Registration {
        let registration = self.tls.apply(Registration::new(instance, self.check()));
        if self.deregister_after.is_zero() {
            registration
        } else {
            registration.with_deregister_critical_after(self.deregister_after)
        }
    }

    fn check(&self) -> Check {
        let set = self.check_service.is_some()
            || self.check_interval.is_some()
            || self.check_timeout.is_some();
        let interval = self.check_interval.unwrap_or(CHECK_INTERVAL);
        match self.check {
            None if !set => Check::Default,
            None | Some(CheckKind::Grpc) => {
                let check = Check::grpc()
                    .with_service(self.check_service.as_deref().unwrap_or_default())
                    .with_interval(interval)
                    .with_timeout(self.check_timeout.unwrap_or(CHECK_TIMEOUT));
                if self.tls.is_on() {
                    // The agent has no private authority; the check only shows that the service answers.
                    check.with_tls().with_skip_verify().into()
                } else {
                    check.into()
                }
            }
            Some(CheckKind::Ttl) => Check::ttl(interval),
            Some(CheckKind::None) => Check::None,
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
    fn a_setting_of_the_check_makes_it_an_explicit_one() {
        let check = |flags: &[&str]| {
            let line = ["trim-service"].iter().chain(flags);
            Args::try_parse_from(line).unwrap().check()
        };
        assert_eq!(check(&[]), Check::Default);
        assert_eq!(check(&["--check", "grpc"]), Check::grpc().into());
        let timed = Check::grpc().with_timeout(Duration::from_secs(2));
        assert_eq!(check(&["--check-timeout", "2s"]), timed.into());
        let tls = ["--check", "grpc", "--tls-cert=c", "--tls-key=k"];
        let expected = Check::grpc().with_tls().with_skip_verify();
        assert_eq!(check(&tls), expected.into());
        let ttl = ["--check", "ttl", "--check-interval", "9s"];
        assert_eq!(check(&ttl), Check::ttl(Duration::from_secs(9)));
    }

    #[test]
    fn the_registry_learns_of_tls_and_of_the_certificates_that_clients_need() {
        let seen = |flags: &[&str]| {
            let line = ["trim-service"].iter().chain(flags);
            let args = Args::try_parse_from(line).unwrap();
            let instance = Instance::parse("127.0.0.1:1").unwrap();
            let registration = args.registration(instance);
            (registration.tls, registration.client_certificates)
        };
        let (server, ca) = (["--tls-cert=c", "--tls-key=k"], "--tls-client-ca=a");
        assert_eq!(seen(&[]), (false, false));
        assert_eq!(seen(&server), (true, false));
        assert_eq!(seen(&[server[0], server[1], ca]), (true, true));
        let optional = [server[0], server[1], ca, "--tls-client-auth=optional"];
        assert_eq!(seen(&optional), (true, false));
    }

    #[test]
    fn tls_flags_that_need_each_other_say_so() {
        for (flag, missing) in [
            ("--tls-cert=c", "--tls-key <FILE>"),
            ("--tls-key=k", "--tls-cert <FILE>"),
            ("--tls-client-ca=a", "--tls-cert <FILE>"),
            ("--tls-client-auth=optional", "--tls-client-ca <FILE>"),
        ] {
            let error = Args::try_parse_from(["trim-service", flag]).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
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
            ("--max-connections-per-peer", "0"),
            ("--max-streams", "0"),
            ("--tls-client-auth", "perhaps"),
            ("--concurrency-limit", "some"),
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
