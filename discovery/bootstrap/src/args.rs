//! Flags that every service has, and the parsers of their values.

#![allow(clippy::doc_markdown, reason = "the comments are what --help prints")]

use std::{
    ffi::{OsStr, OsString},
    net::IpAddr,
    time::Duration,
};

use clap::{Arg, Args, Command, Parser, ValueEnum, builder::TypedValueParser, error::ErrorKind};

use discovery::{Instance, registry::RegistryError};

/// Which registry to use.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// Consul's address; short for --registry consul://HOST:PORT. Without either flag it is
    /// CONSUL_HTTP_ADDR, or localhost:8500
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, conflicts_with = "registry")]
    consul: Option<String>,
    /// The registry's URL: consul://HOST:PORT, consuls://HOST:PORT (with TLS),
    /// static://HOST:PORT,HOST:PORT. Consul's own variables (CONSUL_HTTP_TOKEN, CONSUL_HTTP_AUTH,
    /// CONSUL_HTTP_SSL, CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY,
    /// CONSUL_NAMESPACE and so on) mean what they mean there
    #[arg(
        long,
        value_name = "URL",
        env = "REGISTRY_URL",
        hide_env_values = true,
        value_parser = RegistryUrl
    )]
    registry: Option<String>,
}

impl RegistryArgs {
    /// The registry's URL. `consul://` without a host leaves the address to Consul's environment.
    #[must_use]
    pub fn url(&self) -> String {
        match (&self.consul, &self.registry) {
            (Some(address), _) => format!("consul://{address}"),
            (None, Some(url)) => url.clone(),
            (None, None) => "consul://".to_owned(),
        }
    }
}

/// The flags that say where instances are known; one of them is enough.
const SOURCES: [&str; 3] = ["consul", "registry", "fixed"];

/// Reads the flags, and the environment for those that are not given. Ends the process with exit
/// code 2 when a value makes no sense, and with 0 after `--help` and `--version`.
///
/// What the command line says about where instances are known wins over any variable about it, as
/// with every other flag.
#[must_use]
pub fn parse<A: Parser>() -> A {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = command_line_first(A::command(), &arguments, |name| std::env::var_os(name));
    let mut matches = command.clone().get_matches_from(arguments);
    A::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut command.clone()).exit())
}

/// Settles what the command line and the environment mean together, which clap cannot be told:
///
/// - where the command line gives one of [`SOURCES`], the variables of all of them are put aside: to
///   clap a variable is as good as a flag, and two of these flags contradict each other;
/// - a flag that can be repeated takes each value as it is, commas and all; the one text of its
///   variable is split;
/// - an empty variable counts as unset, as it does to Consul's own tools.
fn command_line_first(
    command: Command,
    arguments: &[OsString],
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Command {
    let given = |id: &str| {
        let flag = format!("--{id}");
        arguments.iter().filter_map(|a| a.to_str()).any(|argument| {
            argument
                .strip_prefix(&flag)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    let source_given = SOURCES.iter().any(|id| given(id));
    command.mut_args(|argument| {
        let id = argument.get_id().as_str();
        let empty = argument
            .get_env()
            .is_some_and(|name| variable(name).is_some_and(|value| value.is_empty()));
        if empty {
            return argument.env(None::<&'static str>);
        }
        if source_given && SOURCES.contains(&id) {
            argument.env(None::<&'static str>)
        } else if argument.get_value_delimiter().is_some() && given(id) {
            argument.value_delimiter(None)
        } else {
            argument
        }
    })
}

/// What to log, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// error, warn, info, debug, trace, or directives such as info,discovery=debug
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LOG_LEVEL",
        default_value = "info",
        value_parser = crate::logging::directives
    )]
    pub log_level: String,
    /// How lines look; logs go to standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "LOG_FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

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

/// A registry's URL, as far as it can be checked without asking it.
///
/// # Errors
///
/// When its scheme is unknown or its address malformed.
pub fn registry_url(text: &str) -> Result<String, String> {
    match discovery::registry::connect(text) {
        // Where the environment is wrong, starting up says so.
        Ok(_) | Err(RegistryError::InvalidSetting { .. }) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a registry's URL. clap's own error would show the text, and with it a password that somebody
/// has put there.
#[derive(Clone)]
struct RegistryUrl;

impl TypedValueParser for RegistryUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let text = value.to_str().ok_or("it is not valid UTF-8".to_owned());
        text.and_then(registry_url).map_err(|reason| {
            let message = format!("invalid value for '--registry <URL>': {reason}");
            command.clone().error(ErrorKind::ValueValidation, message)
        })
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
    fn a_source_on_the_command_line_puts_the_variables_of_sources_aside() {
        let variables = |line: &[&str]| {
            let line: Vec<_> = line.iter().map(OsString::from).collect();
            let command = RegistryArgs::augment_args(Command::new("x"));
            let command = LogArgs::augment_args(command);
            command_line_first(command, &line, |_| None)
                .get_arguments()
                .filter(|argument| argument.get_env().is_some())
                .map(|argument| argument.get_id().to_string())
                .collect::<Vec<_>>()
        };
        let all = ["registry", "log_level", "log_format"];
        for line in [&["x"][..], &["x", "--consult=1"], &["x", "consul"]] {
            assert_eq!(variables(line), all, "{line:?}");
        }
        for line in [
            &["x", "--consul", "h:1"][..],
            &["x", "--registry=static://h:1"],
        ] {
            assert_eq!(variables(line), all[1..], "{line:?}");
        }
    }

    #[test]
    fn a_registry_s_password_is_not_shown() {
        let command = RegistryArgs::augment_args(Command::new("x"));
        let line = ["x", "--registry", "consul://me:hunter2@host:8500"];
        let error = command.try_get_matches_from(line).unwrap_err().to_string();
        assert!(
            error.contains("--registry") && error.contains("CONSUL_HTTP_TOKEN"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let command = || LogArgs::augment_args(Command::new("x"));
        let seen = |value: &str| {
            let value = OsString::from(value);
            command_line_first(command(), &[], |name| {
                (name == "LOG_LEVEL").then(|| value.clone())
            })
            .get_arguments()
            .any(|argument| argument.get_env() == Some(OsStr::new("LOG_LEVEL")))
        };
        assert!(seen("debug"));
        assert!(!seen(""));
    }

    #[test]
    fn commas_separate_in_a_variable_and_not_on_the_command_line() {
        // A variable that every test run has, so that none need be set.
        let text = std::env::var("PATH").unwrap();
        let first = text.chars().next().unwrap();
        let values = |line: &[&str]| {
            let command = Command::new("x").arg(
                Arg::new("tag")
                    .long("tag")
                    .env("PATH")
                    .action(clap::ArgAction::Append)
                    .value_delimiter(first),
            );
            let arguments: Vec<_> = line.iter().map(OsString::from).collect();
            let matches =
                command_line_first(command, &arguments, |_| None).get_matches_from(arguments);
            let values = matches.get_many::<String>("tag").unwrap();
            values.cloned().collect::<Vec<_>>()
        };
        assert_eq!(values(&["x"]), text.split(first).collect::<Vec<_>>());
        assert_eq!(values(&["x", "--tag", &text, "--tag=b"]), [&text, "b"]);
    }

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
