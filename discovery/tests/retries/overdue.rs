//! Attempts without an answer in time, and attempts side by side.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hung_instance_costs_an_attempt_and_not_the_call() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .attempt_timeout(Duration::from_millis(50))
        .idempotent([TRIM]);
    let mut client = built(builder).await;
    the_second_answers_six_calls(servers, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn an_overdue_attempt_may_still_answer() {
    for count in [1, 3] {
        let memory = Memory::with_servers(count);
        let servers = memory.servers();
        for server in servers {
            server.behave(|_| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            });
        }
        let mut client = built(untimed(&memory).idempotent([TRIM])).await;
        for nth in 1..=30 {
            let begun = Instant::now();
            call(&mut client).await.unwrap();
            assert_eq!(begun.elapsed().as_millis(), 301);
            let calls: usize = servers.iter().map(MemoryServer::calls).sum();
            // Overdue attempts are followed by others elsewhere, as far as the budget allows.
            let others = usize::from(count > 1) * nth.min(20);
            assert!(calls <= nth + others, "{calls} for {nth}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_overdue_attempt_is_cancelled_when_another_has_answered() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    let under_way = Arc::new(());
    let held = Arc::clone(&under_way);
    servers[0].behave(move |_| {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    let mut client = built(untimed(&memory).idempotent([TRIM])).await;
    for _ in 0..2 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(servers[0].calls(), 1);
    // One clone is in the behaviour itself.
    assert_eq!(Arc::strong_count(&under_way), 2);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_beside_an_overdue_one_is_followed_at_once() {
    let memory = Memory::with_servers(3);
    let servers = memory.servers();
    let builder = channel(&memory)
        .attempt_timeout(Duration::from_millis(50))
        .idempotent([TRIM]);
    let mut client = built(builder).await;
    // The order of the rotation.
    let mut order = Vec::new();
    for _ in 0..3 {
        let response = call(&mut client).await.unwrap();
        let served = response.extensions().get::<ServedBy>().unwrap();
        order.push(usize::from(served.0.port) - 1);
    }
    servers[order[0]].behave(|_| pending());
    // Whichever of the others is called first fails once.
    let failed = Arc::new(AtomicBool::new(false));
    for other in &order[1..] {
        let failed = Arc::clone(&failed);
        servers[*other].behave(move |_| {
            let fails = !failed.swap(true, Ordering::SeqCst);
            async move {
                if fails {
                    return Err(Status::unavailable("overloaded"));
                }
                Ok(())
            }
        });
    }
    let begun = Instant::now();
    let response = call(&mut client).await.unwrap();
    let served = response.extensions().get::<ServedBy>().unwrap();
    assert_ne!(served.0.id, servers[order[0]].instance().id);
    let elapsed = begun.elapsed().as_millis();
    assert!((52..=80).contains(&elapsed), "{elapsed}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_overtaken_by_a_second_attempt() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    servers[0].behave(|_| pending());
    let builder = channel(&memory)
        .attempt_timeout(LONG)
        .idempotent([TRIM])
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    the_second_answers_six_calls(servers, &mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_not_retried_ends_a_hedged_call() {
    let memory = Memory::with_servers(2);
    let servers = memory.servers();
    // The second call hangs. The first has a definite answer once both are in flight.
    let out = Arc::new(tokio::sync::Semaphore::new(0));
    let first = Arc::new(AtomicBool::new(true));
    for server in servers {
        let (out, first) = (Arc::clone(&out), Arc::clone(&first));
        server.behave(move |_| {
            let (out, first) = (Arc::clone(&out), Arc::clone(&first));
            async move {
                if first.swap(false, Ordering::SeqCst) {
                    let _both_are_out = out.acquire().await;
                    return Err(Status::not_found("no such text"));
                }
                out.add_permits(1);
                pending().await
            }
        });
    }
    let builder = channel(&memory)
        .idempotent([TRIM])
        .attempt_timeout(LONG)
        .hedge(Hedge::After(Duration::from_millis(20)));
    let mut client = built(builder).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), call(&mut client)).await;
    let status = answer
        .expect("the call waited for the instance that hangs")
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(status.message(), "no such text");
}
