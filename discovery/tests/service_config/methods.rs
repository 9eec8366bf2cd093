//! Policy by method: timeouts, retries, hedging, throttling, waiting for ready, message sizes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_methods_timeout_ends_its_calls_and_the_earlier_of_all_limits_holds() {
    let memory = Memory::with_servers(1);
    memory.servers()[0].behave(|_| pending());
    for (builders, callers, expected) in [
        (None, None, 300),
        (Some(200), None, 200),
        (Some(400), None, 300),
        (None, Some(100), 100),
        (None, Some(900), 300),
    ] {
        let mut builder = builder(&memory).service_config(method(r#""timeout": "0.3s""#));
        if let Some(limit) = builders {
            builder = builder.retry_timeout(limit * MS);
        }
        let (_, mut client) = built(builder).await;
        let mut request = Request::new(TrimRequest::default());
        if let Some(limit) = callers {
            request.extensions_mut().insert(Deadline::after(limit * MS));
        }
        let begun = Instant::now();
        let error = client.trim_space(request).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        let waited = begun.elapsed();
        let expected = expected * MS;
        assert!(
            waited >= expected && waited < expected + 5 * MS,
            "{waited:?}, {expected:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_policy_retries_its_codes_with_its_attempts_and_backoffs() {
    let memory = Memory::with_servers(5);
    let times = failing(&memory, Code::ResourceExhausted);
    let config = method(&retry(4, "[\"unavailable\", 8]"));
    let (_, mut client) = built(builder(&memory).service_config(config)).await;
    let error = call(&mut client).await.unwrap_err();
    let report = CallError::of(&error).unwrap();
    assert_eq!(report.kind, CallErrorKind::AttemptsExhausted);
    assert_eq!(report.attempts.len(), 4);
    let times = std::mem::take(&mut *times.lock().unwrap());
    for (pair, backoff) in times.windows(2).zip([100, 200, 400]) {
        let waited = (pair[1] - pair[0]).as_millis();
        let (least, most) = (backoff * 8 / 10, backoff * 12 / 10 + 5);
        assert!(
            (least..=most).contains(&waited),
            "{waited} ms, not about {backoff}"
        );
    }
    failing(&memory, Code::Aborted);
    let before = calls(&memory);
    assert_eq!(call(&mut client).await.unwrap_err().code(), Code::Aborted);
    assert_eq!(calls(&memory) - before, 1, "ABORTED is not in the list");
}

#[tokio::test(start_paused = true)]
async fn the_builders_maximum_of_attempts_limits_that_of_the_config() {
    let memory = Memory::with_servers(5);
    failing(&memory, Code::Unavailable);
    let config = method(&retry(5, "[14]"));
    let (_, mut client) = built(builder(&memory).retry_max(2).service_config(config)).await;
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hedging_policy_begins_an_attempt_after_each_delay_and_the_first_answer_wins() {
    let memory = Memory::with_servers(4);
    let begun = Instant::now();
    for server in memory.servers() {
        // Whatever begins later than 40 ms answers at 70 ms.
        server.behave(move |_| async move {
            if begun.elapsed() < 45 * MS {
                return pending().await;
            }
            sleep(20 * MS).await;
            Ok(())
        });
    }
    let policy =
        r#""timeout": "10s", "hedgingPolicy": {"maxAttempts": 4, "hedgingDelay": "0.02s"}"#;
    let (_, mut client) = built(builder(&memory).service_config(method(policy))).await;
    let connected = begun.elapsed();
    let begun = Instant::now();
    call(&mut client).await.unwrap();
    let waited = begun.elapsed();
    assert!(waited < 90 * MS, "{waited:?} after {connected:?}");
    assert!((3..=4).contains(&calls(&memory)), "{}", calls(&memory));
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_ends_with_a_fatal_status_and_outlives_others() {
    let memory = Memory::with_servers(3);
    let policy = r#""timeout": "10s", "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "5s",
        "nonFatalStatusCodes": ["UNAVAILABLE"]}"#;
    let (_, mut client) = built(builder(&memory).service_config(method(policy))).await;
    failing(&memory, Code::Unavailable);
    let begun = Instant::now();
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory), 3, "each failure begins the next attempt");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    failing(&memory, Code::PermissionDenied);
    assert_eq!(
        call(&mut client).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(calls(&memory), 4);
}

#[tokio::test(start_paused = true)]
async fn retry_throttling_stops_retries_at_half_of_its_tokens() {
    let memory = Memory::with_servers(3);
    failing(&memory, Code::Unavailable);
    let json = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], {}}}],
        "retryThrottling": {{"maxTokens": 10, "tokenRatio": 0.5}}}}"#,
        retry(2, "[14]")
    );
    let (_, mut client) = built(builder(&memory).service_config(config(&json))).await;
    for _ in 0..20 {
        call(&mut client).await.unwrap_err();
    }
    // Each failed attempt takes a token: two calls take four, and the third has no retry.
    assert_eq!(calls(&memory), 22);
    memory.servers().iter().for_each(MemoryServer::recover);
    for _ in 0..12 {
        call(&mut client).await.unwrap();
    }
    failing(&memory, Code::Unavailable);
    let before = calls(&memory);
    call(&mut client).await.unwrap_err();
    assert_eq!(
        calls(&memory) - before,
        1,
        "5 of 6 tokens are left, which is half"
    );
    for server in memory.servers() {
        server.recover();
    }
    for _ in 0..4 {
        call(&mut client).await.unwrap();
    }
    failing(&memory, Code::Unavailable);
    let before = calls(&memory);
    call(&mut client).await.unwrap_err();
    assert_eq!(calls(&memory) - before, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_is_answered_by_the_first_instance_that_appears() {
    let memory = Memory::with_servers(1);
    let registry = StaticRegistry::new([]);
    let builder = |wait: bool| {
        let json = format!(r#""timeout": "60s", "waitForReady": {wait}"#);
        Channel::from_registry(Arc::new(registry.clone()), "trim_service")
            .factory(memory.clone())
            .service_config(method(&json))
    };
    let mut hasty = TrimClient::new(builder(false).build().unwrap());
    let error = call(&mut hasty).await.unwrap_err();
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::NoInstances
    );

    let mut patient = TrimClient::new(builder(true).build().unwrap());
    let begun = Instant::now();
    let error = call(&mut patient).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(
        error
            .message()
            .contains("waited 60s (retry_timeout) for an instance: no instance")
    );

    let waiting = tokio::spawn(async move { call(&mut patient).await });
    sleep(20_000 * MS).await;
    assert!(!waiting.is_finished());
    registry.set(memory.servers().iter().map(MemoryServer::instance));
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_above_its_limit_ends_the_call_without_a_retry() {
    let memory = Memory::with_servers(2);
    let limits = |request: usize, response: usize| {
        let limits = format!(
            r#""maxRequestMessageBytes": {request}, "maxResponseMessageBytes": {response}"#
        );
        method(&format!("{limits}, {}", retry(3, "[14, 8]")))
    };
    let (channel, mut client) = built(builder(&memory).service_config(limits(3, 0))).await;
    call(&mut client).await.unwrap();
    let long = TrimRequest { s: "four".into() };
    let error = client.trim_space(long.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error
            .message()
            .contains("a message of 6 bytes is longer than the 3 bytes"),
        "{error}"
    );
    assert_eq!(
        CallError::of(&error).unwrap().kind,
        CallErrorKind::MessageTooLong
    );
    assert_eq!(calls(&memory), 1, "it was not sent");
    channel.set_service_config(limits(6, 0)).unwrap();
    client.trim_space(long).await.unwrap();
}

/// Over sockets: the servers in memory have empty answers only.
#[tokio::test]
async fn an_answer_above_its_limit_is_not_asked_for_elsewhere_and_ejects_nobody() {
    let servers = support::TrimServer::start_many(2).await;
    let ejection = EjectionPolicy::default().with_consecutive_transport(1);
    let limit = r#""maxResponseMessageBytes": 4, "discovery": {"idempotent": true}"#;
    let builder = Channel::from_registry(Arc::new(support::fixed(&servers)), "trim_service")
        .ejection(ejection)
        .service_config(method(limit));
    let (channel, mut client) = built(builder).await;
    for _ in 0..6 {
        client
            .trim_space(TrimRequest { s: "ab".into() })
            .await
            .unwrap();
        let long = TrimRequest { s: "a b c".into() };
        let error = client.trim_space(long).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        let message = error.message();
        assert!(
            message.contains("a message of 5 bytes is longer than the 4 bytes"),
            "{error}"
        );
    }
    assert_eq!(
        servers
            .iter()
            .map(support::TrimServer::calls)
            .sum::<usize>(),
        12
    );
    assert!(channel.endpoints().iter().all(|endpoint| !endpoint.ejected));
}
