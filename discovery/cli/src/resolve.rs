//! `discovery resolve`: a service's instances, once.

use std::time::Duration;

use bootstrap::values::positive_duration;
use clap::Args;
use discovery::Instance;

use crate::{
    exit, instance_text, output,
    table::table,
    target::{Filters, Target, first_answer},
};

#[derive(Args, Debug)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    target: Target,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Time to wait for the registry
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_TIMEOUT", default_value = "5s", value_parser = positive_duration)]
    timeout: Duration,
    #[command(flatten)]
    filters: Filters,
    /// Only instances whose checks in the registry pass, which are those that a channel calls
    #[arg(long, help_heading = "Filters")]
    passing: bool,
}

/// Prints the instances.
///
/// # Errors
///
/// When the registry cannot be asked or does not answer.
pub(crate) async fn run(args: ResolveArgs) -> anyhow::Result<u8> {
    let registry = args.target.open()?;
    let query = args.filters.query(&args.target, args.passing);
    let set = first_answer(&*registry, &query, args.timeout).await?;
    let wanted = |instance: &&Instance| !args.passing || instance.health.is_usable();
    let instances = set.instances.iter().map(|instance| &**instance);
    let instances: Vec<&Instance> = instances.filter(wanted).collect();
    if args.json {
        output::json(&instances)?;
    } else if !instances.is_empty() {
        output::print(&table(&rows(&instances)))?;
    }
    if instances.is_empty() {
        let what = if args.passing {
            "passing instance"
        } else {
            "instance"
        };
        output::note(&format!(
            "no {what} of {:?} in {}; `discovery doctor` says why",
            args.target.service,
            registry.name()
        ));
        return Ok(exit::EMPTY);
    }
    Ok(exit::FINE)
}

fn rows(instances: &[&Instance]) -> Vec<[String; 6]> {
    let heading = ["ID", "ADDRESS", "HEALTH", "WEIGHT", "ZONE", "TAGS"].map(str::to_owned);
    let row = |instance: &&Instance| {
        [
            instance.id.clone(),
            instance.authority(),
            instance_text::health(instance.health).to_owned(),
            instance.weight.to_string(),
            instance.zone.clone().unwrap_or_default(),
            instance.tags.join(","),
        ]
    };
    let rows = instances.iter().map(row);
    std::iter::once(heading).chain(rows).collect()
}
