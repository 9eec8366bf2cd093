//! ZooKeeper: watches services and registers instances as ephemeral nodes.
//!
//! [`ZooKeeper`] is the registry and [`Config`] its settings. A URL opens it:
//!
//! ```text
//! zookeeper://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/BASE/PATH][?SETTING=VALUE&...]
//! ```
//!
//! | part | meaning | default |
//! |---|---|---|
//! | scheme | `zookeeper`, or `zookeepers` for TLS (needs the feature `tls-ring` or `tls-aws-lc`) | |
//! | `USER:PASSWORD` | digest authentication | none |
//! | `HOST:PORT` | the servers, in any order | `localhost:2181`, with TLS port 2281 |
//! | `/BASE/PATH` | the node above those of the services | `/services` |
//! | `layout` | `curator` or `gokit`, see below | `curator` |
//! | `session_timeout` | see [`Config::session_timeout`], in `s` or `ms` | `10s` |
//! | `acl` | rights of new nodes: `open`, `creator`, `others-read`, see [`Access`] | `creator` with credentials, else `open` |
//! | `ca`, `cert`, `key` | PEM files for TLS | the system's authorities, no client certificate |
//!
//! # Layouts
//!
//! The nodes of a service are the children of `/BASE/PATH/SERVICE`. Two forms of their data exist:
//!
//! | layout | data | written and read by |
//! |---|---|---|
//! | `curator` | JSON of Curator's `ServiceInstance`, with Spring's payload | Apache Curator, Spring Cloud ZooKeeper |
//! | `gokit` | `HOST:PORT` | Go kit's `sd/zk` |
//!
//! In the layout `curator`, the payload's metadata holds an instance's metadata, and its tags
//! (separated by commas), weight and zone under the keys `tags`, `weight` and `zone`. Spring's
//! `instance_status` other than `UP`, and Curator's `enabled: false`, make an instance
//! [critical](crate::InstanceHealth::Critical). An instance without `port` is used with its `sslPort`.
//! Plain Curator reads the nodes if its payload type is `Object` or `Map`. The layout `gokit` refuses
//! tags, metadata, weights and zones.
//!
//! # The watch
//!
//! A watch of ZooKeeper fires once. A read of the service lists its nodes and gets the data of each, and
//! leaves a watch on the list and on every node. After an event, the list is read again, and so is each
//! node that is new or has fired its watch.
//!
//! ```text
//!               event, or 5 s
//!              .-------------.
//!              v             |
//!   start --> Read -----> Waiting
//!              |             |  connection lost: another server, or the same one
//!              | failure     '--> Read everything, over the resumed session
//!              v
//!             the driver waits, then connects again
//! ```
//!
//! * A service without a node is a good, empty answer. A watch waits for its creation.
//! * In quiet times, the list is read every 5 s. So [`InstanceSet::confirmed`](super::InstanceSet) is not
//!   older than that, plus the time of an answer, while the server answers.
//! * A connection that carries nothing for two thirds of the session's timeout is dead. The client sends
//!   a ping after one third.
//! * A connection begins with a `sync`, so that a server that lags behind its leader catches up first.
//! * A node that is malformed, or that may not be read, is left out, counted and logged.
//!
//! # The registration
//!
//! An instance is an ephemeral node in a session of its own. ZooKeeper removes it when the session is
//! closed, or when it has not heard of the session for its timeout. The timeout is the TTL of
//! [`Check::Ttl`](super::Check::Ttl), or else [`Config::session_timeout`], and the server may grant
//! another. ZooKeeper has no other check, and no critical state that
//! [`deregister_critical_after`](super::Registration::deregister_critical_after) could end.
//!
//! * The parents are created as persistent nodes, and stay.
//! * A node of the same name in another session is deleted and created anew: it is what a killed process
//!   left behind, and would vanish with that session.
//! * A watch on the own node finds out that it was deleted or changed. The
//!   [`Registrar`](crate::Registrar) then registers again.
//! * The session is resumed when its connection breaks. If it has expired, the registrar registers again
//!   in a new one. The client does not give a session up by itself, because the server counts its
//!   timeout anew after a restart.
//! * Deregistering closes the session.
//!
//! # The client
//!
//! The protocol is implemented here: a dozen requests over TCP, without another dependency than tokio.
//! Of the crates on crates.io, `zookeeper-client` (0.11) adds 62 crates, gives a session up by
//! itself after its timeout while the server may keep the node, loses persistent watches with a
//! connection, and compiles C code for TLS; `zookeeper-async` (5.0) has an open leak at reconnection.
//! One-shot watches with everything read again need none of a client's machinery for watches.

mod client;
mod config;
mod layout;
mod path;
mod protocol;
mod register;
mod registry;
mod watch;

pub use self::{config::Config, layout::Layout, protocol::Access, registry::ZooKeeper};
