//! Checks of the settings that several registries have.

#[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
use std::time::Duration;

/// Checks that each of these times, by the name of its setting, is greater than zero.
#[cfg(any(feature = "consul", feature = "etcd", feature = "eureka"))]
pub(super) fn check_times(times: &[(&str, Duration)]) -> Result<(), String> {
    match times.iter().find(|(_, time)| time.is_zero()) {
        Some((name, _)) => Err(format!("{name} must be greater than zero")),
        None => Ok(()),
    }
}

/// Checks that this build has TLS, if `tls` asks for it.
#[cfg(any(
    feature = "consul",
    feature = "etcd",
    feature = "eureka",
    not(feature = "tls")
))]
pub(super) fn check_tls(tls: bool) -> Result<(), String> {
    if tls && cfg!(not(feature = "tls")) {
        return Err(
            "TLS needs the feature `tls-ring` or `tls-aws-lc` of the crate `discovery`, which is off in \
             this build"
                .to_owned(),
        );
    }
    Ok(())
}
