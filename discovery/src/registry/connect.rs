//! Opens the registry that a URL names.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Registry, RegistryUrl, error::RegistryError, static_registry::StaticRegistry};

/// Opens a registry by its URL. Opens no connection.
type Open = Arc<dyn Fn(&str) -> Result<Arc<dyn Registry>, RegistryError> + Send + Sync>;

/// A scheme of this crate: how to open it, or the Cargo feature that it needs.
enum BuiltIn {
    On(fn(&str) -> Result<Arc<dyn Registry>, RegistryError>),
    #[allow(dead_code, reason = "every feature may be on")]
    Off {
        feature: &'static str,
    },
}

fn built_in(scheme: &str) -> Option<BuiltIn> {
    Some(match scheme {
        "static" => BuiltIn::On(|url| {
            let (_, list) = url.split_once("://").unwrap_or(("", url));
            Ok(Arc::new(StaticRegistry::parse(list)?))
        }),
        #[cfg(feature = "consul")]
        "consul" | "consuls" => {
            BuiltIn::On(|url| Ok(Arc::new(super::consul::Consul::from_url(url)?)))
        }
        #[cfg(not(feature = "consul"))]
        "consul" | "consuls" => BuiltIn::Off { feature: "consul" },
        #[cfg(feature = "dns")]
        "dns" | "dns+a" => BuiltIn::On(|url| Ok(Arc::new(super::dns::Dns::from_url(url)?))),
        #[cfg(not(feature = "dns"))]
        "dns" | "dns+a" => BuiltIn::Off { feature: "dns" },
        #[cfg(all(feature = "embedded", unix))]
        "embedded" => BuiltIn::On(|url| Ok(Arc::new(super::embedded::Embedded::from_url(url)?))),
        #[cfg(all(feature = "embedded", not(unix)))]
        "embedded" => BuiltIn::On(|url| {
            Err(RegistryError::invalid_url(
                url,
                "embedded:// needs the file locks of Unix",
            ))
        }),
        #[cfg(not(feature = "embedded"))]
        "embedded" => BuiltIn::Off {
            feature: "embedded",
        },
        #[cfg(feature = "etcd")]
        "etcd" | "etcds" => BuiltIn::On(|url| Ok(Arc::new(super::etcd::Etcd::from_url(url)?))),
        #[cfg(not(feature = "etcd"))]
        "etcd" | "etcds" => BuiltIn::Off { feature: "etcd" },
        #[cfg(feature = "eureka")]
        "eureka" | "eurekas" => {
            BuiltIn::On(|url| Ok(Arc::new(super::eureka::Eureka::from_url(url)?)))
        }
        #[cfg(not(feature = "eureka"))]
        "eureka" | "eurekas" => BuiltIn::Off { feature: "eureka" },
        #[cfg(feature = "zookeeper")]
        "zookeeper" | "zookeepers" => {
            BuiltIn::On(|url| Ok(Arc::new(super::zookeeper::ZooKeeper::from_url(url)?)))
        }
        #[cfg(not(feature = "zookeeper"))]
        "zookeeper" | "zookeepers" => BuiltIn::Off {
            feature: "zookeeper",
        },
        _ => return None,
    })
}

/// The schemes of this crate, for messages.
const SCHEMES: [&str; 12] = [
    "consul",
    "consuls",
    "dns",
    "dns+a",
    "embedded",
    "etcd",
    "etcds",
    "eureka",
    "eurekas",
    "static",
    "zookeeper",
    "zookeepers",
];

/// The registry that a URL names: `consul://localhost:8500`, `static://host:port,host:port`.
///
/// It opens no connection. [`Schemes`] adds schemes of one's own.
///
/// # Errors
///
/// [`RegistryError::InvalidUrl`] when the URL is malformed, its scheme is unknown, or the Cargo
/// feature of its scheme is off. The message then names the feature.
pub fn connect(url: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    Schemes::default().connect(url)
}

