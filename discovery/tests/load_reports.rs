//! Weighted round robin by the load that servers report, on a paused clock. The servers are tonic's, in
//! this process, behind the crate's own layer.

#![cfg(feature = "orca")]
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a test that panics has failed; numbers of calls are small"
)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{
    Channel, ChannelBuilder, EjectionPolicy, InProcess, Instance, WarmUp,
    balance::Policy,
    orca::{CallLoad, LoadReport, LoadReports, ServerLoad},
    registry::StaticRegistry,
};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use support::grpc_series::{count, value};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Request, Response, Status, service::Routes};

const SECOND: Duration = Duration::from_secs(1);

/// A server whose calls cost a number of milliseconds of its time each.
#[derive(Clone)]
struct Costly {
    cost: usize,
    calls: Arc<AtomicUsize>,
    /// Of so many calls, one fails; none if it is zero.
    fails: usize,
    load: ServerLoad,
}

impl Costly {
    fn new(cost: usize) -> Self {
        Self {
            cost,
            calls: Arc::default(),
            fails: 0,
            load: ServerLoad::new(),
        }
    }

    fn instance(&self) -> Instance {
        Instance::new("127.0.0.1", self.cost.try_into().unwrap()).unwrap()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Reports its rate and its utilization each second, both of the same second: a ratio of figures of
    /// different times would move with every change of the load.
    async fn measure(self) {
        let mut before = self.calls();
        loop {
            sleep(SECOND).await;
            let calls = self.calls();
            let passed = calls - before;
            self.load.update(|report| {
                report.rps = passed as f64;
                report.application_utilization = (passed * self.cost) as f64 / 1_000.0;
            });
            before = calls;
        }
    }
}

#[tonic::async_trait]
impl Trim for Costly {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(call) = request.extensions().get::<CallLoad>() {
            call.update(|report| {
                report
                    .request_cost
                    .insert("ms".to_owned(), self.cost as f64);
            });
        }
        if self.fails > 0 && nth.is_multiple_of(self.fails) {
            return Err(Status::data_loss("injected"));
        }
        Ok(Response::new(TrimResponse::default()))
    }
}

/// How a server sends its reports.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reports {
    PerCall,
    OutOfBand,
    None,
}

/// A channel to these servers, whose ports are their costs.
fn channel(servers: &[Costly], reports: Reports, policy: LoadReports) -> Channel {
    let registry = StaticRegistry::new(servers.iter().map(Costly::instance));
    let builder = builder(registry, "trim_service", servers, reports);
    builder.load_reports(policy).build().unwrap()
}

/// The settings of a channel to the service of this name.
fn builder(
    registry: StaticRegistry,
    service: &str,
    servers: &[Costly],
    reports: Reports,
) -> ChannelBuilder {
    let known = Arc::new(Mutex::new(servers.to_vec()));
    let factory = InProcess::per_instance(move |instance: &Instance| {
        let known = known.lock().unwrap();
        let cost = usize::from(instance.port);
        let server = known.iter().find(|server| server.cost == cost).unwrap();
        let trim = TrimServer::new(server.clone());
        match reports {
            Reports::PerCall => Routes::new(server.load.around(trim)),
            // The layer counts the calls, and a client that reads streams ignores trailers.
            Reports::OutOfBand => Routes::new(server.load.around(trim))
                .add_service(server.load.service().with_min_interval(SECOND)),
            Reports::None => Routes::new(trim),
        }
    });
    Channel::from_registry(Arc::new(registry), service)
        .factory(factory)
        .balancer(Policy::WeightedRoundRobin)
        .ejection(EjectionPolicy::default().with_enabled(false))
        .retry_max(1)
}

/// Makes 200 calls a second for this long. Returns the number of those that failed.
async fn load(channel: &Channel, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut client = TrimClient::new(channel.clone());
    let mut failed = 0;
    while Instant::now() < end {
        let next = Instant::now() + Duration::from_millis(5);
        failed += usize::from(client.trim_space(TrimRequest::default()).await.is_err());
        sleep_until(next).await;
    }
    failed
}

