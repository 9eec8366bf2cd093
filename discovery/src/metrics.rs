//! The metrics of a channel, through the [`metrics`](https://docs.rs/metrics) facade. Install a recorder,
//! such as `metrics-exporter-prometheus`, and they appear.
//!
//! | name | kind | unit | labels |
//! |---|---|---|---|
//! | `discovery_endpoints` | gauge | instances | `service`, `state`: `ready`, `connecting`, `down`, `idle`, `ejected`, `protected` (kept as a last resort), `not_serving` (by its watched health) |
//! | `discovery_calls_total` | counter | calls | `service`, `outcome`: `ok`, `failed` |
//! | `discovery_attempts_total` | counter | attempts | `service`, `outcome`: `ok`, `status`, `broken`, `timeout`, `unprocessed` |
//! | `discovery_retries_total` | counter | attempts made after an earlier one failed | `service` |
//! | `discovery_retries_denied_total` | counter | retries not made because the retry budget was empty | `service` |
//! | `discovery_hedges_total` | counter | attempts made because an earlier one was slow | `service` |
//! | `discovery_fallbacks_total` | counter | attempts at an instance that the call does not prefer, as no preferred one could take it | `service` |
//! | `discovery_limited_total` | counter | calls that failed because every instance was at its concurrency limit | `service` |
//! | `discovery_failures_total` | counter | calls that ended with an error of the channel | `service`, `code`: as gRPC writes it |
//! | `discovery_attempt_duration_seconds` | histogram | seconds until the first message | `service` |
//! | `discovery_registry_updates_total` | counter | changes of an instance set | `service`, `registry` |
//! | `discovery_registry_errors_total` | counter | failed queries of a registry | `service`, `registry` |
//! | `discovery_invalid_instances_total` | counter | registered instances that cannot be used | `service`, `registry` |
//!
//! # Several channels, and the end of a channel
//!
//! All channels of the process to a service share its metrics. `discovery_endpoints` is the sum over
//! them: an instance that two channels are connected to counts twice. When a channel is dropped, its
//! endpoints are subtracted. Counters stay, as monotonic counters must; they take a few hundred bytes
//! per service name for the life of the process.
//!
//! # Delay, and recorders installed late
//!
//! The channel counts in its own memory and publishes to the recorder:
//!
//! - `discovery_endpoints` at every change;
//! - the three counters of registries at every change, and with the others;
//! - the other counters once a second, and when a channel is dropped;
//! - the histogram with every attempt.
//!
//! A recorder may therefore be installed after channels are built. Within a second it has the gauges,
//! and the counters with all that was counted before. Only the histogram begins there.
//!
//! Everything is published on the threads of the channel's runtime, so that a recorder must be global.
//! A recorder that is local to a thread works with a runtime of that thread alone.

mod endpoints;
mod registry;
mod service;
mod total;

pub(crate) use self::registry::RegistryMetrics;
pub(crate) use self::{
    endpoints::Endpoints,
    service::{PUBLISH_INTERVAL, ServiceMetrics},
};
