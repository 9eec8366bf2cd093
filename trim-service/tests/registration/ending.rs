//! The end of the process: signals, the drain, an unreachable Consul.

use super::*;

type Call = JoinHandle<Result<Response<proto::TrimResponse>, Status>>;

/// A call that the service has accepted and not answered yet.
async fn in_flight(channel: &Channel) -> Call {
    let mut client = TrimClient::new(channel.clone());
    let mut health = HealthClient::new(channel.clone());
    let mut call = Box::pin(async move {
        client
            .trim_space(TrimRequest {
                s: " a b ".to_owned(),
            })
            .await
    });
    // Both use one connection, which keeps the order.
    tokio::select! {
        biased;
        answer = &mut call => panic!("answered at once: {answer:?}"),
        answer = health.check(HealthCheckRequest::default()) => { answer.unwrap(); }
    }
    tokio::spawn(call)
}

#[tokio::test]
async fn a_signal_deregisters_and_exits_with_0() {
    let consul = Consul::start().await.unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut service = registered(&consul, &["--drain", "400ms"]).await;
        service.process.signal(signal).unwrap();
        let status = service.process.exit(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(listed(&consul).await.unwrap(), [], "after {signal}");
    }
}

#[tokio::test]
async fn it_is_out_of_consul_before_it_stops_serving() {
    let consul = Consul::start().await.unwrap();
    let mut service = registered(&consul, &["--drain", "8s"]).await;
    let channel = connect(service.grpc).await;
    service.process.signal(Signal::SIGTERM).unwrap();
    let look = async || match listed(&consul).await {
        Ok(found) if found.is_empty() => Ok(()),
        other => Err(other),
    };
    eventually("deregistered", LIMIT, look).await.unwrap();
    // A watcher that sees the change late still calls it, on its connection and on a new one.
    assert_eq!(trim(channel, " a b ").await.unwrap(), "ab");
    assert_eq!(
        trim(connect(service.grpc).await, "c d").await.unwrap(),
        "cd"
    );
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    let consul = Consul::start().await.unwrap();
    let address = consul.address();
    let flags = [
        "--consul",
        &address,
        "--fault",
        "latency=60s",
        "--drain",
        "60s",
    ];
    for (second, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut service = trim_service(&flags).await.unwrap();
        let _call = in_flight(&connect(service.grpc).await).await;
        service.process.signal(Signal::SIGTERM).unwrap();
        service
            .process
            .stderr_line("a second signal exits at once", LIMIT)
            .await
            .unwrap();
        let begun = Instant::now();
        service.process.signal(second).unwrap();
        let status = service.process.exit(LIMIT).await.unwrap();
        assert_eq!(status.code(), Some(code), "{second}");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5), "{second} took {took:?}");
    }
}

#[tokio::test]
async fn an_accepted_call_is_answered_after_the_signal() {
    let consul = Consul::start().await.unwrap();
    let mut service = registered(&consul, &["--fault", "latency=500ms"]).await;
    let call = in_flight(&connect(service.grpc).await).await;
    service.process.signal(Signal::SIGTERM).unwrap();
    let answer = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.s, "ab");
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_is_told_in_the_exit_code() {
    let consul = Consul::start().await.unwrap();
    let mut service = registered(&consul, &["--fault", "latency=60s", "--drain", "200ms"]).await;
    let call = in_flight(&connect(service.grpc).await).await;
    service.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(1));
    assert!(
        service
            .process
            .stderr()
            .contains("--drain gives them more time")
    );
    call.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn kill_9_leaves_it_critical() {
    let consul = Consul::start().await.unwrap();
    let mut service = registered(&consul, &[]).await;
    service.process.signal(Signal::SIGKILL).unwrap();
    service.process.exit(LIMIT).await.unwrap();
    until(&consul, &service, "critical").await;
}

#[tokio::test]
async fn it_ends_with_0_while_consul_is_away() {
    let mut consul = Consul::start().await.unwrap();
    let mut first = registered(&consul, &["--drain", "400ms"]).await;
    consul.kill().await.unwrap();
    first
        .process
        .stderr_line("not registered", LIMIT)
        .await
        .unwrap();
    first.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(first.process.exit(LIMIT).await.unwrap().code(), Some(0));
    assert!(first.process.stderr().contains("not deregistered"));
}

#[tokio::test]
async fn it_ends_with_0_while_consul_hangs() {
    let consul = Consul::start().await.unwrap();
    let mut service = registered(&consul, &["--drain", "400ms"]).await;
    consul.pause().unwrap();
    let begun = Instant::now();
    service.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(service.process.exit(LIMIT).await.unwrap().code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "took {took:?}");
    assert!(service.process.stderr().contains("not deregistered"));
    consul.resume().unwrap();
}
