//! Environment variables of a registry's own tools.

use std::ffi::OsString;

use super::RegistryError;

/// The environment variables of a registry's own tools. An empty variable counts as unset.
pub(super) struct Variables<F> {
    registry: &'static str,
    lookup: F,
}

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// Reads each variable with `lookup`. Errors name this registry.
    pub(super) fn new(registry: &'static str, lookup: F) -> Self {
        Self { registry, lookup }
    }

    fn value(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The text of a variable.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, RegistryError> {
        let not_text = |_| self.invalid(format!("{name} is not valid UTF-8"));
        self.value(name)
            .map(|value| value.into_string().map_err(not_text))
            .transpose()
    }

    /// An error about a variable.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::invalid_setting(self.registry, reason)
    }
}

#[cfg(any(feature = "consul", feature = "etcd"))]
impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// The path in a variable.
    pub(super) fn file(&self, name: &str) -> Option<std::path::PathBuf> {
        self.value(name).map(Into::into)
    }

    /// True or false.
    pub(super) fn switch(&self, name: &str) -> Result<Option<bool>, RegistryError> {
        let parse = |text: String| {
            parse_bool(&text)
                .ok_or_else(|| self.invalid(format!("{name} is {text:?}, expected true or false")))
        };
        self.text(name)?.map(parse).transpose()
    }
}

/// True or false as Go's `strconv.ParseBool` reads them, and with it Consul's tools and etcdctl.
#[cfg(any(feature = "consul", feature = "etcd"))]
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}
