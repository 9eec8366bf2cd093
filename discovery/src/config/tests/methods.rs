//! Policy by method.

use super::*;

/// A config with one method that has these fields.
fn method(fields: &str) -> String {
    format!("{{\"methodConfig\": [{{\"name\": [{{\"service\": \"a.S\"}}],\n {fields}}}]}}")
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
