//! The flags, with their environment variables and defaults, and the channel that they describe.

mod calls;
mod instances;
mod moved;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bootstrap::{
    CompressionEncoding, Limits,
    logging::LogArgs,
    registry::{RegistryArgs, registry_url},
    spans::propagation,
    values::{concurrency_limit, duration, positive_number},
};
use clap::Parser;
use discovery::{
    Channel,
    connection::Http2,
    limit::ConcurrencyLimit,
    registry::{OrElse, Registry, StaticRegistry, connect},
};

pub(crate) use self::moved::MOVED;
use self::{calls::CallArgs, instances::InstanceArgs, tls::TlsArgs};
use crate::{
    error_detail::ErrorDetail,
    page::{Access, Show},
    trim_config::TrimConfig,
};

/// The heading of the flags about calls.
const CALLS: &str = "Calls to trim instances";

/// Service that adds numbers and joins texts over gRPC and HTTP/JSON, with trim instances from a
/// registry.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// Port for HTTP/JSON; 0 chooses a free port
    #[arg(
        long,
        env = "ADD_HTTP_PORT",
        value_name = "PORT",
        default_value_t = 8080
    )]
    pub(crate) http_port: u16,
    /// Port for gRPC; 0 chooses a free port
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
    /// Address and port of their own for the page, /metrics, /debug/channel and health; port 0 chooses a
    /// free port [default: on the HTTP port]
    #[arg(long, env = "ADD_ADMIN_LISTEN", value_name = "HOST:PORT", value_parser = admin_listen)]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Listener of the page and /debug/channel, which name instances, addresses and the registry
    #[arg(long, env = "ADD_PAGE", value_name = "WHERE", default_value = "auto")]
    page: Show,
    /// Time to finish accepted requests after a signal; new requests are still accepted in its first
    /// quarter
    #[arg(long, env = "ADD_DRAIN", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) drain: Duration,
    /// Maximum size of a request and of an answer, in bytes
    #[arg(long, env = "ADD_MAX_BODY", value_name = "BYTES", default_value_t = 1 << 20, value_parser = max_body)]
    pub(crate) max_body: usize,
    /// Maximum requests per second, HTTP and gRPC together; more fail with 429 or
    /// `RESOURCE_EXHAUSTED` [default: no limit]
    #[arg(long, env = "ADD_RATE_LIMIT", value_name = "N", value_parser = positive_number)]
    pub(crate) rate_limit: Option<NonZeroU32>,
    /// Maximum open connections per port; at the limit, new ones wait until one closes [default:
    /// three eighths of the process's limit of open files, at most 16384]
    #[arg(long, env = "ADD_MAX_CONNECTIONS", value_name = "N", value_parser = positive_number)]
    max_connections: Option<NonZeroU32>,
    /// Maximum open connections of one client address per port; more are closed at once [default: three
    /// quarters of --max-connections]
    #[arg(long, env = "ADD_MAX_CONNECTIONS_PER_PEER", value_name = "N", value_parser = positive_number)]
    max_connections_per_peer: Option<NonZeroU32>,
    /// Maximum concurrent requests of one HTTP/2 connection; clients wait, or are refused
    #[arg(long, env = "ADD_MAX_STREAMS", value_name = "N", default_value = "256", value_parser = positive_number)]
    max_streams: NonZeroU32,
    /// Maximum requests under way at the same time, HTTP and gRPC together; more end at once with 503
    /// or `RESOURCE_EXHAUSTED`. auto learns it from the latency; off or a number
    #[arg(long, env = "ADD_CONCURRENCY_LIMIT", value_name = "N", default_value = "off", value_parser = concurrency_limit)]
    pub(crate) concurrency_limit: ConcurrencyLimit,

    /// How much an error says to the caller; the log has it all
    #[arg(
        long,
        env = "ADD_ERROR_DETAIL",
        value_name = "DETAIL",
        default_value = "brief"
    )]
    pub(crate) error_detail: ErrorDetail,

    #[command(flatten)]
    instances: InstanceArgs,
    /// File with all other policy of calls to trim instances: gRPC's service config as JSON, which wins
    /// over the flags below. Read again when it changes and on SIGHUP; a bad one is logged and the old
    /// one stays
    #[arg(long, env = "ADD_TRIM_CONFIG", value_name = "FILE", help_heading = CALLS)]
    trim_config: Option<PathBuf>,
    /// Print the policy in effect as JSON, with a value for every field, and exit
    #[arg(long, help_heading = CALLS)]
    pub(crate) print_config: bool,

    #[command(flatten)]
    calls: CallArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    /// URL of a registry that is used while the others list no instance or have not answered
    #[arg(long, value_name = "URL", env = "ADD_REGISTRY_FALLBACK", hide_env_values = true, value_parser = registry_url, help_heading = "Registry")]
    registry_fallback: Option<String>,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl Args {
    /// The limits of what clients may take.
    pub(crate) fn limits(&self) -> Limits {
        Limits::default()
            .with_max_connections(self.max_connections)
            .with_max_connections_per_peer(self.max_connections_per_peer)
            .with_max_streams(Some(self.max_streams))
    }

    /// The requests that may see the page; `None` if it is not shown.
    pub(crate) fn page_access(&self) -> Option<Access> {
        match self.admin_listen {
            Some(address) => self.page.access(address.ip(), true),
            None => self.page.access(self.listen, false),
        }
    }

    /// The file with the policy of calls to trim instances.
    pub(crate) fn trim_config(&self) -> Option<TrimConfig> {
        self.trim_config.clone().map(TrimConfig::new)
    }

    /// The policy in effect. No registry and no instance is contacted.
    pub(crate) fn effective_config(&self) -> anyhow::Result<String> {
        let no_instances = Arc::new(StaticRegistry::new([]));
        Ok(self
            .channel_from(no_instances, Http2::new())?
            .effective_config())
    }

    /// The channel to the trim instances.
    pub(crate) fn channel(&self) -> anyhow::Result<Channel> {
        let registry: Arc<dyn Registry> = match &self.instances.addresses {
            Some(addresses) => Arc::new(StaticRegistry::parse(addresses)?),
            None => self.registry()?,
        };
        let http2 = match self.tls.client() {
            Some(tls) => Http2::new().with_rotating_tls(&tls.start()?),
            None => Http2::new(),
        };
        self.channel_from(registry, http2)
    }

    fn channel_from(&self, registry: Arc<dyn Registry>, http2: Http2) -> anyhow::Result<Channel> {
        let builder = Channel::from_registry(registry, self.instances.name());
        let builder = self.instances.apply(builder);
        let mut builder = self.calls.apply(builder).factory(http2);
        if let Some(file) = self.trim_config() {
            builder = builder.service_config(file.read()?);
        }
        if let Some(inject) = propagation() {
            builder = builder.propagate(inject);
        }
        builder.build().context("cannot set up discovery")
    }

    fn registry(&self) -> anyhow::Result<Arc<dyn Registry>> {
        let registry = self.registry.open()?;
        Ok(match &self.registry_fallback {
            Some(url) => Arc::new(OrElse::new(registry, connect(url)?)),
            None => registry,
        })
    }

    /// The compression of calls to the trim service.
    pub(crate) fn trim_compression(&self) -> Option<CompressionEncoding> {
        self.calls.trim_compression()
    }
}

