//! Consul: watches services by blocking queries and registers instances with the agent, over HTTP.
//!
//! [`Consul`] is the registry and [`Config`] its settings.
//! `consul://HOST:PORT[/PATH][?dc=A,B&filter=EXPRESSION&prepared=true]` opens it by URL.
//!
//! # The watch
//!
//! Consul numbers its states. A query that names the number (the index) of a state is held back
//! until a newer state exists, or until [`Config::wait`] is over. So one request is always under
//! way, and a change arrives within milliseconds.
//!
//! ```text
//!                good answer
//!      .-----------------------------.
//!      |                             v    .-- good answer
//!    Fresh <-- index went back -- Following <-'
//!      |                           |  ^
//!      | failure           failure |  | good answer
//!      v                           v  |
//!    .----------------------------------.
//!    | Failing: waits, then asks anew   | <-. failure: waits longer
//!    '----------------------------------' --'
//! ```
//!
//! | state | request | on a good answer | on a failure |
//! |---|---|---|---|
//! | Fresh | without index: answered at once | publish; Following | Failing |
//! | Following | with the last index: held back | publish if different; Following, or Fresh if the index went back | Failing |
//! | Failing | after a wait, without index | publish; Following | Failing, with a longer wait |
//!
//! A failure is any answer that does not state the service's instances: no connection, no answer in
//! time, an error status, a denial, a body that cannot be read, or an agent without a leader. The
//! last good set stays published, with the failure in
//! [`InstanceSet::error`](super::InstanceSet::error).
//!
//! The watch concludes from an answer:
//!
//! * An answer does not prove a change. Consul also answers when `wait` is over and when the
//!   query's filters hide the change. Only a different result is published.
//! * An index is void after a failure. A restarted Consul may count from the start, and a query
//!   with the old, higher index would hide every change until `wait` is over.
//! * An empty list may be a denial: Consul hides instances that the token may not read. The watch
//!   checks the first empty answer with two other calls.
//! * A set that shrinks may be Consul's own failure: after a restart from its data folder, Consul
//!   reports every check as critical until it has run again, and a server that hangs takes its
//!   instances out of the catalog. The watch publishes what Consul says.
//!   [`RemovalProtection`](crate::RemovalProtection), which knows the connections, handles it.
//! * The watch asks for all instances and publishes their [`InstanceHealth`](crate::InstanceHealth):
//!   lost if Consul's own check of the node (`serfHealth`) is critical, critical in maintenance mode. The
//!   output of a check is not published.
//! * An ID on several nodes is made unique as `ID@NODE`. An instance keeps its ID for as long as it is
//!   listed, and an ID that was once ambiguous stays so for the life of the watch.
//! * An entry that cannot be used (no address, port 0) is left out, counted and logged. The other
//!   entries count.
//!
//! While instances keep changing, a watch takes an answer every [`Config::change_interval`]. While Consul
//! answers, [`InstanceSet::confirmed`](super::InstanceSet::confirmed) is at most [`Config::wait`], a
//! sixteenth of it, and 5 s old: 64 s by default.
//!
//! With several datacenters there is one watch for each, and the union is published. A datacenter that
//! fails keeps its last good set; `error` then has its failure, and `confirmed` its time. A prepared query
//! cannot be held back, so it is executed every 2 s.
//!
//! # The registration
//!
//! The instance is registered with the agent at [`Config::address`]. Four loops keep it
//! registered until the process deregisters it:
//!
//! * A blocking query on the agent's own entry returns when the agent no longer holds the service
//!   as registered, and breaks when the agent dies. The [`Registrar`](crate::Registrar) then
//!   registers again.
//! * The catalog, which consumers ask, is looked at every 5 s. If it lacks the instance for 2 s, though
//!   the agent holds it, the registrar registers again. This needs the right to read nodes.
//! * Heartbeats keep a TTL check passing.
//! * The state of the instance's check is read at the check's interval. The registrar
//!   logs a change and shows it in [`RegistrationState`](crate::RegistrationState).
//!
//! After a restart from its data folder the agent reports every check as critical, and registering
//! again does not change that. A gRPC check runs again within its interval; a heartbeat follows
//! every registration at once.
//!
//! # Credentials
//!
//! The token file and the certificate files are read again when they change, and the token file also when
//! Consul denies a request. An answer 429, 408 or 5xx counts as an overload: the request is repeated, after
//! the time in `Retry-After` if it is given.

mod client;
mod config;
mod health;
mod path;
mod register;
mod registry;
mod services;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use self::{config::Config, registry::Consul};
