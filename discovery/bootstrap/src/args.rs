//! Reads the command line and the environment.

use std::ffi::{OsStr, OsString};

use clap::{
    Arg, Command, Parser,
    error::{ContextKind, ContextValue},
};
use tracing::warn;

use crate::generate;

/// The flags that select the source of instances. They exclude each other.
const SOURCES: [&str; 3] = ["consul", "registry", "static"];

/// Environment variables that are also read under an older name: the current name, the older one.
const RENAMED: [(&str, &str); 1] = [("ADD_STATIC", "ADD_FIXED")];

/// Flags that have become fields of a file. Their variables were named after them.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "a table that is written as a constant"
)]
pub struct Moved {
    /// The flag that names the file.
    pub file: &'static str,
    /// The prefix of the variables, without the underscore.
    pub prefix: &'static str,
    /// Each flag, and the path of the field.
    pub fields: &'static [(&'static str, &'static str)],
}

impl Moved {
    /// No flag has moved.
    pub const NONE: Self = Self {
        file: "",
        prefix: "",
        fields: &[],
    };

    /// Logs a warning for each variable of such a flag that is set: it has no effect. Call it when the
    /// log is set up.
    pub fn warn(&self) {
        for (variable, field) in self.set(|name| std::env::var_os(name)) {
            let file = self.file;
            warn!("{variable} has no effect: set {field} in the file of {file}");
        }
    }

    /// The variables that are set, with their fields.
    fn set(
        &self,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> impl Iterator<Item = (String, &'static str)> {
        self.fields.iter().filter_map(move |(flag, field)| {
            let name = flag.trim_start_matches('-').replace('-', "_");
            let name = format!("{}_{}", self.prefix, name.to_ascii_uppercase());
            let value = variable(&name)?;
            (!value.is_empty()).then_some((name, *field))
        })
    }

    /// Adds the field to the error about a flag that has moved.
    fn explain(&self, mut error: clap::Error) -> clap::Error {
        let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
            return error;
        };
        let name = flag.split('=').next().unwrap_or(flag);
        let Some((flag, field)) = self.fields.iter().find(|(moved, _)| *moved == name) else {
            return error;
        };
        let tip = format!(
            "set {field} in the file of {}, in place of {flag}",
            self.file
        );
        // A flag with a similar name is not what was meant.
        error.remove(ContextKind::SuggestedArg);
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![tip.into()]),
        );
        error
    }
}

/// Reads the flags, and the environment for flags that are not given. Ends the process with exit
/// code 2 on an invalid value, and with 0 after `--help` and `--version`. The error about a flag that
/// has moved names its field.
///
/// `--generate KIND` as the first argument prints a file for packages, see [`generate`], and ends the
/// process.
///
/// A source of instances on the command line overrides every variable that names another source.
#[must_use]
pub fn parse<A: Parser>(moved: &Moved) -> A {
    let arguments: Vec<_> = std::env::args_os().collect();
    generate::if_requested(&A::command(), &arguments);
    let command = command_line_first(A::command(), &arguments, |name| std::env::var_os(name));
    let matches = command.clone().try_get_matches_from(arguments);
    let mut matches = matches.unwrap_or_else(|error| moved.explain(error).exit());
    A::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut command.clone()).exit())
}

/// Adds the rules between command line and environment that clap does not have:
///
/// - If the command line gives one of [`SOURCES`], the variables of all of them are ignored. clap
///   treats a variable like a flag, and these flags exclude each other.
/// - A repeatable flag keeps each value as it is, delimiters included. The text of its variable is
///   split at them: at commas, or at spaces for URLs, in which commas separate servers.
/// - An empty variable counts as unset, as in Consul's own tools.
fn command_line_first(
    command: Command,
    arguments: &[OsString],
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Command {
    let given = |argument: &Arg| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases).any(|name| {
            let flag = format!("--{name}");
            arguments.iter().filter_map(|a| a.to_str()).any(|given| {
                given
                    .strip_prefix(&flag)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        })
    };
    let is_source = |argument: &Arg| SOURCES.contains(&argument.get_id().as_str());
    let source_given = command.get_arguments().any(|a| is_source(a) && given(a));
    command.mut_args(|argument| {
        let argument = match RENAMED
            .iter()
            .find(|(current, _)| argument.get_env() == Some(OsStr::new(current)))
        {
            Some((current, older))
                if variable(OsStr::new(current)).is_none()
                    && variable(OsStr::new(older)).is_some() =>
            {
                argument.env(*older)
            }
            _ => argument,
        };
        let empty = argument
            .get_env()
            .is_some_and(|name| variable(name).is_some_and(|value| value.is_empty()));
        if empty {
            return argument.env(None::<&'static str>);
        }
        let argument = if source_given && is_source(&argument) {
            argument.env(None::<&'static str>)
        } else {
            argument
        };
        if argument.get_value_delimiter().is_some() && given(&argument) {
            argument.value_delimiter(None)
        } else {
            argument
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;
    use crate::{logging::LogArgs, registry::RegistryArgs};

    #[test]
    fn a_source_on_the_command_line_overrides_the_variables_of_sources() {
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

    const MOVED: Moved = Moved {
        file: "--file",
        prefix: "X",
        fields: &[("--log-levels", "log.levels"), ("--zone", "zone")],
    };

    #[test]
    fn the_error_about_a_flag_that_has_moved_names_its_field() {
        let error = |flag: &str| {
            let command = LogArgs::augment_args(Command::new("x"));
            let error = command.try_get_matches_from(["x", flag]).unwrap_err();
            MOVED.explain(error).to_string()
        };
        for flag in ["--log-levels=a", "--log-levels"] {
            let text = error(flag);
            let tip = "tip: set log.levels in the file of --file, in place of --log-levels\n";
            assert!(
                text.contains("unexpected argument '--log-levels'"),
                "{text}"
            );
            assert!(text.contains(tip) && !text.contains("similar"), "{text}");
        }
        let text = error("--log-leve=a");
        assert!(text.contains("'--log-level'"), "{text}");
    }

    #[test]
    fn the_variable_of_a_flag_that_has_moved_is_found() {
        let set = MOVED.set(|name| match name {
            "X_LOG_LEVELS" => Some("1".into()),
            "X_ZONE" => Some("".into()),
            _ => None,
        });
        let expected = ("X_LOG_LEVELS".to_owned(), "log.levels");
        assert_eq!(set.collect::<Vec<_>>(), [expected]);
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
        // PATH is set in every test run.
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
}
