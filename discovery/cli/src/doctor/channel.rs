//! The last step: a real channel with the same settings, as a check of the steps before.

use std::sync::Arc;

use discovery::registry::{InstanceSet, Registry};
use tokio::time::{Instant, timeout};

use super::{Finding, StepContext, finding::Weight};
use crate::instance_text;

const STEP: &str = "channel";

/// Builds a channel and waits until it has a connection to each instance that can be called.
pub(super) async fn examine(
    context: &StepContext<'_>,
    registry: &Arc<dyn Registry>,
    set: &InstanceSet,
    usable: usize,
) -> Finding {
    let listed = set.instances.len();
    if usable == 0 {
        return Finding::broken(
            STEP,
            "no_usable_instance",
            format!("none of the instances ({listed}) can be called: each call fails at once"),
            "follow the remedies above",
        );
    }
    let args = context.args;
    let builder = args.filters.channel(Arc::clone(registry), &args.target);
    let builder = builder.factory(context.http2.clone());
    let channel = match builder.build() {
        Ok(channel) => channel,
        Err(error) => {
            let remedy = "correct the setting that the message names";
            return Finding::broken(STEP, "not_built", error.to_string(), remedy);
        }
    };
    let begun = Instant::now();
    let all = channel.wait_for(|status| status.ready >= usable);
    let in_time = timeout(context.args.timeout, all).await;
    let ready = channel.status().ready;
    let message = format!(
        "connected to {ready} of {} in {:.1?}",
        instance_text::count(listed),
        begun.elapsed()
    );
    if matches!(in_time, Ok(Ok(_))) {
        return Finding::ok(STEP, message);
    }
    Finding::new(
        STEP,
        if ready == 0 {
            Weight::Broken
        } else {
            Weight::Warning
        },
        "not_connected",
        message,
        "run doctor again: the instances have changed meanwhile, or connect slowly (--timeout)",
    )
}
