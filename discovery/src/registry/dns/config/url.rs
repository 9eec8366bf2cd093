//! Configuration from a URL.

use super::{Config, PORT};
use crate::registry::{RegistryError, RegistryUrl};

/// The settings in the part after `?`.
const SETTINGS: [&str; 3] = ["min_refresh", "max_refresh", "timeout"];

impl Config {
    /// Reads `dns://[RESOLVER[:PORT],...]/NAME?SETTINGS` or
    /// `dns+a://[RESOLVER[:PORT],.../]NAME:PORT?SETTINGS`. See the [module](crate::registry::dns) for the
    /// forms and the settings. A resolver's default port is 53.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] when the URL has another form or a value that cannot be used.
    pub fn from_url(url: &str) -> Result<Self, RegistryError> {
        let mut url = RegistryUrl::parse(url)?;
        if url.user().is_some() {
            return Err(url.invalid("DNS has no user and password"));
        }
        let mut config = match url.scheme() {
            "dns" => srv(&url)?,
            "dns+a" => addresses(&url)?,
            _ => {
                return Err(
                    url.invalid("expected dns://RESOLVER/NAME or dns+a://RESOLVER/NAME:PORT")
                );
            }
        };
        for (key, setting) in [
            ("min_refresh", &mut config.min_refresh),
            ("max_refresh", &mut config.max_refresh),
            ("timeout", &mut config.timeout),
        ] {
            if let Some(duration) = url.take_duration(key)? {
                *setting = duration;
            }
        }
        url.finish(&SETTINGS)?;
        config.check().map_err(|reason| url.invalid(reason))?;
        Ok(config)
    }
}

fn srv(url: &RegistryUrl) -> Result<Config, RegistryError> {
    let name = url.path().trim_start_matches('/');
    if name.contains(':') {
        return Err(url.invalid("SRV records have the port; dns+a:// takes NAME:PORT"));
    }
    // A name in the place of the resolver is the likely mistake, and no resolver would answer.
    let authority = url.authority();
    let is_name = |host: &str| host.parse::<std::net::IpAddr>().is_err() && !host.contains(':');
    if name.is_empty() && (authority.is_empty() || authority.split(',').any(is_name)) {
        return Err(url.invalid(format!(
            "{authority:?} is in the place of the resolver, and the URL has no name; expected \
             dns:///NAME, or dns://RESOLVER:PORT/NAME"
        )));
    }
    Ok(Config::srv(name).with_resolvers(url.hosts(PORT)?))
}

fn addresses(url: &RegistryUrl) -> Result<Config, RegistryError> {
    let path = url.path().trim_start_matches('/');
    let (resolvers, name) = if path.is_empty() {
        (Vec::new(), url.authority())
    } else {
        (url.hosts(PORT)?, path)
    };
    let form = || {
        url.invalid(format!(
            "{name:?} is not NAME:PORT; expected dns+a://NAME:PORT, or dns+a://RESOLVER:PORT/NAME:PORT"
        ))
    };
    let (name, port) = name.rsplit_once(':').ok_or_else(form)?;
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits).ok_or_else(form)?;
    Ok(Config::addresses(name, port).with_resolvers(resolvers))
}
