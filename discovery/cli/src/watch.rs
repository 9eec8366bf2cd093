//! `discovery watch`: the changes of a service's instances as they come.

mod changes;

use anyhow::Context as _;
use clap::Args;

use self::changes::{Change, Known};
use crate::{
    instance_text, output,
    target::{Filters, Target},
};

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    target: Target,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filters: Filters,
    /// Only instances whose checks in the registry pass: one that fails is reported as removed
    #[arg(long, help_heading = "Filters")]
    passing: bool,
}

/// Prints changes until the process is ended.
///
/// # Errors
///
/// When the registry cannot be asked.
pub(crate) async fn run(args: WatchArgs) -> anyhow::Result<u8> {
    let registry = args.target.open()?;
    let instancer = registry.instancer(&args.filters.query(&args.target, args.passing))?;
    let mut sets = instancer.watch();
    let mut known = Known::new(args.passing);
    loop {
        let set = sets.borrow_and_update().clone();
        for change in known.update(&set) {
            if args.json {
                output::json_line(&change.json(&output::now()))?;
            } else {
                let line = human(&change, registry.name());
                output::print(&format!("{} {line}\n", output::now()))?;
            }
        }
        sets.changed().await.context("the watch has ended")?;
    }
}

/// A change in words, after a mark that tells its kind without colour.
fn human(change: &Change, registry: &str) -> String {
    match change {
        Change::Answered { instances } => {
            format!("* {registry} answers: {}", instance_text::count(*instances))
        }
        Change::Lost { reason } => format!("! {reason}"),
        Change::Added(instance) => format!("+ {}", instance_text::whole(instance)),
        Change::Removed(instance) => format!("- {}", instance_text::whole(instance)),
        Change::Changed { before, after } => {
            format!(
                "~ {}  {}",
                after.id,
                instance_text::difference(before, after)
            )
        }
    }
}
