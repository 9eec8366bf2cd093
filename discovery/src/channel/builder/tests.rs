use std::collections::HashSet;

use super::*;
use crate::retry::BudgetPolicy;

fn builder() -> ChannelBuilder {
    Channel::builder("static://127.0.0.1:1", "svc")
}

fn refuses(builder: ChannelBuilder, message: &str) {
    let error = builder.build().unwrap_err().to_string();
    assert!(
        error.contains(message),
        "{error:?} does not say {message:?}"
    );
    assert!(error.starts_with("cannot build a channel to "), "{error}");
}

#[tokio::test]
async fn names_the_setting_that_cannot_work_and_its_value() {
    let hour = Duration::from_secs(3_600);
    let hedged = || builder().idempotent(["/svc.S/M"]);
    let timed = || builder().retry_timeout(Duration::from_millis(500));
    for (builder, message) in vec![
        (
            Channel::builder("static://127.0.0.1:1", " "),
            "service is \" \"",
        ),
        (builder().retry_max(0), "retry_max is 0"),
        (
            builder().retry_timeout(Duration::ZERO),
            "retry_timeout is 0ns",
        ),
        (timed().attempt_timeout(hour), "attempt_timeout is 3600s"),
        (
            builder().idempotent(["TrimSpace"]),
            "idempotent is \"TrimSpace\"",
        ),
        (
            builder().idempotent(["/pb.Trim/"]),
            "idempotent is \"/pb.Trim/\"",
        ),
        (
            builder().idempotent(["/pb.Trim/Trim Space"]),
            "idempotent is ",
        ),
        (
            builder().idempotent(["/pb..Trim/TrimSpace"]),
            "idempotent is ",
        ),
        (
            hedged().retry_max(1).hedge(Hedge::Percentile95),
            "hedge is Percentile95",
        ),
        (
            hedged().hedge(Hedge::After(Duration::ZERO)),
            "hedge is After(0ns)",
        ),
        (
            timed().idempotent(["/svc.S/M"]).hedge(Hedge::After(hour)),
            "hedge is After(3600s)",
        ),
        (builder().hedge(Hedge::Percentile95), "none is declared"),
        (
            builder().connect_backoff(hour, Duration::from_secs(1)),
            "connect_backoff is 3600s to 1s",
        ),
        (builder().connect_parallel(0), "connect_parallel is 0"),
        (builder().user_agent("a\nb"), "user_agent is \"a\\nb\""),
        (
            builder().origin(Uri::from_static("a.example")),
            "origin is \"a.example\"",
        ),
        (builder().subset(0), "subset is 0"),
        (builder().subset_id("a"), "subset_id is \"a\""),
    ] {
        refuses(builder, message);
    }
    assert!(builder().build().is_ok());
}

