//! The URL that names a registry: scheme, credentials, servers, path and settings.

use std::{fmt, time::Duration};

use percent_encoding::percent_decode_str;

use super::error::RegistryError;
use crate::instance::Instance;

/// A parsed registry URL: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...][/PATH][?KEY=VALUE&...]`.
///
/// Credentials, path and settings are percent-decoded. Its `Display` and `Debug` forms leave the
/// credentials out.
///
/// ```
/// use discovery::registry::RegistryUrl;
///
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// let mut url = RegistryUrl::parse("etcd://root:s%40cret@10.0.0.1,10.0.0.2:2380/services?layout=grpc")?;
/// assert_eq!(url.hosts(2379)?, ["10.0.0.1:2379", "10.0.0.2:2380"]);
/// assert_eq!(url.password(), Some("s@cret"));
/// assert_eq!(url.path(), "/services");
/// assert_eq!(url.take("layout").as_deref(), Some("grpc"));
/// url.finish(&["layout"])?;
/// assert_eq!(url.to_string(), "etcd://10.0.0.1,10.0.0.2:2380/services?layout=grpc");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: String,
    user: Option<String>,
    password: Option<String>,
    /// The servers, separated by commas.
    authority: String,
    path: String,
    settings: Vec<(String, String)>,
    /// The URL without credentials.
    shown: String,
}

impl RegistryUrl {
    /// Reads a URL. It does not check the servers' addresses, see [`hosts`](Self::hosts).
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] without a scheme, for a fragment, or for percent-encoded bytes that
    /// are not UTF-8.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let invalid = |reason: &str| RegistryError::invalid_url(text, reason);
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| invalid("expected SCHEME://..., for example consul://localhost:8500"))?;
        if rest.contains('#') {
            return Err(invalid("a registry URL has no fragment; write # as %23"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may contain a slash, so the last @ before the path's end is looked for first.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let decode = |part: &str| {
            let decoded = percent_decode_str(part).decode_utf8();
            decoded.map(std::borrow::Cow::into_owned).map_err(|_| {
                // The part may be a password, so it is not shown.
                invalid("a percent-encoded part is not valid UTF-8")
            })
        };
        let (user, password) = match credentials.map(|both| both.split_once(':').ok_or(both)) {
            None => (None, None),
            Some(Ok((user, password))) => (Some(decode(user)?), Some(decode(password)?)),
            Some(Err(user)) => (Some(decode(user)?), None),
        };
        let settings = query.split('&').filter(|pair| !pair.is_empty());
        let settings = settings.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        });
        let separator = if query.is_empty() { "" } else { "?" };
        Ok(Self {
            scheme: scheme.to_owned(),
            user,
            password,
            authority: authority.to_owned(),
            path: decode(path)?,
            settings: settings.collect::<Result<_, RegistryError>>()?,
            shown: format!("{scheme}://{authority}{path}{separator}{query}"),
        })
    }

    /// The part before `://`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user name.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The part between `://` and the path, without credentials.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The servers as `HOST:PORT`, with `default_port` where none is given. Empty if the URL names none.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] for an address that cannot be connected to.
    pub fn hosts(&self, default_port: u16) -> Result<Vec<String>, RegistryError> {
        if self.authority.is_empty() {
            return Ok(Vec::new());
        }
        let host = |text: &str| {
            let parsed = match Instance::parse(text) {
                Err(_) if has_no_port(text) => Instance::parse(&format!("{text}:{default_port}")),
                parsed => parsed,
            };
            parsed.map_err(|error| self.invalid(error.to_string()))
        };
        let hosts = self.authority.split(',').map(|text| host(text.trim()));
        hosts.map(|host| Ok(host?.authority())).collect()
    }

    /// The path with its leading slash, or an empty string.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes a setting out of the part after `?`. Of several with the same key, the first.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.settings.iter().position(|(k, _)| k == key)?;
        Some(self.settings.remove(at).1)
    }

    /// Takes a setting that is a whole number of `s` or `ms`, as in `10s`.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] for a value of another form.
    pub fn take_duration(&mut self, key: &str) -> Result<Option<Duration>, RegistryError> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        duration(&text).map(Some).ok_or_else(|| {
            self.invalid(format!(
                "{key} is {text:?}, expected for example 10s or 500ms"
            ))
        })
    }

    /// Takes the settings `ca`, `cert` and `key`: the PEM files of the authorities, of the client's
    /// certificate and of its key.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] if one is given without `tls`.
    #[cfg(any(feature = "eureka", feature = "zookeeper"))]
    pub(super) fn take_tls_files(
        &mut self,
        tls: bool,
    ) -> Result<[Option<std::path::PathBuf>; 3], RegistryError> {
        let files = ["ca", "cert", "key"].map(|key| self.take(key).map(Into::into));
        if !tls && files.iter().any(Option::is_some) {
            let scheme = &self.scheme;
            return Err(self.invalid(format!("ca, cert and key are settings of {scheme}s://")));
        }
        Ok(files)
    }

    /// Checks that every setting has been taken. `known` lists the settings, for the message.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] for a setting that has not been taken.
    pub fn finish(&self, known: &[&str]) -> Result<(), RegistryError> {
        let Some((key, _)) = self.settings.first() else {
            return Ok(());
        };
        let repeated = known.contains(&key.as_str());
        Err(self.invalid(match known {
            _ if repeated => format!("the setting {key:?} is given twice"),
            [] => format!("unknown setting {key:?}; {}:// has none", self.scheme),
            _ => format!("unknown setting {key:?}; expected {}", known.join(", ")),
        }))
    }

    /// An error about this URL.
    #[must_use]
    pub fn invalid(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::InvalidUrl {
            url: self.shown.clone(),
            reason: reason.into(),
        }
    }
}

