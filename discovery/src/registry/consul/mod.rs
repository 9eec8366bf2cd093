//! Consul: watches services by blocking queries and registers instances with the agent, over HTTP.
//!
//! [`Consul`] is the registry and [`Config`] its settings. `consul://HOST:PORT` opens it by URL.
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
//! What the watch concludes from an answer:
//!
//! * An answer does not prove a change. Consul also answers when `wait` is over and when the
//!   query's filters hide the change. Only a different result is published.
//! * An index is void after a failure. A restarted Consul may count from the start, and a query
//!   with the old, higher index would hide every change until `wait` is over.
//! * An empty list may be a denial: Consul hides instances that the token may not read. The watch
//!   checks the first empty answer with two other calls.
//! * A set that shrinks may be Consul's own failure: after a restart from its data folder, Consul
//!   reports every check as critical until it has run again. The watch publishes the smaller set.
//!   [`RemovalProtection`](crate::RemovalProtection), which knows the connections, handles it.
//! * An entry that cannot be used (no address, port 0) is left out, counted and logged. The other
//!   entries count.
//!
//! While instances keep changing, a watch takes an answer every [`Config::change_interval`].
//!
//! # The registration
//!
//! The instance is registered with the agent at [`Config::address`]. Three loops keep it
//! registered until the process deregisters it:
//!
//! * A blocking query on the agent's own entry returns when the agent no longer holds the service
//!   as registered, and breaks when the agent dies. The [`Registrar`](crate::Registrar) then
//!   registers again.
//! * Heartbeats keep a TTL check passing.
//! * The state of the instance's check is read at the check's interval. The registrar
//!   logs a change and shows it in [`RegistrationState`](crate::RegistrationState).
//!
//! After a restart from its data folder the agent reports every check as critical, and registering
//! again does not change that. A gRPC check runs again within its interval; a heartbeat follows
//! every registration at once.

mod client;
mod config;
mod health;
mod register;
mod registry;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use self::{config::Config, registry::Consul};
