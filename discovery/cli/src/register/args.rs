//! The flags, and the registration that they describe.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::Duration,
};

use bootstrap::{
    registry::url_parser,
    values::{
        advertised, advertised_ip, duration, key_value, name, positive_duration, positive_number,
    },
};
use clap::{Args, ValueEnum};
use discovery::{
    Instance,
    registry::{Check, Registration},
};

/// The heading of the flags about the check.
const CHECK: &str = "Health check";

#[derive(Args, Debug)]
pub(crate) struct RegisterArgs {
    /// The registry: consul://HOST:PORT, etcd://..., zookeeper://..., eureka://... or
    /// embedded://[FOLDER]
    #[arg(value_parser = url_parser())]
    pub(super) url: String,
    /// The command and its arguments. It runs in a process group of its own, without the terminal's
    /// input
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
    /// Service name to register
    #[arg(long, value_name = "NAME", env = "DISCOVERY_NAME", value_parser = name)]
    pub(super) name: String,
    /// Port on which the command listens
    #[arg(long, value_name = "PORT", env = "DISCOVERY_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: u16,
    /// Address to advertise [default: the machine's outbound address]
    #[arg(long, value_name = "IP", env = "DISCOVERY_IP", value_parser = advertised_ip)]
    pub(super) ip: Option<IpAddr>,
    /// ID of the instance [default: NAME-IP-PORT]
    #[arg(long, value_name = "ID", env = "DISCOVERY_ID", value_parser = name)]
    id: Option<String>,
    /// Tag to register; repeatable, or separated by commas
    #[arg(long = "tag", value_name = "TAG", env = "DISCOVERY_TAGS", value_delimiter = ',', value_parser = name)]
    tags: Vec<String>,
    /// Metadata to register; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Weight to register
    #[arg(long, value_name = "N", env = "DISCOVERY_WEIGHT", default_value = "1", value_parser = positive_number)]
    weight: NonZeroU32,
    /// Zone to register
    #[arg(long, value_name = "NAME", env = "DISCOVERY_ZONE", value_parser = name)]
    zone: Option<String>,
    /// Time for the deregistration. After a signal the command gets the signal when it is over, or
    /// with a second signal
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_DEREGISTER_TIMEOUT", default_value = "2s", value_parser = positive_duration)]
    pub(super) deregister_timeout: Duration,

    /// How the instance's health is checked
    #[arg(long, value_name = "KIND", env = "DISCOVERY_CHECK", default_value = "tcp", help_heading = CHECK)]
    pub(super) check: CheckKind,
    /// http: path that must answer with 2xx
    #[arg(long, value_name = "PATH", env = "DISCOVERY_CHECK_PATH", default_value = "/", value_parser = path, help_heading = CHECK)]
    pub(super) check_path: String,
    /// grpc: service to check [default: the overall health]
    #[arg(long, value_name = "NAME", env = "DISCOVERY_CHECK_SERVICE", help_heading = CHECK)]
    check_service: Option<String>,
    /// Time between two checks; for ttl a third of the time until the registry drops the instance
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_CHECK_INTERVAL", default_value = "2s", value_parser = positive_duration, help_heading = CHECK)]
    pub(super) check_interval: Duration,
    /// Time limit of one check
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_CHECK_TIMEOUT", default_value = "1s", value_parser = positive_duration, help_heading = CHECK)]
    pub(super) check_timeout: Duration,
    /// tcp, http: failed checks in a row after which the instance is deregistered until one passes
    #[arg(long, value_name = "N", env = "DISCOVERY_CHECK_FAILURES", default_value = "3", value_parser = positive_number, help_heading = CHECK)]
    pub(super) check_failures: NonZeroU32,
    /// Time after which the registry drops an instance whose check stays critical; 0s: never.
    /// Consul's minimum is one minute
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_DEREGISTER_AFTER", default_value = "1m", value_parser = duration, help_heading = CHECK)]
    deregister_after: Duration,
}

/// The kind of health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckKind {
    /// This program connects to the port; the instance is registered once that works
    Tcp,
    /// This program requests a path over HTTP/1.1; the instance is registered once that works
    Http,
    /// The registry calls the gRPC health service (Consul); the instance is registered once its port
    /// accepts connections
    Grpc,
    /// Heartbeats or a lease while the command runs
    Ttl,
    /// The registry's own way; the instance is registered once its port accepts connections
    Default,
    /// None: the instance counts as healthy while it is registered
    None,
}

impl CheckKind {
    /// True if this program makes the check.
    pub(super) fn is_own(self) -> bool {
        matches!(self, Self::Tcp | Self::Http)
    }

    /// True if the instance counts as healthy while the command runs, whether it listens or not.
    pub(super) fn is_without_port(self) -> bool {
        matches!(self, Self::Ttl | Self::None)
    }
}

impl RegisterArgs {
    /// The address to advertise.
    pub(super) fn address(&self) -> anyhow::Result<IpAddr> {
        advertised(self.ip, Ipv4Addr::UNSPECIFIED.into())
    }

    /// The registration.
    ///
    /// # Errors
    ///
    /// When this machine has no address to advertise.
    pub(super) fn registration(&self) -> anyhow::Result<Registration> {
        let mut instance = Instance::named(&self.name, self.address()?, self.port)?
            .with_tags(&self.tags)
            .with_meta(self.meta.iter().cloned())
            .with_weight(self.weight.get());
        if let Some(id) = &self.id {
            instance = instance.with_id(id);
        }
        if let Some(zone) = &self.zone {
            instance = instance.with_zone(zone);
        }
        let registration = Registration::new(instance, self.registry_check());
        Ok(if self.deregister_after.is_zero() {
            registration
        } else {
            registration.with_deregister_critical_after(self.deregister_after)
        })
    }

    /// The check that the registry makes. If this program checks the command, the registry's check only shows
    /// that this program runs: by heartbeats in Consul, and in others by their own way (a lease, a session, a
    /// lock).
    fn registry_check(&self) -> Check {
        let is_consul = self.url.starts_with("consul");
        match self.check {
            CheckKind::Tcp | CheckKind::Http if !is_consul => Check::Default,
            CheckKind::Tcp | CheckKind::Http | CheckKind::Ttl => {
                Check::ttl(self.check_interval.saturating_mul(3))
            }
            CheckKind::Grpc => Check::grpc()
                .with_service(self.check_service.as_deref().unwrap_or_default())
                .with_interval(self.check_interval)
                .with_timeout(self.check_timeout)
                .into(),
            CheckKind::Default => Check::Default,
            CheckKind::None => Check::None,
        }
    }
}

/// The path of an HTTP request.
fn path(text: &str) -> Result<String, String> {
    let is_visible = |c: char| c.is_ascii_graphic() && c != '#';
    if text.starts_with('/') && text.chars().all(is_visible) {
        Ok(text.to_owned())
    } else {
        Err("expected a path that begins with a slash, without spaces".to_owned())
    }
}