/// A number of `s` or `ms`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, Duration::from_millis(1)),
        None => (text.strip_suffix('s')?, Duration::from_secs(1)),
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    unit.checked_mul(number.parse().ok()?)
}

fn has_no_port(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.ends_with(']'),
        None => !host.contains(':'),
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RegistryUrl {
        RegistryUrl::parse(text).unwrap()
    }

    #[test]
    fn the_parts_of_a_url_are_read() {
        let url = parse("zookeeper://a:b%3Ac@h1,[::1]:2182,h2:3/ser%20vices/x?layout=gokit&y=");
        assert_eq!(url.scheme(), "zookeeper");
        assert_eq!((url.user(), url.password()), (Some("a"), Some("b:c")));
        assert_eq!(url.hosts(2181).unwrap(), ["h1:2181", "[::1]:2182", "h2:3"]);
        assert_eq!(url.path(), "/ser vices/x");
        let mut url = url;
        assert_eq!(url.take("y").as_deref(), Some(""));
        assert_eq!(url.take("y"), None);
    }

    #[test]
    fn a_url_without_servers_path_and_settings_is_read() {
        for text in ["embedded://", "consul://"] {
            let url = parse(text);
            assert!(url.hosts(1).unwrap().is_empty());
            assert_eq!((url.path(), url.user()), ("", None));
            url.finish(&[]).unwrap();
        }
        assert_eq!(parse("embedded:///tmp/x").path(), "/tmp/x");
    }

    #[test]
    fn an_address_that_cannot_be_connected_to_is_refused_by_name() {
        for (text, named) in [
            ("x://a,,b", "the host is empty"),
            ("x://a:0", "a:0"),
            ("x://a:99999", "a:99999"),
            ("x://[::1", "[::1"),
            ("x://0.0.0.0", "0.0.0.0"),
        ] {
            let error = parse(text).hosts(80).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_or_repeated_setting_is_refused() {
        let error = |text: &str, known: &[&str]| {
            let mut url = parse(text);
            url.take("layout");
            url.finish(known).unwrap_err().to_string()
        };
        let said = error("etcd://h?layuot=grpc", &["layout", "ttl"]);
        assert!(
            said.contains("unknown setting \"layuot\"; expected layout, ttl"),
            "{said}"
        );
        let said = error("etcd://h?layout=a&layout=b", &["layout"]);
        assert!(said.contains("\"layout\" is given twice"), "{said}");
        let said = error("static://h?x=1", &[]);
        assert!(said.contains("static:// has none"), "{said}");
    }

    #[test]
    fn credentials_are_never_shown() {
        let url = parse("eureka://me:hunter2@h:8761/eureka");
        for shown in [
            url.to_string(),
            format!("{url:?}"),
            url.invalid("x").to_string(),
            RegistryUrl::parse("eureka://me:hunter2@h/#x")
                .unwrap_err()
                .to_string(),
            RegistryUrl::parse("eureka://me:hunter2%ff@h")
                .unwrap_err()
                .to_string(),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
