//! The steps about one instance: its health in the registry, its connection, its protocol, and gRPC.

mod connection;
mod grpc;

use std::{collections::BTreeMap, sync::Arc};

use discovery::{
    Channel, Instance, InstanceHealth,
    connection::Factory as _,
    registry::{Query, StaticRegistry},
};
use tokio::time::{Instant, timeout};

use super::{
    Finding, StepContext, certificate,
    finding::Weight,
    sniff::{ProbeResult, sniff},
};
use crate::instance_text;

/// The findings about an instance.
#[derive(Debug)]
pub(super) struct Examined {
    instance: Arc<Instance>,
    pub(super) findings: Vec<Finding>,
    /// The instance, if a channel can call it.
    pub(super) usable: Option<Arc<Instance>>,
    /// The gRPC services that it offers, if its reflection lists them.
    services: Option<Vec<String>>,
}

/// Goes through the steps until one does not work.
pub(super) async fn examine(context: &StepContext<'_>, instance: &Arc<Instance>) -> Examined {
    let mut examined = Examined {
        instance: Arc::clone(instance),
        findings: Vec::new(),
        usable: None,
        services: None,
    };
    if !is_selected(context, instance) {
        let message = format!("left out by the filters; its tags are {:?}", instance.tags);
        let remedy = "leave out --tag to include it";
        let note = Finding::new("health", Weight::Note, "filtered_out", message, remedy);
        examined.findings.push(note.of(instance));
        return examined;
    }
    examined.findings.push(health(instance).of(instance));
    let works = steps(context, &mut examined).await;
    if works && instance.health.is_usable() {
        examined.usable = Some(Arc::clone(instance));
    }
    examined
}

fn is_selected(context: &StepContext<'_>, instance: &Instance) -> bool {
    let query = Query::new(&context.args.target.service);
    query
        .with_tags(&context.args.filters.tags)
        .selects(instance)
}

/// The finding about its health in the registry.
fn health(instance: &Instance) -> Finding {
    let word = instance_text::health(instance.health);
    match instance.health {
        InstanceHealth::Lost => Finding::new(
            "health",
            Weight::Warning,
            "lost",
            "the registry has lost the instance's node or session: a channel does not call it",
            "check the registry's agent on its machine, and the network between both",
        ),
        InstanceHealth::Unknown => Finding::ok("health", "listed, without a check in the registry"),
        health if health.is_usable() => Finding::ok("health", format!("{word} in the registry")),
        _ => Finding::new(
            "health",
            Weight::Warning,
            "check_fails",
            format!("its check in the registry is {word}: a channel does not call it"),
            "see the lines below for the instance, and the check's output in the registry; a check may \
             also name a wrong address, port or service",
        ),
    }
}

/// The steps that need a connection. False if a call would not work.
async fn steps(context: &StepContext<'_>, examined: &mut Examined) -> bool {
    let instance = Arc::clone(&examined.instance);
    let limit = context.args.timeout;
    let begun = Instant::now();
    let connected = timeout(limit, context.http2.connect(&instance)).await;
    let took = begun.elapsed();
    let failure = match connected {
        Ok(Ok(_connection)) => None,
        Ok(Err(error)) => Some(Some(error)),
        Err(_elapsed) => Some(None),
    };
    let is_tls = context.args.connection.is_tls();
    if let Some(error) = failure {
        let found = sniff(&instance.authority(), limit).await;
        let finding = connection::failed(context, &instance, error.as_ref(), &found);
        examined.findings.push(finding.of(&instance));
        return false;
    }
    let tls = if is_tls { " over TLS" } else { "" };
    let message = format!("HTTP/2{tls} with {} in {took:.1?}", instance.authority());
    examined
        .findings
        .push(Finding::ok("connection", message).of(&instance));
    if is_tls
        && let ProbeResult::Tls {
            certificate: Some(own),
            ..
        } = sniff(&instance.authority(), limit).await
    {
        examined
            .findings
            .push(certificate::accepted(&own).of(&instance));
    }
    let alone = (*instance).clone().with_health(InstanceHealth::Unknown);
    let channel = Channel::from_registry(
        Arc::new(StaticRegistry::new([alone])),
        &context.args.target.service,
    );
    let channel = match channel.factory(context.http2.clone()).build() {
        Ok(channel) => channel,
        Err(error) => {
            let finding = Finding::broken(
                "connection",
                "no_channel",
                error.to_string(),
                "report this error: it is a defect of this program",
            );
            examined.findings.push(finding.of(&instance));
            return false;
        }
    };
    let answered = grpc::examine(context, &channel).await;
    examined.services = answered.services;
    let findings = answered
        .findings
        .into_iter()
        .map(|finding| finding.of(&instance));
    examined.findings.extend(findings);
    examined
        .findings
        .iter()
        .all(|finding| finding.result < Weight::Broken)
}

/// Instances that offer other services than most do: another server may have their address.
pub(super) fn differing(all: &[Examined]) -> Vec<Finding> {
    let mut offers: BTreeMap<&[String], usize> = BTreeMap::new();
    for services in all.iter().filter_map(|one| one.services.as_deref()) {
        *offers.entry(services).or_default() += 1;
    }
    let most = offers.iter().max_by_key(|(_, count)| **count);
    let Some((usual, count)) = most.map(|(usual, count)| (usual.to_vec(), *count)) else {
        return Vec::new();
    };
    let others = all.iter().filter_map(|one| {
        let services = one.services.as_ref().filter(|services| **services != usual)?;
        let finding = Finding::new(
            "reflection",
            Weight::Warning,
            "other_services",
            format!(
                "{} offers {}, and {count} others offer {}",
                one.instance,
                grpc::listed(services),
                grpc::listed(&usual)
            ),
            "check what is deployed at this address: another version, or another server that has taken it",
        );
        Some(finding.of(&one.instance))
    });
    others.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_that_offers_something_else_is_named() {
        let examined = |port, services: Option<&[&str]>| Examined {
            instance: Arc::new(Instance::new("10.0.0.1", port).unwrap()),
            findings: Vec::new(),
            usable: None,
            services: services.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        };
        let all = [
            examined(1, Some(&["pb.Trim"])),
            examined(2, Some(&["pb.Add"])),
            examined(3, None),
            examined(4, Some(&["pb.Trim"])),
        ];
        let found = differing(&all);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].instance.as_deref(), Some("10.0.0.1:2"));
        assert!(found[0].message.contains("offers pb.Add"), "{found:?}");
        assert!(differing(&all[2..]).is_empty());
    }
}
