//! The balancer.

use super::*;

fn balancing(list: &str) -> String {
    format!("{{\"loadBalancingConfig\": {list}}}")
}

#[test]
fn a_bad_balancer_is_refused_and_an_unknown_one_is_passed_over() {
    let outliers = |fields: &str| {
        let child = "\"childPolicy\": [{\"round_robin\": {}}]";
        balancing(&format!(
            "[{{\"outlier_detection_experimental\": {{{child}{fields}}}}}]"
        ))
    };
    for (json, reason) in [
        (balancing("[]"), "expected one of round_robin"),
        (
            balancing("[{\"grpclb\": {}}]"),
            "no policy in the list is known",
        ),
        (
            balancing("[{\"pick_first\": {}}]"),
            "no policy in the list is known",
        ),
        (
            balancing("[{\"a\": {}, \"round_robin\": {}}]"),
            "expected an object with one field",
        ),
        (balancing("[{}]"), "expected an object with one field"),
        (balancing("[{\"round_robin\": 1}]"), "expected an object"),
        (
            balancing("[{\"random_subsetting\": {\"subsetSize\": 3}}]"),
            "childPolicy is required",
        ),
        (
            balancing(
                "[{\"random_subsetting\": {\"subsetSize\": 0, \"childPolicy\": [{\"round_robin\": {}}]}}]",
            ),
            "subsetSize is 0: expected a whole number from 1",
        ),
        (
            balancing("[{\"least_request_experimental\": {\"choiceCount\": 1}}]"),
            "choiceCount is 1",
        ),
        (
            balancing("[{\"ring_hash_experimental\": {\"minRingSize\": 9, \"maxRingSize\": 8}}]"),
            "minRingSize must be at most maxRingSize",
        ),
        (
            balancing("[{\"weighted_round_robin\": {\"errorUtilizationPenalty\": -1}}]"),
            "errorUtilizationPenalty is -1: must be a number of at least zero",
        ),
        (
            balancing("[{\"weighted_round_robin\": {\"oobReportingPeriod\": \"0s\"}}]"),
            "oobReportingPeriod is \"0s\": must be greater than zero",
        ),
        (
            balancing(
                "[{\"weighted_round_robin\": {\"slowStartConfig\": {\"minWeightPercent\": 101}}}]",
            ),
            "minWeightPercent is 101: expected a whole number from 0 to 100",
        ),
        (
            outliers(", \"interval\": \"0s\""),
            "interval is \"0s\": must be greater than zero",
        ),
        (
            outliers(", \"interval\": \"0.001s\""),
            "must be at least \"0.01s\"",
        ),
        (outliers(", \"maxEjectionPercent\": 101"), "from 0 to 100"),
        (
            outliers(", \"failurePercentageEjection\": {\"threshold\": -1}"),
            "from 0 to 100",
        ),
    ] {
        let error = refused(&json);
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    }
    let nested = (0..9).fold("[{\"round_robin\": {}}]".to_owned(), |child, _| {
        format!("[{{\"random_subsetting\": {{\"subsetSize\": 2, \"childPolicy\": {child}}}}}]")
    });
    assert!(refused(&balancing(&nested)).contains("nested more than 8 deep"));
    let list = balancing("[{\"grpclb\": {}}, {\"peak_ewma\": {}}, {\"random\": {}}]");
    let config = ServiceConfig::parse(&list).unwrap();
    assert_eq!(
        config.balancing.balancer,
        Some(crate::balance::Policy::PeakEwma)
    );
    assert_eq!(config.warnings().len(), 1);
}
