//! A folder as a registry: one file per instance, for services on one machine.
//!
//! [`Embedded`] is the registry; `embedded://[FOLDER]` opens it by URL. It needs no server, no heartbeat
//! and no clock.
//!
//! # The folder
//!
//! `FOLDER/SERVICE/ID.json` describes one instance. `SERVICE` and `ID` are percent-encoded where they hold
//! other characters than letters, digits, `.`, `_` and `-`, or begin with a dot.
//!
//! ```json
//! {"id": "trim_service-127.0.0.1-8975", "host": "127.0.0.1", "port": 8975,
//!  "tags": ["blue"], "meta": {"version": "2"}, "weight": 1, "zone": "a", "datacenter": "dc1"}
//! ```
//!
//! Only `host` and `port` are required. Fields of other names are ignored.
//!
//! The owner keeps its file open and locked (`flock`) for as long as it lives. The kernel releases the
//! lock when the process ends, however it ends, so a file whose lock is free belongs to a dead process: it
//! is ignored and removed. A stopped process keeps its lock.
//!
//! A file is written under a name with a leading dot, locked, and renamed, so that a reader never sees half
//! of one.
//!
//! `FOLDER/SERVICE/*.static.json` lists instances that no process owns, in the format of Prometheus's
//! `file_sd`. Each label is an entry of the instance's metadata; `zone`, `weight` and `tags` (separated by
//! commas) are read from the labels of these names.
//!
//! ```json
//! [{"targets": ["10.0.0.1:8975", "10.0.0.2:8975"], "labels": {"zone": "a"}}]
//! ```
//!
//! # The watch
//!
//! A change is reported by inotify. The watch then reads the whole folder: events are only a hint. It also
//! reads it every 10 s. Where inotify is refused (a user has 128 watches by default), absent, or blind (a
//! network file system), it reads the folder every second.

mod entry;
mod files;
mod folder;
mod notify;
mod register;
mod registry;
mod static_file;
mod watch;

pub use self::registry::Embedded;
