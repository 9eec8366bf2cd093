//! Eureka: watches services by polling and registers instances under leases, over HTTP.
//!
//! [`Eureka`] is the registry and [`Config`] its settings. A URL opens it:
//!
//! ```text
//! eureka://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/PATH][?SETTING=VALUE&...]
//! ```
//!
//! | part | meaning | default |
//! |---|---|---|
//! | scheme | `eureka`, or `eurekas` for HTTPS (needs the feature `tls-ring` or `tls-aws-lc`) | |
//! | `USER:PASSWORD` | HTTP Basic authentication | none |
//! | `HOST:PORT` | the peers, in any order | those in `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`, or else `localhost:8761` |
//! | `/PATH` | the path of the REST API | `/eureka` |
//! | `vip` | `true`: a query's service is a VIP address, see [`Config::vip`] | `false`: an application |
//! | `interval` | the time between two requests of a watch, in `s` or `ms` | `2s` |
//! | `lease` | the time after which a killed process may be removed, in `s` or `ms` | `30s` |
//! | `ca`, `cert`, `key` | PEM files for TLS | the system's authorities, no client certificate |
//!
//! Spring Cloud's server (5.0) and Netflix's, which it contains, have this API. An entry is read and
//! written as Spring Cloud's, Netflix's and other clients do: an instance's tags (separated by commas),
//! weight and zone stand in its metadata under the keys `tags`, `weight` and `zone`. The VIP address is
//! the service's name. Metadata keeps its `zone`.
//!
//! # The watch
//!
//! The list of one application is requested every [`Config::interval`], with a jitter of a tenth.
//!
//! | seen | the watch |
//! |---|---|
//! | a list | publishes the set if it differs |
//! | 404 | publishes an empty set: an application without instances is not known |
//! | a status other than `UP`, or an override of it | lists the instance, and does not call it |
//! | an entry that cannot be used: no address, a port that is not enabled or not one | leaves it out, counts and logs it; the others count |
//! | no answer, 401, 403, 429, 5xx, another body | asks the next peer; if none answers, fails and keeps the last good set |
//!
//! The states of an instance are: `UP` passing, `DOWN` and `OUT_OF_SERVICE` critical, `STARTING`,
//! `UNKNOWN` and any other warning. See [`InstanceHealth`](crate::InstanceHealth). An instance with a
//! secure port only is left out: plain gRPC cannot call it.
//!
//! Eureka ignores the case of applications' names, and lists them in upper case; a watched instance has
//! the name of the query. VIP addresses are looked up in the spelling with which they were registered.
//!
//! # The registration
//!
//! The entry has a lease, which is renewed three times in its time. After each renewal the entry is read.
//!
//! * A renewal that is answered with 404 means that Eureka does not know the entry, or has an older one.
//!   The [`Registrar`](crate::Registrar) then registers again. A server has no entries after its start.
//! * The entry of another process under the same ID is found within a third of the lease, and
//!   overwritten. Metadata that an operator adds is kept, until the instance is registered again.
//! * Of two entries under one ID, Eureka keeps the one with the later `lastDirtyTimestamp`. A registration
//!   whose clock is behind that of an earlier one is repeated with a later time.
//! * A status that an operator sets (`OUT_OF_SERVICE`) survives renewals and registrations. The state of
//!   the registration then shows it as a critical check.
//! * [`Check::Ttl`](super::Check::Ttl) is the lease. Eureka has no other check.
//! * Deregistering sets the status `DOWN` and removes the entry at once.
//! * The registration is repeated five times in three minutes. Eureka's response cache may otherwise keep a
//!   list without it for so long, if the list was requested at the moment of the registration.
//!
//! # Bounds
//!
//! | event | bound |
//! |---|---|
//! | registered or deregistered: seen | [`Config::interval`], and the server's cache: up to 30 s by Eureka's defaults, none with `eureka.server.use-read-only-response-cache=false` |
//! | process killed: gone | the lease, the server's eviction interval (60 s by default, `eureka.server.eviction-interval-timer-in-ms`), and the time until it is seen |
//! | server restarted empty: registered again | a third of the lease |
//! | server hangs: error | [`Config::interval`] and [`Config::request_timeout`] |
//!
//! A server in self-preservation (`eureka.server.enable-self-preservation`, on by default) removes no
//! instance whose lease has ended. [Outlier ejection](crate::EjectionPolicy) and the state of connections
//! keep calls from dead instances meanwhile.

mod client;
mod config;
mod entry;
mod register;
mod registry;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use self::{config::Config, registry::Eureka};