/// An address to listen on. A host name is not looked up, apart from `localhost`.
fn admin_listen(text: &str) -> Result<SocketAddr, String> {
    let loopback = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    loopback
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "expected IP:PORT or localhost:PORT".to_owned())
}

fn max_body(text: &str) -> Result<usize, String> {
    match text.parse() {
        // The trim service accepts messages of up to 4 MiB, gRPC's usual limit, frame included.
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
    fn a_bad_value_is_refused_with_its_flag_and_the_reason() {
        let unit = "expected a number with a unit, for example 500ms or 2s";
        let whole = "expected a whole number from 1 to 4294967295";
        let calls = "expected auto, off or a whole number from 1 to 4294967295";
        for (flag, value, reason) in [
            ("--http-port", "x", "invalid digit found in string"),
            ("--grpc-port", "70000", "70000 is not in 0..=65535"),
            ("--listen", "localhost", "invalid IP address syntax"),
            (
                "--admin-listen",
                "example.org:80",
                "expected IP:PORT or localhost:PORT",
            ),
            ("--page", "maybe", "[possible values: auto, on, off]"),
            ("--drain", "soon", unit),
            (
                "--max-body",
                "1",
                "expected a number of bytes from 64 to 4000000",
            ),
            ("--rate-limit", "0", whole),
            ("--max-connections", "0", whole),
            ("--max-connections-per-peer", "0", whole),
            ("--max-streams", "0", whole),
            ("--concurrency-limit", "some", calls),
            ("--error-detail", "some", "[possible values: brief, full]"),
            ("--trim-name", "", "must not be empty"),
            (
                "--tls-client-auth",
                "perhaps",
                "[possible values: required, optional]",
            ),
            ("--trim-tls-server-name", "", "must not be empty"),
            ("--tag", "a\nb", "must not contain control characters"),
            (
                "--static",
                "127.0.0.1",
                "invalid instance address \"127.0.0.1\": expected HOST:PORT",
            ),
            (
                "--balancer",
                "best",
                "[possible values: round-robin, random, least-request, peak-ewma, \
                 weighted-round-robin, consistent-hash]",
            ),
            (
                "--trim-compression",
                "deflate",
                "[possible values: off, gzip, zstd]",
            ),
            ("--retry-max", "0", "0 is not in 1..=100"),
            ("--retry-timeout", "500", unit),
            ("--retry-timeout", "0s", "must be greater than zero"),
            ("--retry-timeout", "400d", "must not be longer than a year"),
            (
                "--consul",
                "::1:80",
                "invalid instance address \"::1:80\": ",
            ),
            (
                "--registry",
                "gopher://x",
                "invalid registry URL \"gopher://x\": unknown scheme",
            ),
            (
                "--log-level",
                "loud",
                "expected one of off, error, warn, info, debug, trace",
            ),
            ("--log-format", "xml", "[possible values: human, json]"),
        ] {
            let error = Args::try_parse_from(["add-service", flag, value]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(flag), "{error}");
            assert!(
                error.contains(reason),
                "{flag}: expected {reason:?}: {error}"
            );
        }
    }

    #[test]
    fn flags_that_exclude_or_need_each_other_say_so() {
        for (line, reason) in [
            (
                &["--consul=a:1", "--registry=static://b:1"][..],
                "the argument '--consul <HOST:PORT>' cannot be used with '--registry <URL>'",
            ),
            (
                &["--static=a:1", "--consul=b:1"],
                "the argument '--static <HOST:PORT,...>' cannot be used with '--consul <HOST:PORT>'",
            ),
            (
                &["--trim-tls-cert=c"],
                "the following required arguments were not provided:\n  --trim-tls-key <FILE>",
            ),
            (
                &["--no-such-flag"],
                "unexpected argument '--no-such-flag' found",
            ),
        ] {
            let line = [&["add-service"], line].concat();
            let error = Args::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
