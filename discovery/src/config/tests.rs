//! What a service config may say, and how a bad one is refused.

use super::*;

fn refused(json: &str) -> String {
    match ServiceConfig::parse(json) {
        Ok(_) => panic!("{json} is accepted"),
        Err(error) => error.to_string(),
    }
}

/// A config with one method that has these fields.
fn method(fields: &str) -> String {
    format!("{{\"methodConfig\": [{{\"name\": [{{\"service\": \"a.S\"}}],\n {fields}}}]}}")
}

fn balancing(list: &str) -> String {
    format!("{{\"loadBalancingConfig\": {list}}}")
}

/// Asserts that each config is refused on its second line, at the field, for the reason.
fn refused_at<const N: usize>(cases: [(String, &str, &str); N]) {
    for (json, field, reason) in cases {
        let error = refused(&json);
        assert!(error.starts_with("line 2, column "), "{error}");
        assert!(error.contains(field), "{error}");
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    }
}

#[test]
fn a_bad_retry_policy_is_refused_with_its_field_and_what_is_allowed() {
    let retry = |fields: &str| {
        let all = [
            ("maxAttempts", "3"),
            ("initialBackoff", "\"0.1s\""),
            ("maxBackoff", "\"1s\""),
            ("backoffMultiplier", "2"),
            ("retryableStatusCodes", "[14]"),
        ];
        let mut text = fields.to_owned();
        for (name, value) in all {
            if !fields.contains(name) {
                text = format!("{text}, \"{name}\": {value}");
            }
        }
        method(&format!(
            "\"retryPolicy\": {{{}}}",
            text.trim_start_matches(", ")
        ))
    };
    assert!(ServiceConfig::parse(&retry("")).is_ok());
    refused_at([
        (
            retry("\"maxAttempts\": 1"),
            "retryPolicy.maxAttempts",
            "from 2 to",
        ),
        (
            retry("\"maxAttempts\": 2.5"),
            "retryPolicy.maxAttempts",
            "is 2.5: expected",
        ),
        (
            retry("\"initialBackoff\": \"0s\""),
            "retryPolicy.initialBackoff",
            "greater than zero",
        ),
        (
            retry("\"maxBackoff\": \"0s\""),
            "retryPolicy.maxBackoff",
            "greater than zero",
        ),
        (
            retry("\"backoffMultiplier\": 0"),
            "retryPolicy.backoffMultiplier",
            "greater than zero",
        ),
        (
            retry("\"retryableStatusCodes\": []"),
            "retryableStatusCodes",
            "at least one",
        ),
        (
            retry("\"retryableStatusCodes\": [17]"),
            "retryableStatusCodes[0]",
            "0 to 16",
        ),
        (
            retry("\"retryableStatusCodes\": [\"BAD\"]"),
            "retryableStatusCodes[0]",
            "is \"BAD\"",
        ),
    ]);
}

#[test]
fn a_bad_method_config_is_refused_with_its_field_and_what_is_allowed() {
    refused_at([
        (
            method("\"timeout\": \"0s\""),
            "timeout",
            "must be greater than zero",
        ),
        (
            method("\"timeout\": 5"),
            "timeout",
            "is 5: expected seconds in quotes",
        ),
        (
            method("\"timeout\": \"-1s\""),
            "timeout",
            "expected seconds",
        ),
        (
            method("\"waitForReady\": \"yes\""),
            "waitForReady",
            "expected true or false",
        ),
        (
            method("\"maxRequestMessageBytes\": -1"),
            "maxRequestMessageBytes",
            "whole number",
        ),
        (
            method("\"maxResponseMessageBytes\": 1.5"),
            "maxResponseMessageBytes",
            "whole number",
        ),
        (
            method("\"retryPolicy\": {}"),
            "retryPolicy",
            "maxAttempts is required",
        ),
        (
            method("\"retryPolicy\": []"),
            "retryPolicy",
            "expected an object",
        ),
        (
            method("\"hedgingPolicy\": {}"),
            "hedgingPolicy",
            "maxAttempts is required",
        ),
        (
            method("\"hedgingPolicy\": {\"maxAttempts\": 1}"),
            "hedgingPolicy.maxAttempts",
            "from 2",
        ),
        (
            method("\"hedgingPolicy\": {\"maxAttempts\": 2}, \"retryPolicy\": {}"),
            "hedgingPolicy",
            "not both",
        ),
        (
            method("\"discovery\": {\"hedge\": \"often\"}"),
            "discovery.hedge",
            "\"off\", \"p95\"",
        ),
        (
            method("\"discovery\": {\"backoffMultiplier\": 0}"),
            "discovery.backoffMultiplier",
            "must be a number greater than zero",
        ),
        (
            method("\"discovery\": {\"maxBackoff\": \"0s\"}"),
            "discovery.maxBackoff",
            "must be greater than zero",
        ),
        (
            method("\"discovery\": {\"maxAttempts\": 0}"),
            "discovery.maxAttempts",
            "from 1 to",
        ),
        (
            method("\"timeout\": \"1s\", \"timeout\": \"2s\""),
            "timeout",
            "given twice",
        ),
    ]);
}

