//! The load that the trim service's binary reports.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::time::Duration;

use discovery::{
    Channel,
    balance::Policy,
    orca::{LoadReport, LoadReports},
};
use proto::{TrimRequest, trim_client::TrimClient};
use testkit::{Signal, eventually, trim_service};

use crate::support::LIMIT;

#[tokio::test]
async fn reports_its_cpu_share_and_rate_per_call_and_out_of_band_and_drains_with_an_open_stream() {
    let flags = ["--consul", "127.0.0.1:1", "--drain", "1s"];
    let mut service = trim_service(&flags).await.unwrap();
    let reports = LoadReports::default()
        .with_out_of_band(Duration::from_secs(1))
        .with_blackout(Duration::ZERO)
        .with_update_period(LoadReports::MIN_UPDATE_PERIOD);
    let channel = Channel::builder(format!("static://{}", service.grpc), "trim_service")
        .balancer(Policy::WeightedRoundRobin)
        .load_reports(reports)
        .retry_timeout(LIMIT)
        .build()
        .unwrap();
    let mut client = TrimClient::new(channel.clone());
    let mut call = async || {
        let request = TrimRequest { s: " a ".into() };
        let response = client.trim_space(request).await.unwrap();
        let trailers = response.metadata().clone().into_headers();
        LoadReport::from_trailers(&trailers).unwrap()
    };
    let begun = std::time::Instant::now();
    let report = loop {
        let report = call().await;
        if let Some(report) = report.filter(|report| report.cpu_utilization > 0.0) {
            break report;
        }
        assert!(begun.elapsed() < LIMIT, "no report within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(report.rps > 1.0, "{report:?}");
    assert!(report.cpu_utilization < 1.5, "{report:?}");
    eventually("a weight by reports out of band", LIMIT, async || {
        channel.endpoints()[0].reported_weight.ok_or("none")
    })
    .await
    .unwrap();

    service.process.signal(Signal::SIGTERM).unwrap();
    let status = service.process.exit(LIMIT).await.unwrap();
    assert!(status.success(), "{}", service.process.stderr());
}
