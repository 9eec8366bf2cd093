//! DNS: lists the instances behind a name, and registers nothing.
//!
//! [`Dns`] is the registry and [`Config`] its settings. It needs no crate beside tokio.
//!
//! # URLs
//!
//! | URL | instances |
//! |---|---|
//! | `dns://RESOLVER:PORT/NAME` | the SRV records of NAME, as that server lists them |
//! | `dns:///NAME` | the same, from the nameservers of `/etc/resolv.conf` |
//! | `dns://RESOLVER:PORT` | the SRV records of the service's own name |
//! | `dns+a://RESOLVER:PORT/NAME:PORT` | the addresses (A, AAAA) of NAME, all with this port |
//! | `dns+a:///NAME:PORT`, `dns+a://NAME:PORT` | the same, from the nameservers of `/etc/resolv.conf` |
//!
//! The forms are those of gRPC's name resolution, with the resolver as the authority. Several resolvers are
//! separated by commas. The default port of a resolver is 53. For example
//! `dns://127.0.0.1:8600/trim_service.service.consul` asks Consul.
//!
//! NAME is the name that is looked up, whatever the service of the [`Query`](super::Query) is. Three
//! placeholders in it stand for parts of the query: `{service}`, `{tag}` and `{datacenter}`. With
//! `dns://127.0.0.1:8600/_{service}._{tag}.service.{datacenter}.consul`, Consul selects by one tag and one
//! datacenter. A query with a tag or a datacenter is refused if the name has no place for it, because DNS
//! does not list them. Names are absolute. Of `/etc/resolv.conf`, only the nameservers
//! are used, not its search domains and options. `/etc/hosts` is not read.
//!
//! | setting | default | |
//! |---|---|---|
//! | `min_refresh` | `1s` | minimum time between two refreshes |
//! | `max_refresh` | `30s` | maximum time between two refreshes |
//! | `timeout` | `2s` | limit for a connection and for each answer |
//!
//! # Instances
//!
//! * The ID is `ADDRESS:PORT`. A target with several addresses is several instances. The target's name is
//!   in the metadata, under `target`.
//! * The weight is the record's; 0 counts as 1.
//! * Only the lowest priority that has a usable record is listed. Others stand by: they are listed once the
//!   lower ones have left DNS, not while these are unreachable.
//! * Addresses come from the additional section, or else are asked for. Where a server fails to answer for
//!   one target, its last addresses are kept; without any, the record is left out.
//! * A record that cannot be used is left out, counted and logged; the others count. The target `.` means
//!   that the service is not offered.
//!
//! # The watch
//!
//! A refresh follows the least TTL of the records, within the bounds. Each opens one TCP connection. UDP is
//! used only where no connection can be made, because answers over UDP are cut: Consul answers with a random
//! choice of the instances, without a sign of it.
//!
//! | seen | the watch |
//! |---|---|
//! | records | publishes the set if it differs, in whatever order they are |
//! | NXDOMAIN, or no record of the kind | publishes the empty set, valid for the lesser of the SOA's TTL and minimum |
//! | SERVFAIL, REFUSED or another code, a time-out, a referral, a truncated answer | asks the next server; keeps the last set and fails if there is none |
//! | an alias (CNAME) | follows it, eight times at most |
//!
//! [`InstanceSet::confirmed`](super::InstanceSet::confirmed) is at most [`Config::max_refresh`] and the time
//! of one answer old while a server answers.

mod addresses;
mod client;
mod config;
mod instances;
mod lookup;
mod message;
mod name;
mod registry;
mod resolver;
mod template;
mod watch;

pub use self::{
    config::{Config, Records},
    registry::Dns,
};
