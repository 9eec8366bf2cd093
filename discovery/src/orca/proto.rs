//! The messages of `xds.data.orca.v3` and `xds.service.orca.v3`, written by hand with the field numbers of
//! their `.proto` files. A build script with a protobuf compiler would add about thirty crates to a
//! user's build for two messages.

#![allow(
    clippy::derive_partial_eq_without_eq,
    reason = "the derive macro of prost writes the implementations"
)]

use std::{collections::BTreeMap, time::Duration};

use prost::Message;

/// The name of the service.
pub(super) const SERVICE: &str = "xds.service.orca.v3.OpenRcaService";
/// The path of its only method.
pub(super) const STREAM: &str = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics";

/// `xds.data.orca.v3.OrcaLoadReport`. Its field 3 was a rate in whole numbers, which field 6 has replaced.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OrcaLoadReport {
    #[prost(double, tag = "1")]
    pub(super) cpu_utilization: f64,
    #[prost(double, tag = "2")]
    pub(super) mem_utilization: f64,
    #[prost(btree_map = "string, double", tag = "4")]
    pub(super) request_cost: BTreeMap<String, f64>,
    #[prost(btree_map = "string, double", tag = "5")]
    pub(super) utilization: BTreeMap<String, f64>,
    #[prost(double, tag = "6")]
    pub(super) rps_fractional: f64,
    #[prost(double, tag = "7")]
    pub(super) eps: f64,
    #[prost(btree_map = "string, double", tag = "8")]
    pub(super) named_metrics: BTreeMap<String, f64>,
    #[prost(double, tag = "9")]
    pub(super) application_utilization: f64,
}

/// `xds.service.orca.v3.OrcaLoadReportRequest`, without the names of costs, which no gRPC client sets.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OrcaLoadReportRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) report_interval: Option<Interval>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Interval {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl Interval {
    pub(super) fn of(time: Duration) -> Self {
        Self {
            seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(time.subsec_nanos()).unwrap_or(i32::MAX),
        }
    }

    /// `None` if it is negative or malformed.
    pub(super) fn time(self) -> Option<Duration> {
        let nanos = u32::try_from(self.nanos)
            .ok()
            .filter(|it| *it < 1_000_000_000)?;
        Some(Duration::new(u64::try_from(self.seconds).ok()?, nanos))
    }
}
