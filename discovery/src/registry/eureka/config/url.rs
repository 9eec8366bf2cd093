//! Configuration from a URL, and from the variable of Spring Cloud's clients.

use std::ffi::OsString;

use super::Config;
use crate::registry::{RegistryError, RegistryUrl, variables::Variables};

/// The port of Spring Cloud's server.
const PORT: u16 = 8761;

/// Spring Cloud's `eureka.client.service-url.defaultZone` as a variable.
const VARIABLE: &str = "EUREKA_CLIENT_SERVICEURL_DEFAULTZONE";

/// The settings in the part after `?`.
const SETTINGS: [&str; 6] = ["vip", "interval", "lease", "ca", "cert", "key"];

impl Config {
    /// Reads `eureka://[USER:PASSWORD@]HOST[:PORT][/PATH],...?SETTINGS`, or `eurekas://` for HTTPS. See
    /// the [module](crate::registry::eureka) for the settings.
    ///
    /// The default port is 8761. One path may be given, after the last server or after each. A URL
    /// without a host takes servers, path and credentials from `EUREKA_CLIENT_SERVICEURL_DEFAULTZONE`,
    /// or else `localhost:8761`. `lookup` reads a variable: `|name| std::env::var_os(name)` in a program.
    ///
    /// # Errors
    ///
    /// [`RegistryError::InvalidUrl`] when the URL has another form or a value that cannot be used,
    /// [`RegistryError::InvalidSetting`] when the variable cannot be used.
    pub fn from_url(
        url: &str,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, RegistryError> {
        let mut url = RegistryUrl::parse(url)?;
        let tls = match url.scheme() {
            "eureka" => false,
            "eurekas" => true,
            _ => return Err(url.invalid("expected eureka://HOST:PORT or eurekas://HOST:PORT")),
        };
        let mut config = if url.authority().is_empty() {
            if url.user().is_some() || !url.path().is_empty() {
                return Err(url.invalid("the host is missing"));
            }
            Self::from_variable(lookup)?
        } else {
            Self::from_servers(&url)?
        };
        config.tls |= tls;
        config.take_settings(&mut url)?;
        url.finish(&SETTINGS)?;
        config.check().map_err(|reason| url.invalid(reason))?;
        Ok(config)
    }

    /// The servers, path and credentials of a URL.
    fn from_servers(url: &RegistryUrl) -> Result<Self, RegistryError> {
        let mut config = Self::default();
        let mut hosts = Vec::new();
        let mut path = None;
        let list = format!("{}{}", url.authority(), url.path());
        for server in list.split(',') {
            let (host, after) = match server.find('/') {
                Some(at) => server.split_at(at),
                None => (server, ""),
            };
            hosts.push(host.trim());
            let after = after.strip_suffix('/').unwrap_or(after);
            if !after.is_empty() && *path.get_or_insert_with(|| after.to_owned()) != after {
                return Err(url.invalid("all servers have the same path"));
            }
        }
        let listed = RegistryUrl::parse(&format!("{}://{}", url.scheme(), hosts.join(",")))?;
        config.servers = listed.hosts(PORT)?;
        if let Some(path) = path {
            config.base_path = path;
        }
        match (url.user(), url.password()) {
            (Some(user), Some(password)) => Ok(config.with_user(user, password)),
            (Some(_), None) => Err(url.invalid("a user without a password")),
            (None, _) => Ok(config),
        }
    }

    /// The defaults, overridden by the variable of Spring Cloud's clients: URLs of `http` or `https`,
    /// separated by commas. An empty variable counts as unset.
    fn from_variable(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, RegistryError> {
        let variables = Variables::new("eureka", lookup);
        let Some(list) = variables.text(VARIABLE)? else {
            return Ok(Self::default());
        };
        let wrong = |reason: &str| variables.invalid(format!("{VARIABLE}: {reason}"));
        let mut all: Option<Self> = None;
        for text in list.split(',') {
            let one =
                Self::from_service_url(text.trim()).map_err(|error| wrong(&error.to_string()))?;
            match &mut all {
                None => all = Some(one),
                Some(all) => {
                    let servers = one.servers.clone();
                    let same = Self {
                        servers: all.servers.clone(),
                        ..one
                    };
                    if *all != same {
                        return Err(wrong(
                            "all servers have the same scheme, path, user and password",
                        ));
                    }
                    all.servers.extend(servers);
                }
            }
        }
        Ok(all.unwrap_or_default())
    }

    /// One server as Spring's clients write it: `http://USER:PASSWORD@HOST:PORT/eureka/`.
    fn from_service_url(text: &str) -> Result<Self, RegistryError> {
        let url = RegistryUrl::parse(text)?;
        let (tls, port) = match url.scheme() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(url.invalid("expected http://HOST:PORT/eureka/")),
        };
        let mut config = Self::from_servers(&url)?.with_tls(tls);
        config.servers = url.hosts(port)?;
        if url.path().trim_matches('/').is_empty() {
            // Spring's clients append nothing to the URL.
            config.base_path.clear();
        }
        Ok(config)
    }

    fn take_settings(&mut self, url: &mut RegistryUrl) -> Result<(), RegistryError> {
        if let Some(text) = url.take("vip") {
            self.vip = match text.as_str() {
                "" | "true" => true,
                "false" => false,
                _ => return Err(url.invalid(format!("vip is {text:?}, expected true or false"))),
            };
        }
        for (key, setting) in [("interval", &mut self.interval), ("lease", &mut self.lease)] {
            if let Some(time) = url.take_duration(key)? {
                *setting = time;
            }
        }
        [self.ca_file, self.client_cert, self.client_key] = url.take_tls_files(self.tls)?;
        Ok(())
    }
}
