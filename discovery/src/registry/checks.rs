//! Checks of the settings that several registries have.

use std::time::Duration;

/// Checks that each of these times, by the name of its setting, is greater than zero.
pub(super) fn check_times(times: &[(&str, Duration)]) -> Result<(), String> {
    match times.iter().find(|(_, time)| time.is_zero()) {
        Some((name, _)) => Err(format!("{name} must be greater than zero")),
        None => Ok(()),
    }
}

/// Checks that this build has TLS, if `tls` asks for it.
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
