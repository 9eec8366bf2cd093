//! The end of a certificate's validity, and the warnings before it.
//!
//! Only this one field of X.509 (RFC 5280, section 4.1) is read here; rustls verifies certificates.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tracing::info;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time before the end from which a warning is logged each day.
const NOTICE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The end of a certificate's validity.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiry {
    /// The certificate, for log lines.
    name: String,
    until: Option<SystemTime>,
    warned: Option<SystemTime>,
}

impl Expiry {
    /// The expiry of the first certificate of a chain. One that cannot be read gives no warnings.
    pub(super) fn of(what: &str, path: &Path, chain: &[CertificateDer<'_>]) -> Self {
        Self {
            name: format!("{what} {}", path.display()),
            until: chain.first().and_then(|first| not_after(first)),
            warned: None,
        }
    }

    /// Logs the end of the certificate's validity.
    pub(super) fn log(&self) {
        if let Some(until) = self.until {
            info!("{} is valid until {}", self.name, text(until));
        }
    }

    /// A warning that the certificate ends soon or has ended, at most once a day.
    pub(super) fn warning(&mut self, now: SystemTime) -> Option<String> {
        let until = self.until?;
        let left = until.duration_since(now).unwrap_or_default();
        let recently = self.warned.is_some_and(|at| {
            // A clock that was set back does not repeat the warning.
            now.duration_since(at).unwrap_or_default() < DAY
        });
        if left > NOTICE || recently {
            return None;
        }
        self.warned = Some(now);
        Some(if left.is_zero() {
            format!(
                "{} has expired on {}: peers refuse it; replace the file",
                self.name,
                text(until)
            )
        } else {
            format!(
                "{} expires in {} hours, on {}: replace the file",
                self.name,
                left.as_secs() / 3_600,
                text(until)
            )
        })
    }
}

fn text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// DER tags (X.690).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The field `notAfter`: Certificate, tbsCertificate, validity.
fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, _) = element(fields)? else {
        return None;
    };
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    time_of(tag, std::str::from_utf8(time).ok()?)
}

/// The tag and the content of the first element, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// A time in UTC to the second, in the forms that RFC 5280 (section 4.1.2.5) allows.
fn time_of(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z')?;
    let text = match (tag, digits.len()) {
        // Two digits of the year, from 1950 to 2049.
        (UTC_TIME, 12) => {
            let century = if digits.get(..2)? < "50" { "20" } else { "19" };
            format!("{century}{digits}")
        }
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    );
    humantime::parse_rfc3339(&rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    /// A certificate that is valid until then.
    fn certificate(year: i32) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, end) in [
            (2027, "2027-03-04T00:00:00Z"),
            (1999, "1999-03-04T00:00:00Z"),
            // Another form of time from 2050 on.
            (2061, "2061-03-04T00:00:00Z"),
        ] {
            assert_eq!(not_after(&certificate(year)), Some(at(end)));
        }
    }

    #[test]
    fn what_is_not_a_certificate_has_no_end() {
        let whole = certificate(2027);
        for length in 0..whole.len().min(200) {
            assert_eq!(not_after(&whole[..length]), None);
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(time_of(UTC_TIME, "ä0101000000Z"), None);
    }

    #[test]
    fn the_warning_comes_each_day_of_the_last_week_and_after_the_end() {
        let chain = [certificate(2027)];
        let mut expiry = Expiry::of("TLS certificate", Path::new("a.pem"), &chain);
        let end = at("2027-03-04T00:00:00Z");
        assert_eq!(expiry.warning(end - 8 * DAY), None);
        let warning = expiry.warning(end - 2 * DAY).unwrap();
        let expected = "TLS certificate a.pem expires in 48 hours, on 2027-03-04T00:00:00Z: \
                        replace the file";
        assert_eq!(warning, expected);
        assert_eq!(expiry.warning(end - 2 * DAY + DAY / 2), None);
        assert!(expiry.warning(end - DAY).is_some());
        let warning = expiry.warning(end + DAY).unwrap();
        assert!(
            warning.contains("a.pem has expired on 2027-03-04"),
            "{warning}"
        );
        assert_eq!(Expiry::default().warning(end), None);
    }
}
