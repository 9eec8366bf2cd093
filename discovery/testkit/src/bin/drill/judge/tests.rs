use super::*;

const ALL_READY: &str = "discovery_endpoints{state=\"ready\"} 2\n";

fn call(result: Result<&str, &str>) -> Call {
    Call {
        due: Duration::from_secs(1),
        latency: Duration::from_millis(2),
        result: result.map(str::to_owned).map_err(str::to_owned),
    }
}

fn sight(at: u64, metrics: &str) -> Sight {
    Sight {
        at: Duration::from_millis(at),
        metrics: Metrics::parse(metrics).unwrap(),
    }
}

fn complaints(demand: Demand, calls: &[Call], story: &Story, seen: &[Sight]) -> Vec<String> {
    let before = Metrics::parse(ALL_READY).unwrap();
    let evidence = Evidence {
        calls,
        story,
        before: &before,
        seen,
        poll: Duration::ZERO,
    };
    evidence.judge(demand).complaints
}

fn even() -> Vec<Call> {
    vec![call(Ok("one,two")); 100]
}

#[test]
fn a_rotation_that_prefers_an_instance_is_uneven() {
    assert_eq!(uneven(&even()), None);
    assert_eq!(uneven(&[]), None);
    let mut calls = even();
    // One retry moves one call.
    calls.push(call(Ok("one,one")));
    assert_eq!(uneven(&calls), None);
    calls.push(call(Ok("one,one")));
    assert_eq!(
        uneven(&calls).unwrap(),
        "the rotation is uneven: {\"one\": 104, \"two\": 100}"
    );
}

#[test]
fn connections_that_end_in_order_do_not_count_against_an_instance() {
    let story = Story {
        renewed: Some(4),
        ..Story::default()
    };
    let check = |story: &Story, metrics: &str| {
        let seen = [sight(10, ALL_READY), sight(30, metrics)];
        complaints(Demand::EvenRotation, &even(), story, &seen)
    };
    let unprocessed = "discovery_attempts_total{outcome=\"unprocessed\"} 3\n";
    assert_eq!(check(&story, unprocessed), [""; 0]);
    for (metrics, expected) in [
        (
            "discovery_attempts_total{outcome=\"broken\"} 3\n",
            "3 attempts counted against an instance",
        ),
        (
            "discovery_endpoints{state=\"down\"} 1\n",
            "an instance was down 30ms after the start",
        ),
        (
            "discovery_endpoints{state=\"ejected\"} 1\n",
            "an instance was ejected 30ms after the start",
        ),
    ] {
        assert_eq!(check(&story, metrics), [expected]);
    }
    // A short row on a busy machine, which stopped an instance.
    let late = "discovery_attempts_total{outcome=\"timeout\"} 9\n\
        discovery_endpoints{state=\"ejected\"} 1\n";
    assert_eq!(check(&story, late), [""; 0]);
    let none_ended = Story {
        renewed: Some(0),
        ..Story::default()
    };
    assert_eq!(
        check(&none_ended, ALL_READY),
        ["no call received the fault"]
    );
}

#[test]
fn a_call_with_a_short_deadline_ends_with_504_and_ejects_no_instance() {
    let check = |short_deadline: Vec<Call>, metrics: &str| {
        let story = Story {
            short_deadline,
            ..Story::default()
        };
        complaints(Demand::NoEjection, &even(), &story, &[sight(30, metrics)])
    };
    let exceeded = call(Err("504: {\"err\":\"deadline\"}"));
    // Its attempts are unanswered ones.
    let unanswered = "discovery_attempts_total{outcome=\"timeout\"} 2\n";
    assert_eq!(check(vec![exceeded.clone()], unanswered), [""; 0]);
    let unavailable = call(Err("503: {}"));
    assert_eq!(
        check(vec![exceeded.clone(), unavailable], ALL_READY),
        ["a call with a short deadline ended with Err(\"503: {}\")"]
    );
    assert_eq!(
        check(vec![call(Ok("one,two"))], ALL_READY),
        ["a call with a short deadline ended with Ok(\"one,two\")"]
    );
    assert_eq!(
        check(Vec::new(), ALL_READY),
        ["no call had a short deadline"]
    );
    assert_eq!(
        check(vec![exceeded], "discovery_endpoints{state=\"ejected\"} 1\n"),
        ["an instance was ejected 30ms after the start"]
    );
}

#[test]
fn a_useless_instance_has_to_be_ejected() {
    let story = Story {
        faulty: vec!["three".to_owned()],
        joins: true,
        counted: Some(5),
        ..Story::default()
    };
    let joined = "discovery_endpoints{state=\"ready\"} 3\n";
    let ejected = "discovery_endpoints{state=\"ready\"} 2\n\
        discovery_endpoints{state=\"ejected\"} 1\n";
    let check = |seen: &[Sight]| complaints(Demand::Ejection, &even(), &story, seen);
    assert_eq!(check(&[sight(30, joined), sight(50, ejected)]), [""; 0]);
    // It was ready for a shorter time than there is between two looks.
    assert_eq!(check(&[sight(30, ALL_READY), sight(50, ejected)]), [""; 0]);
    for kept in [joined, ALL_READY] {
        let seen = [sight(30, kept), sight(50, kept)];
        assert_eq!(check(&seen), ["the faulty instance was never ejected"]);
    }
}

#[test]
fn retries_must_not_multiply_the_calls_of_failing_instances() {
    let story = Story {
        ended: Some(Duration::from_secs(2)),
        ..Story::default()
    };
    let calls = [call(Err("503: {\"err\":\"unavailable\"}"))];
    let check = |attempts: u32| {
        let metrics = format!(
            "discovery_calls_total{{outcome=\"failed\"}} 100\n\
            discovery_attempts_total{{outcome=\"status\"}} {attempts}\n"
        );
        complaints(Demand::FewRetries, &calls, &story, &[sight(30, &metrics)])
    };
    assert_eq!(check(120), [""; 0]);
    assert_eq!(check(121), ["121 attempts were made for 100 calls"]);
}

#[test]
fn no_call_may_fail_unless_every_instance_is_dead() {
    let mut calls = even();
    calls.push(call(Err("503: {\"err\":\"none left\"}")));
    let story = Story {
        ended: Some(Duration::from_secs(2)),
        ..Story::default()
    };
    let seen = [sight(30, ALL_READY)];
    assert_eq!(complaints(Demand::None, &calls, &story, &seen).len(), 1);
    assert_eq!(complaints(Demand::Outage, &calls, &story, &seen), [""; 0]);
    calls.push(call(Err("504: {}")));
    assert_eq!(
        complaints(Demand::Outage, &calls, &story, &seen),
        ["not 503 with a reason: 504: {}"]
    );
}
