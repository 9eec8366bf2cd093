//! Shell completions and manual pages, which packages install: `PROGRAM --generate KIND`.
//!
//! | kind | what is printed |
//! |---|---|
//! | `man` | the manual page, in section 1 |
//! | `complete-bash`, `complete-zsh`, `complete-fish`, `complete-elvish`, `complete-powershell` | the completions of that shell |
//!
//! The kinds are those of ripgrep. The names of subcommands may follow `man`, for the page of that
//! subcommand: `discovery --generate man watch`. The page of a program with subcommands lists them. The
//! flag must come first, and is not in `--help`: users do not need it.

use std::{ffi::OsString, io, io::Write as _};

use clap::{
    Command, ValueEnum as _,
    error::{Error, ErrorKind},
};
use clap_complete::Shell;
use clap_mangen::Man;

const FLAG: &str = "--generate";

/// Prints the file that the first arguments ask for, and ends the process: with exit code 0, or with 2 for
/// an unknown kind. Returns if they do not ask for one.
///
/// `arguments` begins with the name of the program.
pub fn if_requested(command: &Command, arguments: &[OsString]) {
    let Some(words) = requested(arguments) else {
        return;
    };
    let text = generate(command.clone(), &words).unwrap_or_else(|error| error.exit());
    // Ignored: the reader has closed the pipe.
    let _written = io::stdout().lock().write_all(&text);
    std::process::exit(0);
}

/// The words after the flag: the kind and the subcommands.
fn requested(arguments: &[OsString]) -> Option<Vec<String>> {
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    let first = words.next()?;
    let mut wanted = match first.strip_prefix(FLAG)? {
        "" => Vec::new(),
        rest => vec![rest.strip_prefix('=')?.to_owned()],
    };
    wanted.extend(words.map(Into::into));
    Some(wanted)
}

fn generate(mut command: Command, words: &[String]) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    match words {
        [kind, names @ ..] if kind == "man" => Man::new(page(command, names)?).render(&mut text)?,
        [kind] => match shell(kind) {
            Some(shell) => {
                let name = command.get_name().to_owned();
                clap_complete::generate(shell, &mut command, name, &mut text);
            }
            None => return Err(unknown(&mut command, kind)),
        },
        [] => return Err(unknown(&mut command, "")),
        [_, rest, ..] => {
            let message = format!("unexpected argument '{rest}' after {FLAG}");
            return Err(command.error(ErrorKind::UnknownArgument, message));
        }
    }
    Ok(text)
}

/// The command whose page is wanted: that of the subcommand with these names.
fn page(mut command: Command, names: &[String]) -> Result<Command, Error> {
    // `help` has no page.
    command = command.disable_help_subcommand(true);
    // Gives subcommands their full names.
    command.build();
    for name in names {
        let Some(found) = command.find_subcommand(name).cloned() else {
            let message = format!("no subcommand '{name}'");
            return Err(command.error(ErrorKind::InvalidSubcommand, message));
        };
        command = found;
    }
    Ok(command)
}

fn shell(kind: &str) -> Option<Shell> {
    Shell::from_str(kind.strip_prefix("complete-")?, false).ok()
}

fn unknown(command: &mut Command, kind: &str) -> Error {
    let shells = Shell::value_variants().iter();
    let shells: Vec<_> = shells.map(|shell| format!("complete-{shell}")).collect();
    command.error(
        ErrorKind::InvalidValue,
        format!(
            "invalid value '{kind}' for '{FLAG}': expected man or {}",
            shells.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let watch = Command::new("watch")
            .about("Looks")
            .arg(Arg::new("json").long("json"));
        Command::new("discovery")
            .version("1.2.3")
            .arg(Arg::new("port").long("port").help("Port to listen on"))
            .subcommand(watch)
    }

    fn run(line: &[&str]) -> Option<Result<String, String>> {
        let arguments: Vec<_> = line.iter().map(OsString::from).collect();
        let text = generate(command(), &requested(&arguments)?);
        Some(match text {
            Ok(text) => Ok(String::from_utf8(text).unwrap()),
            Err(error) => Err(error.to_string()),
        })
    }

    #[test]
    fn only_the_first_argument_asks_for_a_file() {
        for line in [
            &["x"][..],
            &["x", "--port", "1", "--generate", "man"],
            &["x", "--generated"],
            &["x", "watch", "--generate", "man"],
        ] {
            assert_eq!(run(line), None, "{line:?}");
        }
        for line in [&["x", "--generate", "man"][..], &["x", "--generate=man"]] {
            let page = run(line).unwrap().unwrap();
            assert!(page.contains(".TH discovery 1"), "{page}");
            assert!(page.contains("Port to listen on"), "{page}");
            assert!(page.contains("discovery\\-watch(1)"), "{page}");
            assert!(!page.contains("discovery\\-help(1)"), "{page}");
        }
    }

    #[test]
    fn a_subcommand_has_a_page_of_its_own() {
        let page = run(&["x", "--generate", "man", "watch"]).unwrap().unwrap();
        assert!(page.contains(".TH discovery-watch 1"), "{page}");
        assert!(page.contains("Looks"), "{page}");
    }

    #[test]
    fn each_shell_has_completions() {
        for shell in Shell::value_variants() {
            let kind = format!("complete-{shell}");
            let text = run(&["x", "--generate", &kind]).unwrap().unwrap();
            assert!(text.contains("port"), "{kind}: {text}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_those_that_exist() {
        for (line, reason) in [
            (&["x", "--generate"][..], "complete-bash"),
            (&["x", "--generate", "complete-cmd"], "expected man or"),
            (&["x", "--generate", "man", "wach"], "no subcommand 'wach'"),
            (
                &["x", "--generate", "complete-zsh", "y"],
                "unexpected argument 'y'",
            ),
        ] {
            let error = run(line).unwrap().unwrap_err();
            assert!(error.contains(reason), "{line:?}: {error}");
        }
    }
}
