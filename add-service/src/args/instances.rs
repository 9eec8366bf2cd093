//! The flags that select trim instances.

use bootstrap::values::{host_port, name};
use clap::Args;
use discovery::ChannelBuilder;

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
    /// Zone of this process, whose instances are preferred as far as their capacity goes
    #[arg(long, env = "ADD_ZONE", value_name = "ZONE", value_parser = name)]
    zone: Option<String>,
    /// Instances to use instead of a registry
    #[arg(id = "static", long = "static", alias = "fixed", env = "ADD_STATIC", value_name = "HOST:PORT,...", value_parser = host_ports, conflicts_with_all = ["consul", "registry"])]
    pub(super) addresses: Option<String>,
}

impl InstanceArgs {
    pub(super) fn name(&self) -> &str {
        &self.trim_name
    }

    pub(super) fn apply(&self, builder: ChannelBuilder) -> ChannelBuilder {
        let builder = builder.tags(&self.tag);
        match &self.zone {
            Some(zone) => builder.zone(zone),
            None => builder,
        }
    }
}

/// One or more comma-separated addresses, checked and kept as written.
fn host_ports(text: &str) -> Result<String, String> {
    for address in text.split(',') {
        host_port(address)?;
    }
    Ok(text.to_owned())
}
