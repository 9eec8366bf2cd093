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
//! # The names of gRPC's own implementations
//!
//! [`grpc_text`] writes these in the text format of Prometheus, by the names that the OpenTelemetry exporter
//! for Prometheus gives to the metrics of gRFCs A66, A78, A91, A94 and A96, and of A100's draft. Dashboards
//! made for gRPC show them. They are not sent to the recorder: a histogram of the facade takes every value
//! one by one, and these count in buckets of their own.
//!
//! | name | kind | unit | labels |
//! |---|---|---|---|
//! | `grpc_client_attempt_started_total` | counter | attempts | `grpc_method`, `grpc_target` |
//! | `grpc_client_attempt_duration_seconds` | histogram | seconds to the end of the response, from 10 us to 100 s | `grpc_method`, `grpc_target`, `grpc_status` |
//! | `grpc_client_attempt_sent_total_compressed_message_size_bytes` | histogram | bytes of request messages, from 1 KiB to 4 GiB | the same |
//! | `grpc_client_attempt_rcvd_total_compressed_message_size_bytes` | histogram | bytes of response messages | the same |
//! | `grpc_client_call_duration_seconds` | histogram | seconds, with all attempts | the same |
//! | `grpc_client_call_retries` | histogram | retries of a call that had any, from 1 to 5 | `grpc_method`, `grpc_target` |
//! | `grpc_client_call_transparent_retries` | histogram | retries that no server had processed, from 1 to 10 | `grpc_method`, `grpc_target` |
//! | `grpc_client_call_hedges` | histogram | hedged attempts, from 1 to 5 | `grpc_method`, `grpc_target` |
//! | `grpc_client_call_retry_delay_seconds` | histogram | seconds of a retried call without an attempt under way | `grpc_method`, `grpc_target` |
//! | `grpc_subchannel_connection_attempts_succeeded_total` | counter | attempts to connect | `grpc_target` |
//! | `grpc_subchannel_connection_attempts_failed_total` | counter | attempts to connect | `grpc_target` |
//! | `grpc_subchannel_disconnections_total` | counter | connections that ended | `grpc_target` |
//! | `grpc_subchannel_open_connections` | gauge | connections | `grpc_target` |
//! | `grpc_lb_outlier_detection_ejections_enforced_total` | counter | ejections | `grpc_target`, `grpc_lb_outlier_detection_detection_method`: `success_rate`, `failure_percentage`, `consecutive` |
//! | `grpc_lb_outlier_detection_ejections_unenforced_total` | counter | outliers found but not ejected, per review | the same, and `grpc_lb_outlier_detection_unenforced_reason`: `max_ejection_overflow` |
//! | `grpc_lb_wrr_rr_fallback_total` | counter | updates of the rotation with fewer than two reported weights, which use the registry's | `grpc_target` |
//! | `grpc_lb_wrr_endpoint_weight_not_yet_usable_total` | counter | endpoints per update without a report, or in the blackout after its first | `grpc_target` |
//! | `grpc_lb_wrr_endpoint_weight_stale_total` | counter | endpoints per update whose last report has expired | `grpc_target` |
//! | `grpc_lb_wrr_endpoints_in_slow_start_total` | counter | endpoints per update that warm up | `grpc_target` |
//! | `grpc_lb_wrr_endpoint_weights` | histogram | weights of the endpoints per update, from 0 (none is usable) to 10000 | `grpc_target` |
//!
//! `grpc_method` is the full name, such as `pb.Trim/TrimSpace`; `grpc_target` is the registry's name and the
//! service, such as `consul://localhost:8500/trim_service`; `grpc_status` is a code's name, such as
//! `UNAVAILABLE`. The numbers of series do not depend on the number of instances: no label names one.
//! At most 64 methods of a target have series of their own, the others are `other`. A status has series once
//! it was seen, and `grpc_lb_wrr_*` once a channel has used `weighted-round-robin` (feature `orca`). All series
//! of a target disappear with its last channel.
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
mod rpc;
mod service;
mod total;

pub(crate) use self::registry::RegistryMetrics;
#[cfg(feature = "orca")]
pub(crate) use self::rpc::WeightUpdate;
pub use self::rpc::grpc_text;
pub(crate) use self::{
    endpoints::Endpoints,
    rpc::{CallCounts, Detection, MethodMetrics, Target, TargetMetrics},
    service::{PUBLISH_INTERVAL, ServiceMetrics},
};
