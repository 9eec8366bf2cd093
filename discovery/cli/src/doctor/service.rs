//! The steps about the service: the registry lists it, the filters select instances, their checks pass.

use discovery::{
    InstanceHealth,
    registry::{InstanceSet, Query, Registry},
};
use tokio::time::timeout;

use super::{Finding, StepContext, finding::Weight};
use crate::instance_text;

const STEP: &str = "service";
/// Number of names that are shown.
const SHOWN: usize = 8;
/// Similarity from which on a name is a suggestion. 1 is equal.
const NEAR: f64 = 0.6;

/// The findings about the set as a whole.
pub(super) async fn examine(
    context: &StepContext<'_>,
    registry: &dyn Registry,
    set: &InstanceSet,
) -> Vec<Finding> {
    let service = &context.args.target.service;
    if set.instances.is_empty() {
        return vec![unknown(context, registry).await];
    }
    let tags = &context.args.filters.tags;
    let query = Query::new(service).with_tags(tags);
    let count = set.instances.len();
    let selected = set
        .instances
        .iter()
        .filter(|instance| query.selects(instance));
    let selected: Vec<_> = selected.collect();
    if selected.is_empty() {
        let mut tags: Vec<_> = set
            .instances
            .iter()
            .flat_map(|one| &one.tags)
            .cloned()
            .collect();
        tags.sort_unstable();
        tags.dedup();
        return vec![Finding::broken(
            STEP,
            "filtered_out",
            format!(
                "none of the instances of {service} ({count}) has the tags {}",
                context.args.filters.tags.join(", ")
            ),
            format!(
                "leave out --tag, or use tags that they have: {}",
                listed(&tags)
            ),
        )];
    }
    let usable = selected
        .iter()
        .filter(|instance| instance.health.is_usable())
        .count();
    if usable == 0 {
        let lost = selected
            .iter()
            .all(|instance| instance.health == InstanceHealth::Lost);
        return vec![if lost {
            Finding::broken(
                STEP,
                "all_lost",
                format!("the registry has lost the node or session of every instance ({count})"),
                "check the registry's agents on the instances' machines, and the network to them",
            )
        } else {
            Finding::broken(
                STEP,
                "all_critical",
                format!(
                    "the registry's health checks fail for every instance ({count}): a channel calls \
                     none of them"
                ),
                "see each instance below for what is wrong with it, and the output of its check in the \
                 registry (Consul: /v1/health/checks/SERVICE)",
            )
        }];
    }
    let healthy = if usable == count {
        String::new()
    } else {
        format!(", {usable} of which can be called by filters and health")
    };
    vec![Finding::ok(
        STEP,
        format!("{service} has {}{healthy}", instance_text::count(count)),
    )]
}

/// The finding about a service without instances.
async fn unknown(context: &StepContext<'_>, registry: &dyn Registry) -> Finding {
    let service = &context.args.target.service;
    let listed = timeout(context.args.timeout, registry.services()).await;
    let Ok(Ok(names)) = listed else {
        return Finding::broken(
            STEP,
            "service_empty",
            format!("{} lists no instance of {service:?}", registry.name()),
            "check the name, and that an instance has registered (this registry cannot list its services)",
        );
    };
    if names.iter().any(|name| name.eq_ignore_ascii_case(service)) {
        return Finding::broken(
            STEP,
            "service_empty",
            format!("{service:?} is known, and has no instance"),
            "start an instance, and check that it registers: `discovery watch` shows it",
        );
    }
    let message = format!("{} knows no service {service:?}", registry.name());
    let near = near(service, &names);
    let remedy = match near.first() {
        Some(best) => {
            let others: Vec<_> = near.iter().skip(1).map(|name| format!(", or {name:?}")).collect();
            format!("did you mean {best:?}{}?", others.concat())
        }
        None if names.is_empty() => {
            "start an instance that registers: the registry has no service at all (or the prefix or \
             path in the URL is wrong)"
                .to_owned()
        }
        None => format!("use a name that it knows: {}", self::listed(&names)),
    };
    Finding::new(STEP, Weight::Broken, "service_unknown", message, remedy)
}

/// The names that are most like `wanted`, the nearest first.
fn near(wanted: &str, names: &[String]) -> Vec<String> {
    // Names are often misspelt in case, dashes and underscores only.
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', '.'], "");
    let wanted = plain(wanted);
    let likeness = |name: &String| strsim::normalized_damerau_levenshtein(&wanted, &plain(name));
    let mut near: Vec<_> = names.iter().map(|name| (likeness(name), name)).collect();
    near.retain(|(likeness, _)| *likeness >= NEAR);
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.truncate(3);
    near.into_iter().map(|(_, name)| name.clone()).collect()
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognized() {
        let names = ["add_service", "consul", "trim_service", "trim-service-v2"];
        let names = names.map(str::to_owned);
        for wanted in [
            "trim_servise",
            "Trim-Service",
            "trimservice",
            "tirm_service",
        ] {
            assert_eq!(near(wanted, &names)[0], "trim_service", "{wanted}");
        }
        assert!(near("payments", &names).is_empty());
    }

    #[test]
    fn a_long_list_is_cut() {
        let names: Vec<_> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(listed(&names), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
        assert_eq!(listed(&[]), "none");
    }
}