/// The registries that can be opened by URL: those of this crate, and added ones.
///
/// ```
/// use std::sync::Arc;
///
/// use discovery::registry::{Registry, RegistryUrl, Schemes, StaticRegistry};
///
/// # fn main() -> Result<(), discovery::registry::RegistryError> {
/// let schemes = Schemes::default().with("inventory", |url| {
///     let hosts = RegistryUrl::parse(url)?.hosts(8975)?;
///     Ok(Arc::new(StaticRegistry::parse(&hosts.join(","))?))
/// });
/// assert_eq!(schemes.connect("inventory://10.0.0.1")?.name(), "the static list");
/// assert!(schemes.connect("consul://localhost").is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Schemes {
    added: BTreeMap<String, Open>,
}

impl Schemes {
    /// Adds a scheme, or replaces the one of that name. `open` receives the whole URL and opens no
    /// connection; [`RegistryUrl`] parses it.
    #[must_use]
    pub fn with(
        mut self,
        scheme: impl Into<String>,
        open: impl Fn(&str) -> Result<Arc<dyn Registry>, RegistryError> + Send + Sync + 'static,
    ) -> Self {
        self.added.insert(scheme.into(), Arc::new(open));
        self
    }

    /// The registry that `url` names.
    ///
    /// # Errors
    ///
    /// As [`connect`].
    pub fn connect(&self, url: &str) -> Result<Arc<dyn Registry>, RegistryError> {
        let invalid = |reason: String| RegistryError::invalid_url(url, reason);
        let parsed = RegistryUrl::parse(url)?;
        let scheme = parsed.scheme();
        if let Some(open) = self.added.get(scheme) {
            return open(url);
        }
        match built_in(scheme) {
            Some(BuiltIn::On(open)) => open(url),
            Some(BuiltIn::Off { feature }) => Err(invalid(format!(
                "{scheme}:// needs the feature `{feature}` of the crate `discovery`, which is off in \
                 this build"
            ))),
            None => Err(invalid(format!(
                "unknown scheme {scheme:?}; this build has {}",
                self.names().join(", ")
            ))),
        }
    }

    /// The schemes that can be opened, with `://`.
    fn names(&self) -> Vec<String> {
        let on = |scheme: &&str| matches!(built_in(scheme), Some(BuiltIn::On(_)));
        let built_in = SCHEMES.iter().copied().filter(on);
        let added = self.added.keys().map(String::as_str);
        let all = built_in.chain(added);
        all.map(|scheme| format!("{scheme}://")).collect()
    }
}

impl fmt::Debug for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schemes").field(&self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        let opened = connect(url).map(|registry| registry.name().to_owned());
        opened.unwrap_err().to_string()
    }

    #[test]
    fn a_static_list_can_be_opened_in_every_build() {
        assert_eq!(
            connect("static://127.0.0.1:1").unwrap().name(),
            "the static list"
        );
    }

    #[test]
    fn an_unknown_scheme_is_refused_with_those_of_the_build() {
        let said = error("gopher://x");
        assert!(said.contains("unknown scheme \"gopher\""), "{said}");
        assert!(said.contains("static://"), "{said}");
        assert_eq!(said.contains("consul://"), cfg!(feature = "consul"));
        assert!(error("localhost:8500").contains("expected SCHEME://"));
    }

    #[test]
    fn every_listed_scheme_is_known() {
        for scheme in SCHEMES {
            assert!(built_in(scheme).is_some(), "{scheme}");
        }
    }

    #[test]
    fn an_added_scheme_is_listed_and_replaces_one_of_its_name() {
        let fails = |url: &str| Err(RegistryError::invalid_url(url, "added"));
        let schemes = Schemes::default().with("static", fails).with("own", fails);
        let said = |url: &str| schemes.connect(url).map(|_| ()).unwrap_err().to_string();
        assert!(said("static://a:1").ends_with("added"));
        assert!(said("gopher://x").contains("own://"));
    }

    #[cfg(not(feature = "consul"))]
    #[test]
    fn a_scheme_that_is_not_compiled_in_names_its_feature() {
        for url in ["consul://localhost:8500", "consuls://localhost:8501"] {
            let said = error(url);
            assert!(said.contains(url), "{said}");
            assert!(said.contains("needs the feature `consul`"), "{said}");
        }
    }
}
