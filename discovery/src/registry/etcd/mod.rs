//! etcd v3: watches keys and registers entries under leases, over gRPC.
//!
//! [`Etcd`] is the registry and [`Config`] its settings. [`Layout`] is the form of the entries.
//! `etcd://HOST:PORT,HOST:PORT/PREFIX?layout=gokit|grpc` opens it by URL, `etcds://` with TLS. It needs
//! etcd 3.4 or later.
//!
//! # The watch
//!
//! The keys of a service are read once, then the events from that revision on are applied. A change
//! arrives within milliseconds.
//!
//! | seen | the watch |
//! |---|---|
//! | an event | publishes the set if it differs; writing an equal value publishes nothing |
//! | nothing for [`Config::confirm_interval`] | asks for progress; the answer confirms the set |
//! | no answer to that in [`Config::request_timeout`] | fails, and connects to the next member |
//! | the events were compacted, or the revision went back | reads the keys again |
//! | the stream or the connection broke, the member lost its leader | fails, then reads the keys again |
//! | a value that is not an instance | leaves it out, counts and logs it; the other entries count |
//!
//! A server that was restarted with an empty folder has the same cluster ID, and its revisions start
//! anew. A watch that only resumed would see nothing until the revision had passed the old one. So keys
//! are read again after every failure.
//!
//! The watch starts at the revision of the read, not after it, so that the events of that revision are
//! received once more. etcd 3.6 does not answer requests for progress while a watch's first revision is
//! still to come, and an idle watch would look like a dead one.
//!
//! [`InstanceSet::confirmed`](super::InstanceSet::confirmed) is at most [`Config::confirm_interval`]
//! and one round trip old while etcd answers, and a member that hangs with open connections is noticed
//! within the sum of the interval and the request timeout: 10 s by default. After a failure, the last
//! good set stays published, with the failure in [`InstanceSet::error`](super::InstanceSet::error).
//!
//! # The registration
//!
//! The entry has a lease. It is kept alive three times in the lease's time, so a killed process
//! disappears when its lease has expired, and a deregistered one at once, because its lease is revoked.
//! etcd grants at least 2 s; the granted time counts.
//!
//! * An answer without a time to live means that the lease is unknown. The
//!   [`Registrar`](crate::Registrar) then registers again.
//! * A watch of the own entry returns when the entry was deleted or overwritten.
//! * An entry that is already there under the same lease is not written again, because that would wake
//!   every watch.
//!
//! etcd restarts every lease at its full time when it starts from its data folder.
//!
//! # Security
//!
//! A user's token is fetched with the first call, and again when the server refuses it: tokens expire,
//! and those of a simple token provider end with the server. The certificate files are read again for
//! every connection.

mod client;
mod config;
mod layout;
mod proto;
mod register;
mod registry;
mod services;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use self::{config::Config, layout::Layout, registry::Etcd};
