//! The command line: the subcommands and the flags that all of them have.

use bootstrap::logging::LogArgs;
use clap::{Command, CommandFactory as _, Parser};

use crate::{
    call::CallArgs, doctor::DoctorArgs, exit, register::RegisterArgs, resolve::ResolveArgs,
    watch::WatchArgs,
};

/// Watches, resolves, calls, registers and diagnoses services in Consul, etcd, ZooKeeper, Eureka, DNS
/// or a folder.
#[derive(Debug, Parser)]
#[command(name = "discovery", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Print the changes of a service's instances as they come
    Watch(WatchArgs),
    /// Print a service's instances once; exit code 1 if there is none
    Resolve(ResolveArgs),
    /// Make one unary call, with a request in JSON, by the servers' reflection
    Call(CallArgs),
    /// Run a command and register it while it runs
    Register(RegisterArgs),
    /// Check a channel to a service step by step, and name each failure's cause and remedy
    Doctor(DoctorArgs),
}

impl Subcommand {
    /// The exit code of an error that has no other.
    pub(crate) fn code_of_failure(&self) -> u8 {
        match self {
            Self::Register(_) => exit::NOT_RUN,
            _ => exit::FAILED,
        }
    }
}

/// The command with its flags. A service logs by default, a tool does not.
pub(crate) fn command() -> Command {
    Cli::command()
        .mut_arg("log_level", |flag| flag.default_value("off").global(true))
        .mut_arg("log_format", |flag| flag.global(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_make_sense() {
        command().debug_assert();
    }

    #[test]
    fn a_bad_value_is_refused_with_its_flag() {
        for line in [
            &["resolve", "gopher://x", "s"][..],
            &["resolve", "consul://x", " "],
            &["resolve", "consul://x", "s", "--timeout", "5"],
            &["call", "static://a:1", "s", "Trim", "{}"],
            &[
                "call",
                "static://a:1",
                "s",
                "pb.Trim/TrimSpace",
                "-H",
                "nocolon",
            ],
            &[
                "call",
                "static://a:1",
                "s",
                "pb.Trim/TrimSpace",
                "--attempts",
                "0",
            ],
            &["doctor", "static://a:1", "s", "--tls-key", "k"],
            &["register", "consul://x", "--name", "n", "--port", "1"],
            &[
                "register",
                "consul://x",
                "--name",
                "n",
                "--port",
                "0",
                "--",
                "true",
            ],
            &[
                "register",
                "consul://x",
                "--name",
                "n",
                "--port",
                "1",
                "--check",
                "x",
                "--",
                "true",
            ],
        ] {
            let all = [&["discovery"], line].concat();
            let error = command().try_get_matches_from(all).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        let line = ["discovery", "resolve", "consul://me:hunter2@host:8500", "s"];
        let error = command()
            .try_get_matches_from(line)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("CONSUL_HTTP_TOKEN") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
