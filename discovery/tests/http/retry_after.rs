//! `Retry-After`: an instance that asks for no requests gets none for that time. In memory, on a paused
//! clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use discovery::{balance::Policy, http::Rules};
use tokio::time::{Instant, sleep};

use crate::{
    answer, ejected, get,
    memory::{Memory, connected, respond},
    post,
};

/// Servers of which the first answers with this status and `Retry-After` while the flag is set.
fn busy_first(count: u16, status: u16, time: &'static str) -> (Memory, Arc<AtomicBool>) {
    let busy = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&busy);
    let memory = Memory::new(count, move |seen| {
        let is_busy = seen.port == 1 && flag.load(Ordering::SeqCst);
        async move {
            if is_busy {
                respond(status, &[("retry-after", time)], "busy")
            } else {
                respond(200, &[], "ok")
            }
        }
    });
    (memory, busy)
}

fn calls_of_first(memory: &Memory) -> usize {
    memory.ports().iter().filter(|port| **port == 1).count()
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_asks_for_five_seconds_gets_no_request_for_five_seconds() {
    for status in [429, 503] {
        let (memory, busy) = busy_first(3, status, "5");
        let channel = memory.channel().await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(4_900) {
            assert_eq!(answer(&channel, get("/orders")).await.0, 200);
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(calls_of_first(&memory), 1, "{status}");
        busy.store(false, Ordering::SeqCst);
        while begun.elapsed() < Duration::from_secs(6) {
            assert_eq!(answer(&channel, get("/orders")).await.0, 200);
            sleep(Duration::from_millis(20)).await;
        }
        assert!(calls_of_first(&memory) > 5, "{status}");
        assert_eq!(ejected(&channel), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_an_instance_that_is_left_out_are_shared_by_the_others() {
    for policy in [Policy::RoundRobin, Policy::LeastRequest, Policy::Random] {
        let (memory, _) = busy_first(4, 503, "60");
        let rules = Rules::new().with_max_retry_after(Duration::from_secs(60));
        let channel = connected(memory.builder().balancer(policy).rules(rules)).await;
        for _ in 0..600 {
            assert_eq!(answer(&channel, get("/orders")).await.0, 200);
        }
        for port in 2..=4 {
            let calls = memory.ports().iter().filter(|one| **one == port).count();
            assert!(
                (150..=250).contains(&calls),
                "{policy:?}: {port} had {calls}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_post_goes_elsewhere_and_an_unavailable_one_is_the_callers() {
    let (memory, _) = busy_first(3, 429, "5");
    let channel = memory.channel().await;
    for _ in 0..6 {
        assert_eq!(answer(&channel, post("/orders")).await.0, 200);
    }
    assert_eq!(calls_of_first(&memory), 1);
    let (memory, _) = busy_first(3, 503, "5");
    let channel = memory.channel().await;
    let mut refused = 0;
    for _ in 0..6 {
        refused += usize::from(answer(&channel, post("/orders")).await.0 == 503);
    }
    assert_eq!((refused, calls_of_first(&memory)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_an_hour_is_left_out_for_the_operators_bound() {
    let (memory, _) = busy_first(2, 503, "3600");
    let rules = Rules::new().with_max_retry_after(Duration::from_secs(2));
    let channel = connected(memory.builder().rules(rules)).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert_eq!(answer(&channel, get("/orders")).await.0, 200);
        sleep(Duration::from_millis(20)).await;
    }
    let calls = calls_of_first(&memory);
    assert!((4..=5).contains(&calls), "{calls}");
}

#[tokio::test(start_paused = true)]
async fn a_date_is_respected_as_seconds_are() {
    let date = std::time::SystemTime::now() + Duration::from_secs(20);
    let date: &'static str = httpdate::fmt_http_date(date).leak();
    let (memory, _) = busy_first(2, 503, date);
    let channel = memory.channel().await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        assert_eq!(answer(&channel, get("/orders")).await.0, 200);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(calls_of_first(&memory), 1);
}

#[tokio::test(start_paused = true)]
async fn the_only_instance_is_not_asked_again_by_the_same_call_and_its_answer_is_the_callers() {
    let (memory, busy) = busy_first(1, 503, "5");
    let channel = memory.channel().await;
    let (status, text) = answer(&channel, get("/orders")).await;
    assert_eq!((status, text.as_str()), (503, "busy"));
    assert_eq!(memory.seen().len(), 1);
    // Another call has nowhere else to go.
    busy.store(false, Ordering::SeqCst);
    assert_eq!(answer(&channel, get("/orders")).await.0, 200);
}
