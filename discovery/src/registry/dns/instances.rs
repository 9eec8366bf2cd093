//! Instances from SRV records and addresses. Pure functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    addresses::{Addresses, Known},
    lookup::{Refusal, least},
    message::{Data, Srv},
    name::Name,
};
use crate::{instance::Instance, registry::Listing};

/// The key of the metadata that has the target's name.
const TARGET: &str = "target";

/// The records of one priority, in an order that does not depend on the server's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Level(Vec<Srv>);

/// The records by priority, the lowest first. A record with the target `.` says that the service is not
/// offered (RFC 2782).
pub(super) fn by_priority(data: impl IntoIterator<Item = Data>) -> Vec<Level> {
    let mut levels: BTreeMap<u16, Level> = BTreeMap::new();
    for data in data {
        if let Data::Srv(srv) = data
            && !srv.target.is_root()
        {
            levels.entry(srv.priority).or_default().0.push(srv);
        }
    }
    let mut levels: Vec<_> = levels.into_values().collect();
    for Level(records) in &mut levels {
        // Of two records of one address, the one with the greater weight comes first and is kept.
        records.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.cmp(b)));
    }
    levels
}

impl Level {
    pub(super) fn has(&self, target: &Name) -> bool {
        self.0.iter().any(|srv| srv.target == *target)
    }

    /// The targets that can be asked for.
    pub(super) fn targets(&self) -> BTreeSet<Name> {
        let plain = self.0.iter().filter(|srv| srv.target.is_plain());
        plain.map(|srv| srv.target.clone()).collect()
    }

    /// Adds an instance for each address of each record, and the reasons for which there is none. Returns
    /// the least TTL of the addresses.
    pub(super) fn instances(
        &self,
        service: &str,
        found: &BTreeMap<Name, Result<Addresses, Refusal>>,
        known: &Known,
        listing: &mut Listing,
    ) -> Option<u32> {
        let mut ttl = None;
        for srv in &self.0 {
            let addresses = match found.get(&srv.target) {
                Some(Ok(found)) => {
                    ttl = least(ttl, found.ttl);
                    Ok(found.ips.clone())
                }
                // The rest of the answer is good, so the last addresses of this target are kept.
                Some(Err(refusal)) => known
                    .last(&srv.target)
                    .ok_or_else(|| format!("its addresses cannot be looked up: {refusal}")),
                None => Err("the target is not a host name".to_owned()),
            };
            let made = addresses.and_then(|addresses| srv.instances(service, &addresses));
            match made {
                Ok(instances) => instances.into_iter().for_each(|i| listing.push(i)),
                Err(reason) => listing.reject(format!("{}:{}: {reason}", srv.target, srv.port)),
            }
        }
        ttl
    }
}

impl Srv {
    fn instances(&self, service: &str, addresses: &[IpAddr]) -> Result<Vec<Instance>, String> {
        if addresses.is_empty() {
            return Err("the target has no address".to_owned());
        }
        let instances = addresses.iter().map(|address| {
            let instance = instance(service, *address, self.port)?;
            Ok(instance
                // Weight zero would exclude an instance that is listed; the RFC gives it a small share.
                .with_weight(self.weight.max(1).into())
                .with_meta([(TARGET, self.target.to_string())]))
        });
        instances.collect()
    }
}

/// An instance with the ID `ADDRESS:PORT`.
pub(super) fn instance(service: &str, address: IpAddr, port: u16) -> Result<Instance, String> {
    let instance = Instance::new(address.to_string(), port).map_err(|error| error.to_string())?;
    Ok(instance.with_service(service))
}
