//! Which service configs are accepted, and the errors of the others.

mod balancing;
mod methods;

use super::*;

fn refused(json: &str) -> String {
    match ServiceConfig::parse(json) {
        Ok(_) => panic!("{json} is accepted"),
        Err(error) => error.to_string(),
    }
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
