//! Parsers of flag values.

use std::{net::IpAddr, time::Duration};

use discovery::Instance;

/// A duration with its unit: `500ms`, `2s`, `1m30s`.
///
/// # Errors
///
/// When the unit is missing or the text is no duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a number with a unit, for example 500ms or 2s".to_owned())
        .and_then(|duration| {
            // Far below what overflows a clock, far above what anybody means.
            if duration > Duration::from_secs(366 * 24 * 3_600) {
                Err("longer than a year".to_owned())
            } else {
                Ok(duration)
            }
        })
}

/// A [`duration`] above zero.
///
/// # Errors
///
/// When it is none, or zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// `HOST:PORT`, checked and kept as written.
///
/// # Errors
///
/// When it names no host or port that can be connected to.
pub fn host_port(text: &str) -> Result<String, String> {
    match Instance::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A name that has more than white space to it.
///
/// # Errors
///
/// When it is empty, or holds a control character.
pub fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("must not hold control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// `KEY=VALUE`; the value may be empty and may hold further equals signs.
///
/// # Errors
///
/// When there is no equals sign, or nothing before it.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// An address that others can be told to connect to.
///
/// # Errors
///
/// When it is none, or one that names no single host.
pub fn advertised_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_| "expected an IP address".to_owned())?;
    match Instance::new(ip.to_string(), 1) {
        Ok(_) => Ok(ip),
        Err(error) => Err(error.to_string()),
    }
}

/// The machine's outbound address, for a service that was not told which one to advertise.
///
/// # Errors
///
/// When the machine has none; the message says what to do.
pub fn outbound_ip() -> anyhow::Result<IpAddr> {
    local_ip_address::local_ip().map_err(|error| {
        anyhow::anyhow!(
            "cannot find this machine's outbound address to advertise ({error}); give one with --ip"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for text in ["", "5", "-1s", "soon", "99999999999y", "400d"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn key_and_value_are_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
        for text in ["", "a", "=b", " =b"] {
            assert!(key_value(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_advertised_address_names_one_host() {
        assert!(advertised_ip("127.0.0.1").is_ok());
        assert!(advertised_ip("fe80::1").is_ok());
        for text in ["0.0.0.0", "::", "224.0.0.1", "localhost", ""] {
            assert!(advertised_ip(text).is_err(), "{text:?}");
        }
    }
}