#[tokio::test]
async fn names_the_setting_of_a_policy_that_cannot_work_and_its_value() {
    let hour = Duration::from_secs(3_600);
    let ejection = EjectionPolicy::default;
    let second = Duration::from_secs(1);
    let backoff = |first| RetryPolicy::default().with_backoff(Backoff::new(first, second));
    let budget = |share| {
        let budget = BudgetPolicy::default().with_share(share);
        RetryPolicy::default().with_budget(budget)
    };
    let factor = |factor| Locality::zone("a").with_overprovisioning_factor(factor);
    for (builder, message) in vec![
        (
            builder().ejection(ejection().with_max_share(1.5)),
            "ejection max_share is 1.5: must be between 0 and 1",
        ),
        (
            builder().ejection(ejection().with_failing_share(f64::NAN)),
            "ejection failing_share is NaN",
        ),
        (
            builder().ejection(ejection().with_failing_share(-0.1)),
            "ejection failing_share is -0.1",
        ),
        (
            builder().ejection(ejection().with_window(Duration::from_millis(9))),
            "ejection window is 9ms: must be at least 10ms",
        ),
        (
            builder().ejection(ejection().with_base_time(hour)),
            "ejection base_time is 3600s",
        ),
        (
            builder().protection(RemovalProtection::default().with_share(1.1)),
            "protection share is 1.1: must be between 0 and 1",
        ),
        (
            builder().warm_up(WarmUp::default().with_min_share(2.0)),
            "warm_up min_share is 2: must be between 0 and 1",
        ),
        (
            builder().prefer(factor(0.5)),
            "overprovisioning_factor is 0.5: must be at least 1",
        ),
        (
            builder().prefer(factor(f64::NAN)),
            "overprovisioning_factor is NaN: must be at least 1",
        ),
        (
            builder().prefer(factor(f64::INFINITY)),
            "overprovisioning_factor is inf: must be at least 1",
        ),
        (builder().zone(""), "zone is \"\""),
        (
            builder().prefer(Locality::zone("a").within(" ")),
            "datacenter is \" \"",
        ),
        (
            builder().connect_backoff(Duration::ZERO, Duration::from_secs(1)),
            "connect_backoff is 0ns to 1s",
        ),
        (
            builder().retry(backoff(Duration::ZERO)),
            "retry backoff is 0ns to 1s",
        ),
        (
            builder().retry(backoff(hour)),
            "retry backoff is 3600s to 1s",
        ),
        (
            builder().retry(budget(f64::NAN)),
            "retry budget share is NaN: must be between 0 and 10",
        ),
        (
            builder().retry(budget(11.0)),
            "retry budget share is 11: must be between 0 and 10",
        ),
    ] {
        refuses(builder, message);
    }
}

#[test]
fn the_order_of_calls_does_not_matter() {
    let policy = || {
        RetryPolicy::default()
            .with_max_attempts(5)
            .with_idempotent(["/a.A/A"])
    };
    let result = |builder: ChannelBuilder| {
        let retry = builder.overrides.apply(builder.retry);
        (retry.max_attempts, retry.timeout, retry.idempotent)
    };
    let ms = Duration::from_millis(70);
    let before = builder()
        .idempotent(["/b.B/B"])
        .retry_timeout(ms)
        .retry(policy());
    let after = builder()
        .retry(policy())
        .retry_timeout(ms)
        .idempotent(["/b.B/B"]);
    let expected = ["/a.A/A", "/b.B/B"].map(str::to_owned);
    let expected = (5, Some(ms), HashSet::from(expected));
    assert_eq!(result(before), expected);
    assert_eq!(result(after), expected);
}

#[cfg(feature = "descriptors")]
#[tokio::test]
async fn descriptors_declare_idempotent_methods_and_refuse_misspelt_ones() {
    let described = || builder().file_descriptor_set(proto::FILE_DESCRIPTOR_SET);
    let channel = described().build().unwrap();
    let expected = ["/pb.Add/Concat", "/pb.Add/Sum", "/pb.Trim/TrimSpace"].map(str::to_owned);
    assert_eq!(
        channel.shared.settings.retry.idempotent,
        HashSet::from(expected)
    );
    let misspelt = described().idempotent(["/pb.Trim/TrimSpaces"]).build();
    let error = misspelt.unwrap_err().to_string();
    assert!(
        error.contains("idempotent is \"/pb.Trim/TrimSpaces\": no service"),
        "{error}"
    );
    let malformed = builder().file_descriptor_set(&b"text"[..]).build();
    let error = malformed.unwrap_err().to_string();
    assert!(error.contains("file_descriptor_set is "), "{error}");
}

#[test]
fn needs_a_runtime() {
    assert!(matches!(builder().build(), Err(BuildError::NoRuntime(_))));
}

#[tokio::test]
async fn an_invalid_url_is_named() {
    for (url, reason) in [
        ("localhost:8500", "expected SCHEME://"),
        ("gopher://x", "gopher"),
        ("static://", "expected HOST:PORT"),
        ("static://a:0", "a:0"),
    ] {
        let error = Channel::builder(url, "svc")
            .build()
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
}
