//! The library `discovery` on the command line: watches, resolves, calls, registers and diagnoses
//! services in any of its registries.
//!
//! Each subcommand has a module: [`watch`], [`resolve`], [`call`], [`register`], [`doctor`]. `target` has
//! what they share about a service and the connections to its instances, `reflection` the services
//! that a server describes, `output` the lines on standard output.

mod call;
mod cli;
mod doctor;
mod exit;
mod instance_text;
mod output;
mod reflection;
mod register;
mod resolve;
mod table;
mod target;
mod watch;

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use bootstrap::{block_on, generate, logging};
use clap::{FromArgMatches as _, error};

use crate::cli::{Cli, Subcommand};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    generate::if_requested(&cli::command(), &arguments);
    let matches = cli::command().try_get_matches_from(arguments);
    let cli = match matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let failed = cli.subcommand.code_of_failure();
    let mut code = failed;
    let ended = block_on(async {
        logging::init(&cli.log)?;
        code = run(cli.subcommand).await?;
        Ok(())
    });
    if let Err(error) = ended {
        code = explain(&error, failed);
    }
    code.into()
}

async fn run(subcommand: Subcommand) -> anyhow::Result<u8> {
    match subcommand {
        Subcommand::Watch(args) => watch::run(args).await,
        Subcommand::Resolve(args) => resolve::run(args).await,
        Subcommand::Call(args) => call::run(args).await,
        Subcommand::Register(args) => register::run(args).await,
        Subcommand::Doctor(args) => doctor::run(args).await,
    }
}

/// Prints clap's text. The text of `--help` and `--version` is not an error.
fn usage(error: &clap::Error) -> ExitCode {
    // Ignored: the terminal is closed.
    let _printed = error.print();
    match error.kind() {
        error::ErrorKind::DisplayHelp | error::ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => exit::USAGE.into(),
    }
}

/// Prints an error with its sources. A closed pipe is not reported.
fn explain(error: &anyhow::Error, failed: u8) -> u8 {
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) {
        return exit::BROKEN_PIPE;
    }
    // Ignored: the terminal is closed.
    let _printed = writeln!(std::io::stderr(), "error: {error:#}");
    failed
}
