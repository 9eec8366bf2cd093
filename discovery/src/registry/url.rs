//! The registry that a URL names.

use std::sync::Arc;

use super::{Registry, error::RegistryError, static_registry::StaticRegistry};

/// The schemes that this build can open, for messages.
#[cfg(feature = "consul")]
const SCHEMES: &str = "consul://, consuls:// and static://";
#[cfg(not(feature = "consul"))]
const SCHEMES: &str = "static://";

/// The registry that a URL names: `consul://localhost:8500`, `static://host:port,host:port`.
///
/// It opens no connection.
///
/// # Errors
///
/// [`RegistryError::InvalidUrl`] when the URL is malformed, its scheme is unknown, or the Cargo
/// feature of its scheme is off. The message then names the feature.
pub fn connect(url: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| {
        RegistryError::invalid_url(
            url,
            "expected SCHEME://..., for example consul://localhost:8500",
        )
    })?;
    match scheme {
        #[cfg(feature = "consul")]
        "consul" | "consuls" => Ok(Arc::new(super::consul::Consul::from_url(url)?)),
        #[cfg(not(feature = "consul"))]
        "consul" | "consuls" => Err(RegistryError::invalid_url(
            url,
            format!(
                "{scheme}:// needs the feature `consul` of the crate `discovery`, which is off in this build"
            ),
        )),
        "static" => Ok(Arc::new(StaticRegistry::parse(rest)?)),
        _ => Err(RegistryError::invalid_url(
            url,
            format!("unknown scheme {scheme:?}; this build has {SCHEMES}"),
        )),
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
