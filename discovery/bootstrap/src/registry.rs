//! The flags that select the registry.

#![allow(clippy::doc_markdown, reason = "the comments are what --help prints")]

use std::{ffi::OsStr, sync::Arc};

use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};
use discovery::registry::{Registry, RegistryError, Union, connect};

use crate::values::host_port;

/// The flags that select the registry.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Consul's address, short for --registry consul://HOST:PORT. The default of both flags is
    /// CONSUL_HTTP_ADDR, or else localhost:8500
    #[arg(long, value_name = "HOST:PORT", value_parser = Private(consul_address), conflicts_with = "registry")]
    consul: Option<String>,
    /// The registry's URL; repeat the flag for several registries, whose instances are used together
    /// and in all of which a service registers: consul://HOST:PORT, consuls://HOST:PORT (with TLS),
    /// etcd://HOST:PORT,HOST:PORT/PREFIX?layout=gokit|grpc, etcds://... (with TLS),
    /// zookeeper://HOST:PORT,.../PATH?layout=curator|gokit, zookeepers://... (with TLS),
    /// eureka://HOST:PORT,.../PATH, eurekas://... (with TLS), dns://[RESOLVER:PORT]/NAME (SRV records;
    /// lists only), dns+a://[RESOLVER:PORT]/NAME:PORT (addresses; lists only), embedded://[FOLDER] (a
    /// folder of this machine) or static://HOST:PORT,HOST:PORT (lists only). Consul's own variables
    /// (CONSUL_HTTP_TOKEN, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL, CONSUL_CACERT, CONSUL_CAPATH,
    /// CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE and others) apply as in Consul's own
    /// tools, and those of etcdctl (ETCDCTL_USER, ETCDCTL_PASSWORD, ETCDCTL_CACERT and others) to etcd
    #[arg(
        long,
        value_name = "URL",
        env = "REGISTRY_URL",
        hide_env_values = true,
        value_delimiter = ' ',
        value_parser = Private(registry_url)
    )]
    registry: Vec<String>,
}

impl RegistryArgs {
    /// The registries, each opened by its URL. Opens no connection.
    ///
    /// # Errors
    ///
    /// When the environment or a file of a registry's settings cannot be used.
    pub fn open_each(&self) -> Result<Vec<Arc<dyn Registry>>, RegistryError> {
        let urls = match &self.consul {
            Some(address) => vec![format!("consul://{address}")],
            // `consul://` takes the address from Consul's environment.
            None if self.registry.is_empty() => vec!["consul://".to_owned()],
            None => self.registry.clone(),
        };
        urls.iter().map(|url| connect(url)).collect()
    }

    /// The registries as one, for watching.
    ///
    /// # Errors
    ///
    /// As [`open_each`](Self::open_each).
    pub fn open(&self) -> Result<Arc<dyn Registry>, RegistryError> {
        let each = self.open_each()?.into_iter();
        let several = |all: Arc<dyn Registry>, next| Arc::new(Union::new(all).with(next)) as _;
        each.reduce(several)
            .map_or_else(|| connect("consul://"), Ok)
    }
}

/// The parser of a registry's URL as a flag or an argument. Its errors do not show a password.
#[must_use]
pub fn url_parser() -> impl TypedValueParser<Value = String> {
    Private(registry_url)
}

/// Checks a registry's URL without contacting the registry.
///
/// # Errors
///
/// When the scheme is unknown or the address is malformed.
pub fn registry_url(text: &str) -> Result<String, String> {
    if let (None, Some((_password, host))) = (text.split_once("://"), text.rsplit_once('@')) {
        return Err(format!(
            "expected SCHEME://..., for example consul://{host}"
        ));
    }
    match connect(text) {
        // An error of the environment is reported at the start, not as one of the flag.
        Ok(_) | Err(RegistryError::InvalidSetting { .. }) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Consul's address. A password in it is refused, and not shown.
fn consul_address(text: &str) -> Result<String, String> {
    match text.rsplit_once('@') {
        Some((_password, host)) => Err(format!(
            "expected HOST:PORT without a user and password before {host:?}; set CONSUL_HTTP_TOKEN or \
             CONSUL_HTTP_AUTH"
        )),
        None => host_port(text),
    }
}

/// A parser whose errors show a value only as far as its function does. clap's own error would show
/// the value with its password.
#[derive(Clone)]
struct Private(fn(&str) -> Result<String, String>);

impl TypedValueParser for Private {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let text = value.to_str().ok_or("not valid UTF-8".to_owned());
        text.and_then(self.0).map_err(|reason| {
            let flag = argument.map_or_else(String::new, |flag| format!(" for '{flag}'"));
            let message = format!("invalid value{flag}: {reason}");
            command.clone().error(ErrorKind::ValueValidation, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn error(url: &str) -> String {
        refused("--registry", url)
    }

    fn refused(flag: &str, value: &str) -> String {
        let command = RegistryArgs::augment_args(Command::new("x"));
        let line = ["x", flag, value];
        command.try_get_matches_from(line).unwrap_err().to_string()
    }

    #[test]
    fn a_registry_password_is_not_shown() {
        let error = error("consul://me:hunter2@host:8500");
        assert!(
            error.contains("--registry") && error.contains("CONSUL_HTTP_TOKEN"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
        for (flag, value) in [
            ("--consul", "me:hunter2@host:8500"),
            ("--consul", "me:hunter2@host"),
            ("--consul", "hunter2@host:8500"),
            ("--consul", "http://me:hunter2@host:8500"),
            ("--registry", "me:hunter2@host:8500"),
            ("--registry", "//me:hunter2@host:8500"),
        ] {
            let error = refused(flag, value);
            assert!(error.contains(flag) && error.contains("host"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = refused("--consul", "me:hunter2@host:8500");
        assert!(error.contains("CONSUL_HTTP_AUTH"), "{error}");
        let error = refused("--consul", "localhost");
        let reason =
            "invalid value for '--consul <HOST:PORT>': invalid instance address \"localhost\"";
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn several_registries_are_used_together() {
        let open = |flags: &[&str]| {
            let command = RegistryArgs::augment_args(Command::new("x").no_binary_name(true));
            let mut matches = command.try_get_matches_from(flags).unwrap();
            let args = RegistryArgs::from_arg_matches_mut(&mut matches).unwrap();
            let each = args.open_each().unwrap().len();
            (each, args.open().unwrap().name().to_owned())
        };
        let one = ["--registry", "embedded:///a"];
        assert_eq!(open(&one), (1, "embedded:///a".to_owned()));
        let flags = [&one[..], &["--registry", "consul://h:1"]].concat();
        assert_eq!(
            open(&flags),
            (2, "embedded:///a and consul://h:1".to_owned())
        );
    }

    #[test]
    fn a_bad_url_is_refused_with_the_reason() {
        for (url, reason) in [
            (
                "consul",
                "expected SCHEME://..., for example consul://localhost:8500",
            ),
            ("gopher://x", "unknown scheme"),
            ("static://a", "expected HOST:PORT"),
        ] {
            let error = error(url);
            let begin = "error: invalid value for '--registry <URL>': ";
            assert!(error.starts_with(begin), "{error}");
            assert!(error.contains(reason), "{error}");
        }
    }
}
