//! The flags that select trim instances: their source, filters and preferences.

use std::time::Duration;

use bootstrap::values::{duration, host_port, name};
use clap::Args;
use discovery::{ChannelBuilder, Locality, RemovalProtection};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Trim instances")]
pub(super) struct InstanceArgs {
    /// Registered name of the trim service
    #[arg(long, env = "ADD_TRIM_NAME", value_name = "NAME", default_value = "trim_service", value_parser = name)]
    trim_name: String,
    /// Use only instances with this tag; repeatable (comma-separated in the variable): all tags are
    /// required
    #[arg(long, env = "ADD_TAGS", value_name = "TAG", value_delimiter = ',', value_parser = name)]
    tag: Vec<String>,
    /// Use only instances whose health checks pass
    #[arg(long, env = "ADD_PASSING_ONLY", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    passing_only: bool,
    /// Datacenter of the instances, or several in order of preference, separated by commas: calls go to
    /// the first that has working instances [default: the registry's own]
    #[arg(long, env = "ADD_DATACENTER", value_name = "DC", value_parser = name)]
    datacenter: Option<String>,
    /// Instances to use instead of a registry
    #[arg(id = "static", long = "static", alias = "fixed", env = "ADD_STATIC", value_name = "HOST:PORT,...", value_parser = host_ports, conflicts_with_all = ["consul", "registry"])]
    pub(super) addresses: Option<String>,
    /// Maximum time for which instances stay in use as a last resort, if more than
    /// --removal-protection-share of them leave the registry at once and they still report SERVING; 0s:
    /// off [default: no maximum]
    #[arg(long, env = "ADD_REMOVAL_PROTECTION", value_name = "DURATION", value_parser = duration)]
    removal_protection: Option<Duration>,
    /// Share of the instances that starts the protection if it leaves the registry at once
    #[arg(long, env = "ADD_REMOVAL_PROTECTION_SHARE", value_name = "SHARE", default_value_t = RemovalProtection::default().share)]
    removal_protection_share: f64,
    /// Use only N instances of a large fleet; the same --subset-id selects the same instances
    #[arg(long, env = "ADD_SUBSET", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    subset: Option<u32>,
    /// ID that determines the subset [default: random per process]
    #[arg(long, env = "ADD_SUBSET_ID", value_name = "ID", value_parser = name, requires = "subset")]
    subset_id: Option<String>,
    /// Zone of this service, whose instances are preferred as far as their capacity goes
    #[arg(long, env = "ADD_ZONE", value_name = "ZONE", value_parser = name)]
    zone: Option<String>,
    /// Datacenter whose instances are preferred, after those of --zone
    #[arg(long, env = "ADD_NEAR_DATACENTER", value_name = "DC", value_parser = name)]
    near_datacenter: Option<String>,
    /// Load that nearby instances may take, as a multiple of their fair share; at least 1
    #[arg(
        long,
        env = "ADD_OVERPROVISIONING_FACTOR",
        value_name = "FACTOR",
        default_value_t = 1.4
    )]
    overprovisioning_factor: f64,
}

impl InstanceArgs {
    pub(super) fn name(&self) -> &str {
        &self.trim_name
    }

    pub(super) fn apply(&self, mut builder: ChannelBuilder) -> ChannelBuilder {
        if let Some(datacenter) = &self.datacenter {
            builder = builder.datacenter(datacenter);
        }
        if let Some(subset) = self.subset {
            builder = builder.subset(subset as usize);
        }
        if let Some(id) = &self.subset_id {
            builder = builder.subset_id(id);
        }
        if let Some(locality) = self.locality() {
            builder = builder.prefer(locality);
        }
        let mut protection = RemovalProtection::default().with_share(self.removal_protection_share);
        if let Some(limit) = self.removal_protection {
            protection = protection.with_limit(limit);
        }
        builder
            .tags(&self.tag)
            .passing_only(self.passing_only)
            .protection(protection)
    }

    fn locality(&self) -> Option<Locality> {
        let mut locality = match (&self.zone, &self.near_datacenter) {
            (Some(zone), Some(datacenter)) => Locality::zone(zone).within(datacenter),
            (Some(zone), None) => Locality::zone(zone),
            (None, Some(datacenter)) => Locality::datacenter(datacenter),
            (None, None) => return None,
        };
        locality.overprovisioning_factor = self.overprovisioning_factor;
        Some(locality)
    }
}

/// One or more comma-separated addresses, checked and kept as written.
fn host_ports(text: &str) -> Result<String, String> {
    for address in text.split(',') {
        host_port(address)?;
    }
    Ok(text.to_owned())
}