#[test]
fn a_bad_name_is_refused() {
    for (names, reason) in [
        ("[{\"method\": \"M\"}]", "a method needs its service"),
        (
            "[{\"service\": \"/a.S\"}]",
            "expected {\"service\": \"package.Service\"",
        ),
        ("[{}, {}]", "name[1] is {}: the name is given twice"),
        ("{}", "name is {}: expected a list"),
        (
            "[{\"service\": 1}]",
            "name[0].service is 1: expected a text",
        ),
    ] {
        let error = refused(&format!("{{\"methodConfig\": [{{\"name\": {names}}}]}}"));
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    }
    let twice = "{\"methodConfig\": [{\"name\": [{\"service\": \"a\"}]}, {\"name\": [{\"service\": \"a\", \"method\": \"\"}]}]}";
    assert!(refused(twice).contains("methodConfig[1].name[0]"));
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

#[test]
fn other_bad_fields_are_refused() {
    for (json, reason) in [
        (
            "{\"loadBalancingPolicy\": \"grpclb\"}",
            "loadBalancingPolicy is \"grpclb\"",
        ),
        (
            "{\"retryThrottling\": {\"maxTokens\": 0, \"tokenRatio\": 1}}",
            "from 1 to 1000",
        ),
        (
            "{\"retryThrottling\": {\"maxTokens\": 1, \"tokenRatio\": 0}}",
            "0.001 to 1000",
        ),
        (
            "{\"retryThrottling\": {\"maxTokens\": 1}}",
            "tokenRatio is required",
        ),
        (
            "{\"healthCheckConfig\": {\"serviceName\": 1}}",
            "serviceName is 1",
        ),
        (
            "{\"discovery\": {\"balancer\": \"best\"}}",
            "expected one of round-robin",
        ),
        (
            "{\"discovery\": {\"locality\": {}}}",
            "zone or datacenter is required",
        ),
        ("{\"discovery\": {\"subset\": 0}}", "discovery.subset is 0"),
        (
            "{\"discovery\": {\"requestHashHeader\": \"a b\"}}",
            "expected the name of a header, in lower case and without -bin",
        ),
        (
            "{\"loadBalancingConfig\": [{\"ring_hash_experimental\": {\"requestHashHeader\": \"id-bin\"}}]}",
            "requestHashHeader is \"id-bin\": expected the name",
        ),
        (
            "{\"discovery\": {\"datacenters\": [\"a,b\"]}}",
            "discovery.datacenters is [\"a,b\"]: expected at least one name, each without a comma",
        ),
        (
            "{\"discovery\": {\"connections\": {\"parallel\": 0}}}",
            "discovery.connections.parallel is 0",
        ),
        (
            "{\"discovery\": {\"connections\": {\"timeout\": \"0s\"}}}",
            "discovery.connections.timeout is \"0s\": must be greater than zero",
        ),
        (
            "{\"discovery\": {\"ejection\": {\"maxShare\": 2}}}",
            "discovery.ejection.maxShare is 2: must be a number from 0 to 1",
        ),
        (
            "{\"discovery\": {\"removalProtection\": {\"limit\": 5}}}",
            "expected \"none\" or seconds",
        ),
        (
            "{\"discovery\": {\"warmUp\": {\"aggression\": 0}}}",
            "discovery.warmUp.aggression is 0: must be a number greater than zero",
        ),
        (
            "{\"discovery\": {\"warmUp\": {\"minShare\": 1.5}}}",
            "discovery.warmUp.minShare is 1.5: must be a number from 0 to 1",
        ),
        ("[]", "the service config is []: expected an object"),
    ] {
        let error = refused(json);
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    }
}

#[test]
fn unknown_fields_are_ignored_with_one_warning_each() {
    let json = "{\"a\": [{\"b\": 1}], \"methodConfig\": [{\"name\": [{\"x\": 1}], \"y\": {}}]}";
    let config = ServiceConfig::parse(json).unwrap();
    let fields: Vec<_> = config.warnings().iter().map(ConfigWarning::field).collect();
    assert_eq!(
        fields,
        ["methodConfig[0].name[0].x", "methodConfig[0].y", "a"]
    );
    assert_eq!(config.methods[0].names, [Name::All]);
}

#[test]
fn more_than_five_attempts_are_five() {
    let json = method("\"hedgingPolicy\": {\"maxAttempts\": 9}");
    let config = ServiceConfig::parse(&json).unwrap();
    let Some(AttemptRule::Hedging {
        max_attempts,
        delay,
        ..
    }) = &config.methods[0].attempts
    else {
        panic!("{config:?}");
    };
    assert_eq!((*max_attempts, delay.as_nanos()), (5, 0));
    assert_eq!(
        config.warnings()[0].to_string(),
        "line 2, column 35: methodConfig[0].hedgingPolicy.maxAttempts is 9: reduced to 5, as in gRPC"
    );
}

#[test]
fn null_is_an_absent_field_and_an_entry_without_a_name_is_ignored() {
    let json = "{\"methodConfig\": [{\"timeout\": null}], \"retryThrottling\": null}";
    let config = ServiceConfig::parse(json).unwrap();
    assert_eq!(config.throttling, None);
    assert!(config.warnings()[0].to_string().contains("has no name"));
}

#[test]
fn a_bad_route_is_refused() {
    for (route, reason) in [
        ("{}", "routes[0] is {}: split is required"),
        (
            r#"{"split": [{"weight": 0}]}"#,
            "the sum of the weights must be from 1 to 10000",
        ),
        (
            r#"{"split": [{"weight": 9000}, {"weight": 1001}]}"#,
            "the sum of the weights must be from 1 to 10000",
        ),
        (
            r#"{"split": [{}], "metadata": {"a b": null}}"#,
            "\"a b\" is not a key of metadata",
        ),
        (
            r#"{"split": [{}], "metadata": {"a": 1}}"#,
            "routes[0].metadata.a is 1: expected a text",
        ),
        (
            r#"{"split": [{"tags": [""]}]}"#,
            "split[0].tags[0] is \"\": must not be empty",
        ),
    ] {
        let json = format!(r#"{{"discovery": {{"routes": [{route}]}}}}"#);
        let error = refused(&json);
        assert!(error.contains(reason), "expected {reason:?}: {error}");
    }
}
