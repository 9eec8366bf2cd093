//! The time of a call: the caller's deadline, the retry timeout, and streams.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_comes_first_and_attempts_get_what_is_left() {
    let memory = Memory::with_servers(1);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .idempotent([TRIM])
        .attempt_timeout(Duration::from_millis(150));
    let mut request = Request::new(TrimRequest { s: "x".into() });
    request.set_timeout(Duration::from_millis(200));
    let status = built(builder).await.trim_space(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // The header has what is left of the caller's deadline, not the limit of the attempt.
    let sent = servers[0].timeouts();
    let left = |text: &String| {
        let value = text.parse().unwrap();
        let headers = http::HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value)]);
        let deadline = Deadline::from_headers(&headers).unwrap().unwrap();
        deadline.instant() - Instant::now().into_std()
    };
    assert_eq!(sent[0], "200m");
    let rest = Duration::from_millis(50);
    assert!(sent[1..].iter().all(|text| left(text) <= rest), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_of_the_caller_no_deadline_is_sent_and_500_ms_apply() {
    let memory = Memory::with_servers(1);
    let server = &memory.servers()[0];
    server.behave(|_| pending());
    let mut client = built(untimed(&memory)).await;
    let begun = Instant::now();
    let status = call(&mut client).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let expected = "within 500ms (the default of retry_timeout)";
    assert!(status.message().contains(expected), "{status}");
    assert_eq!(begun.elapsed().as_millis(), 500);
    assert_eq!(server.calls(), 1);
    assert!(server.timeouts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_caller_gets_the_time_it_gives() {
    let memory = Memory::with_servers(1);
    let server = &memory.servers()[0];
    server.behave(|_| async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(())
    });
    let call = async |builder: ChannelBuilder, given| {
        let mut request = Request::new(TrimRequest { s: "x".into() });
        request.set_timeout(Duration::from_millis(given));
        let mut client = built(builder).await;
        let begun = Instant::now();
        let answer = client.trim_space(request).await;
        (answer.map(drop), begun.elapsed().as_millis())
    };
    let (answer, _) = call(untimed(&memory), 5_000).await;
    answer.unwrap();
    assert_eq!(server.timeouts(), ["5000m"]);
    let second = Duration::from_secs(1);
    let (answer, _) = call(untimed(&memory).retry_timeout(second), 5_000).await;
    answer.unwrap();
    let capped = untimed(&memory).retry_timeout(second / 2);
    for (builder, given) in [(untimed(&memory), 300), (capped, 5_000)] {
        let (answer, elapsed) = call(builder, given).await;
        assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
        assert_eq!(elapsed, u128::from(given.min(500)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_deadline_is_the_callers_mistake() {
    let memory = Memory::with_servers(1);
    let servers = memory.servers();
    let mut client = built(channel(&memory)).await;
    for value in ["soon", "-1S", "999999999S", ""] {
        let mut request = Request::new(TrimRequest { s: "x".into() });
        let metadata = request.metadata_mut();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        let status = client.trim_space(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{value:?}");
    }
    assert_eq!(servers[0].calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_answers_outlives_the_retry_timeout() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    let builder = channel(&memory).retry_timeout(Duration::from_millis(300));
    let channel = builder.build().unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest::default();
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert_eq!(updates.message().await.unwrap().unwrap().status, 1);
    let next = tokio::time::timeout(Duration::from_millis(600), updates.message()).await;
    assert!(next.is_err(), "the stream ended: {next:?}");
}

#[cfg(feature = "descriptors")]
#[tokio::test(start_paused = true)]
async fn a_declared_stream_has_no_limit_for_its_first_message() {
    use tonic_health::pb::{FILE_DESCRIPTOR_SET, HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    for (builder, waits) in [
        (untimed(&memory), false),
        (
            untimed(&memory).file_descriptor_set(FILE_DESCRIPTOR_SET),
            true,
        ),
    ] {
        let channel = builder.build().unwrap();
        channel.ready().await;
        memory.servers()[0].fall_silent();
        let mut client = HealthClient::new(channel);
        let updates = client.watch(HealthCheckRequest::default());
        let waited = tokio::time::timeout(LONG, updates).await;
        assert_eq!(waited.is_err(), waits, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_holds_for_the_whole_stream() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let memory = Memory::with_servers(1);
    let mut client = HealthClient::new(channel(&memory).build().unwrap());
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(300));
    let mut updates = client.watch(request).await.unwrap().into_inner();
    assert!(updates.message().await.unwrap().is_some());
    let status = updates.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