/// The calls that each server receives in this time.
async fn counts(channel: &Channel, servers: &[Costly], time: Duration) -> Vec<usize> {
    let before: Vec<_> = servers.iter().map(Costly::calls).collect();
    load(channel, time).await;
    let after = servers.iter().map(Costly::calls);
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn instances_of_cost_1_2_and_4_are_used_to_the_same_part() {
    for (reports, policy) in [
        (Reports::PerCall, LoadReports::default()),
        (
            Reports::OutOfBand,
            LoadReports::default().with_out_of_band(SECOND),
        ),
    ] {
        let servers = [1, 2, 4].map(Costly::new);
        let measuring = servers.clone().map(|server| tokio::spawn(server.measure()));
        let channel = channel(&servers, reports, policy.with_blackout(3 * SECOND));
        channel.wait_for(|status| status.ready == 3).await.unwrap();
        // Equal weights at first: the utilizations are as the costs.
        let first = counts(&channel, &servers, 2 * SECOND).await;
        assert!(
            first.iter().all(|calls| (130..137).contains(calls)),
            "{first:?}"
        );

        assert_eq!(load(&channel, 10 * SECOND).await, 0);
        let calls = counts(&channel, &servers, 10 * SECOND).await;
        let used = servers.iter().zip(&calls).map(|(s, calls)| s.cost * calls);
        let used: Vec<usize> = used.collect();
        let (least, most) = (used.iter().min().unwrap(), used.iter().max().unwrap());
        assert!(
            *most as f64 / *least as f64 <= 1.05,
            "{reports:?}: utilizations {used:?} by calls {calls:?}"
        );
        for endpoint in channel.snapshot().endpoints {
            let full = endpoint.reported_weight.unwrap() * f64::from(endpoint.instance.port);
            assert!((full - 1_000.0).abs() < 50.0, "{reports:?}: {full}");
        }
        for task in measuring {
            task.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn servers_without_reports_keep_the_weights_of_the_registry() {
    for policy in [
        LoadReports::default(),
        LoadReports::default().with_out_of_band(SECOND),
    ] {
        let servers = [1, 2].map(Costly::new);
        let channel = channel(
            &servers,
            Reports::None,
            policy.with_blackout(Duration::ZERO),
        );
        channel.wait_for(|status| status.ready == 2).await.unwrap();
        let calls = counts(&channel, &servers, 3 * SECOND).await;
        assert_eq!(calls[0], calls[1]);
        let endpoints = channel.snapshot().endpoints;
        assert!(endpoints.iter().all(|e| e.reported_weight.is_none()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_calls_fail_receives_fewer() {
    for (penalty, expected) in [(0.0, 0.333), (0.1, 0.25)] {
        let mut servers = [1, 2].map(Costly::new);
        servers[1].fails = 2;
        let measuring = servers.clone().map(|server| tokio::spawn(server.measure()));
        let policy = LoadReports::default()
            .with_blackout(SECOND)
            .with_error_penalty(penalty);
        let channel = channel(&servers, Reports::PerCall, policy);
        channel.wait_for(|status| status.ready == 2).await.unwrap();
        load(&channel, 20 * SECOND).await;
        let calls = counts(&channel, &servers, 10 * SECOND).await;
        // Of 200 calls a second, x go to the faulty one: 1 000 to x / (0.002 x + penalty / 2) as
        // 200 - x to x.
        let share = calls[1] as f64 / 2_000.0;
        assert!((share - expected).abs() < 0.02, "{penalty}: {calls:?}");
        for task in measuring {
            task.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_metrics_show_the_weights_and_how_many_instances_have_none() {
    const FALLBACK: &str = "grpc_lb_wrr_rr_fallback_total";
    const WEIGHTS: &str = "grpc_lb_wrr_endpoint_weights";
    let service = "weights";
    let servers = [1, 2, 4].map(Costly::new);
    let measuring = servers.clone().map(|server| tokio::spawn(server.measure()));
    let registry = StaticRegistry::new(servers.iter().map(Costly::instance));
    let policy = LoadReports::default()
        .with_blackout(3 * SECOND)
        .with_expiration(20 * SECOND);
    let channel = builder(registry, service, &servers, Reports::PerCall)
        .load_reports(policy)
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 3).await.unwrap();
    let counts = || {
        ["not_yet_usable", "stale"].map(|state| {
            count(
                service,
                &format!("grpc_lb_wrr_endpoint_weight_{state}_total"),
                &[],
            )
        })
    };
    let recorded = || {
        let sum = value(service, &format!("{WEIGHTS}_sum"), &[]);
        (sum, count(service, &format!("{WEIGHTS}_count"), &[]))
    };
    // Connected, and nothing reported.
    let [unusable, _] = counts();
    assert!(unusable >= 3 && count(service, FALLBACK, &[]) >= 1);
    assert_eq!(recorded(), (0.0, unusable));

    load(&channel, 10 * SECOND).await;
    let (before, fallbacks, earlier) = (counts(), count(service, FALLBACK, &[]), recorded());
    load(&channel, 10 * SECOND).await;
    assert_eq!(
        (counts(), count(service, FALLBACK, &[])),
        (before, fallbacks)
    );
    assert_eq!(before[1], 0);
    let (sum, number) = recorded();
    let mean = (sum - earlier.0) / (number - earlier.1) as f64;
    // Of 1 000, 500 and 250.
    assert!((mean - 583.3).abs() < 30.0, "{mean}");
    assert!(number - earlier.1 >= 3 * 9, "one per endpoint and second");

    sleep(21 * SECOND).await;
    let stale = counts()[1];
    sleep(5 * SECOND).await;
    assert!(counts()[1] > stale, "counted at each update");
    assert_eq!(counts()[1] % 3, 0);
    assert!(count(service, FALLBACK, &[]) > fallbacks);
    for task in measuring {
        task.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn the_metrics_count_instances_in_slow_start_while_they_warm_up() {
    let service = "slow_start";
    let servers = [1, 2, 4].map(Costly::new);
    let instances = |count: usize| servers.iter().take(count).map(Costly::instance);
    let registry = StaticRegistry::new(instances(2));
    let channel = builder(registry.clone(), service, &servers, Reports::PerCall)
        .warm_up(WarmUp::over(2 * SECOND))
        .build()
        .unwrap();
    let counted = || count(service, "grpc_lb_wrr_endpoints_in_slow_start_total", &[]);
    channel.wait_for(|status| status.ready == 2).await.unwrap();
    load(&channel, SECOND).await;
    assert_eq!(counted(), 0, "the first set does not warm up");
    registry.set(instances(3));
    channel.wait_for(|status| status.ready == 3).await.unwrap();
    load(&channel, 3 * SECOND).await;
    let total = counted();
    assert!(total >= 2, "{total}");
    load(&channel, 3 * SECOND).await;
    assert_eq!(counted(), total);
}

#[tokio::test(start_paused = true)]
async fn a_caller_reads_the_costs_of_its_call() {
    let servers = [Costly::new(7)];
    let channel = channel(&servers, Reports::PerCall, LoadReports::default());
    let mut client = TrimClient::new(channel);
    let response = client.trim_space(TrimRequest::default()).await.unwrap();
    let metadata = response.metadata().clone().into_headers();
    let report = LoadReport::from_trailers(&metadata).unwrap().unwrap();
    let costs: Vec<_> = report.request_cost.into_iter().collect();
    assert_eq!(costs, [("ms".to_owned(), 7.0)]);
}

#[cfg(feature = "service-config")]
#[tokio::test(start_paused = true)]
async fn a_service_config_sets_load_reports_as_grpc_writes_them() {
    use discovery::config::ServiceConfig;

    let seconds = Duration::from_secs;
    for (fields, expected) in [
        ("", LoadReports::default().with_blackout(seconds(1))),
        (
            r#""enableOobLoadReport": true"#,
            LoadReports::default().with_out_of_band(seconds(10)),
        ),
        (
            r#""enableOobLoadReport": true, "oobReportingPeriod": "5s", "blackoutPeriod": "2s",
            "weightExpirationPeriod": "60s", "weightUpdatePeriod": "0.01s", "errorUtilizationPenalty": 0.5"#,
            LoadReports::default()
                .with_out_of_band(seconds(5))
                .with_blackout(seconds(2))
                .with_expiration(seconds(60))
                .with_update_period(LoadReports::MIN_UPDATE_PERIOD)
                .with_error_penalty(0.5),
        ),
    ] {
        let json =
            format!(r#"{{"loadBalancingConfig": [{{"weighted_round_robin": {{{fields}}}}}]}}"#);
        let config = ServiceConfig::parse(&json).unwrap();
        assert_eq!(config.warnings(), []);
        // Settings of the builder count where the config has none.
        let builders = LoadReports::default().with_blackout(seconds(1));
        let channel = channel(&[Costly::new(1)], Reports::None, builders);
        channel.set_service_config(config).unwrap();
        assert_eq!(channel.snapshot().policy.load_reports, expected);
        let printed = channel.effective_config();
        channel
            .set_service_config(ServiceConfig::default())
            .unwrap();
        assert_eq!(channel.snapshot().policy.load_reports, builders);
        channel
            .set_service_config(ServiceConfig::parse(&printed).unwrap())
            .unwrap();
        assert_eq!(channel.snapshot().policy.load_reports, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_reports_does_not_keep_the_connection_of_a_removed_instance() {
    let server = Costly::new(1);
    let routes = Routes::new(server.load.around(TrimServer::new(server.clone())))
        .add_service(server.load.service());
    let alive = Arc::new(());
    let guard = Arc::clone(&alive);
    let factory = InProcess::per_instance(move |_| {
        let guard = Arc::clone(&guard);
        let routes = routes.clone();
        tower::service_fn(move |request| {
            let (_guard, mut routes) = (Arc::clone(&guard), routes.clone());
            async move { tower_service_call(&mut routes, request).await }
        })
    });
    let registry = StaticRegistry::new([Instance::new("127.0.0.1", 1).unwrap()]);
    let channel = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(factory)
        .balancer(Policy::WeightedRoundRobin)
        .load_reports(LoadReports::default().with_out_of_band(SECOND))
        .build()
        .unwrap();
    channel.wait_for(|status| status.ready == 1).await.unwrap();
    load(&channel, SECOND).await;
    // The factory's own, the connection's.
    assert!(
        Arc::strong_count(&alive) >= 3,
        "{}",
        Arc::strong_count(&alive)
    );
    registry.set([]);
    support::eventually(|| Arc::strong_count(&alive) == 2).await;
}

/// Calls a service that is always ready.
async fn tower_service_call<S, R>(service: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: tower::Service<R>,
{
    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
    service.call(request).await
}
