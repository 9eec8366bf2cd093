//! Parsers of flag values, and the address to advertise.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use discovery::{Instance, InvalidSetting, limit::ConcurrencyLimit};

/// Longer durations are mistakes, and would overflow clocks.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A duration with its unit: `500ms`, `2s`, `1m30s`.
///
/// # Errors
///
/// When the text is not a duration, or the unit is missing.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        Ok(_) => Err("must not be longer than a year".to_owned()),
        Err(_) => Err("expected a number with a unit, for example 500ms or 2s".to_owned()),
    }
}

/// A [`duration`] greater than zero.
///
/// # Errors
///
/// When it is zero, or not a duration.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be greater than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A limit of concurrent requests: `auto`, `off` or a number.
///
/// # Errors
///
/// When it is none of these.
pub fn concurrency_limit(text: &str) -> Result<ConcurrencyLimit, String> {
    text.parse()
        .map_err(|error: InvalidSetting| error.expected.to_owned())
}

/// A whole number greater than zero.
///
/// # Errors
///
/// When it is zero, negative, not a whole number or above 4294967295.
pub fn positive_number(text: &str) -> Result<NonZeroU32, String> {
    text.parse()
        .map_err(|_| format!("expected a whole number from 1 to {}", u32::MAX))
}

/// `HOST:PORT`, checked and kept as written.
///
/// # Errors
///
/// When the host or the port is missing or cannot be connected to.
pub fn host_port(text: &str) -> Result<String, String> {
    match Instance::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A name with at least one character that is not white space.
///
/// # Errors
///
/// When it is empty or contains a control character.
pub fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("must not be empty".to_owned())
    } else if text.chars().any(char::is_control) {
        Err("must not contain control characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// `KEY=VALUE`. The value may be empty and may contain further equals signs.
///
/// # Errors
///
/// When the equals sign or the key is missing.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// An address that other machines can connect to.
///
/// # Errors
///
/// When it is not an IP address, or not the address of a single host.
pub fn advertised_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text
        .parse()
        .map_err(|_| "expected an IP address".to_owned())?;
    match Instance::new(ip.to_string(), 1) {
        Ok(_) => Ok(ip),
        Err(error) => Err(error.to_string()),
    }
}

/// The address to advertise: `given`, else the address listened on if it is a single one, else the
/// machine's outbound address.
///
/// # Errors
///
/// When the machine has no outbound address.
pub fn advertised(given: Option<IpAddr>, listen: IpAddr) -> anyhow::Result<IpAddr> {
    match given {
        Some(ip) => Ok(ip),
        None if !listen.is_unspecified() => Ok(listen),
        None => local_ip_address::local_ip().map_err(|error| {
            anyhow::anyhow!(
                "cannot find this machine's outbound address to advertise ({error}); set one with --ip"
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        let unit = "expected a number with a unit, for example 500ms or 2s";
        for (text, reason) in [
            ("", unit),
            ("5", unit),
            ("-1s", unit),
            ("soon", unit),
            ("99999999999y", "must not be longer than a year"),
            ("400d", "must not be longer than a year"),
        ] {
            assert_eq!(duration(text).unwrap_err(), reason, "{text:?}");
        }
        let zero = positive_duration("0ms").unwrap_err();
        assert_eq!(zero, "must be greater than zero");
        assert_eq!(positive_duration("").unwrap_err(), unit);
    }

    #[test]
    fn counts_start_at_one() {
        assert_eq!(positive_number("7").map(NonZeroU32::get), Ok(7));
        for text in ["0", "-1", "1.5", "many", "", "4294967296"] {
            let reason = positive_number(text).unwrap_err();
            assert_eq!(reason, "expected a whole number from 1 to 4294967295");
        }
    }

    #[test]
    fn a_concurrency_limit_is_auto_off_or_a_number() {
        for text in ["auto", "off", "12"] {
            assert_eq!(concurrency_limit(text).unwrap().to_string(), text);
        }
        let reason = concurrency_limit("some").unwrap_err();
        let expected = "expected auto, off or a whole number from 1 to 4294967295";
        assert_eq!(reason, expected);
    }

    #[test]
    fn names_are_not_blank() {
        assert_eq!(name(" a b "), Ok(" a b ".to_owned()));
        for text in ["", " \t"] {
            assert_eq!(name(text).unwrap_err(), "must not be empty");
        }
        let control = name("a\nb").unwrap_err();
        assert_eq!(control, "must not contain control characters");
    }

    #[test]
    fn key_and_value_are_split_at_the_first_equals_sign() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), String::new())));
        for text in ["", "a", "=b", " =b"] {
            assert_eq!(key_value(text).unwrap_err(), "expected KEY=VALUE");
        }
    }

    #[test]
    fn an_address_names_host_and_port() {
        assert_eq!(host_port("a:1"), Ok("a:1".to_owned()));
        for text in ["a", ":1", "a:0", "a:70000", "::1:80"] {
            let reason = host_port(text).unwrap_err();
            let expected = format!("invalid instance address {text:?}: ");
            assert!(reason.starts_with(&expected), "{text:?}: {reason}");
        }
    }

    #[test]
    fn an_advertised_address_names_one_host() {
        assert!(advertised_ip("127.0.0.1").is_ok());
        assert!(advertised_ip("fe80::1").is_ok());
        for text in ["0.0.0.0", "::", "224.0.0.1"] {
            let reason = advertised_ip(text).unwrap_err();
            assert!(reason.starts_with("invalid instance address"), "{reason}");
        }
        for text in ["localhost", ""] {
            assert_eq!(advertised_ip(text).unwrap_err(), "expected an IP address");
        }
    }

    #[test]
    fn the_address_given_wins_over_the_one_listened_on() {
        let (given, listen) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(advertised(Some(given), listen).unwrap(), given);
        assert_eq!(advertised(None, listen).unwrap(), listen);
    }
}
