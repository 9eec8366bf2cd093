//! Logs on standard error, as text or as JSON, and the flags for them.

#![allow(clippy::doc_markdown, reason = "the comments are what --help prints")]

use std::io::{IsTerminal as _, Stderr};

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{
        self,
        format::{DefaultFields, Format},
    },
    layer::SubscriberExt as _,
    registry,
    util::SubscriberInitExt as _,
};

use crate::{otlp, spans};

/// The flags for logging.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Log level: off, error, warn, info, debug or trace, or directives such as
    /// info,discovery=debug
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LOG_LEVEL",
        default_value = "info",
        value_parser = directives
    )]
    pub log_level: String,
    /// Format of log lines, which go to standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "LOG_FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Human,
    /// One JSON object per line.
    Json,
}

/// Checks a level or a list of directives and keeps it as written.
///
/// # Errors
///
/// If a directive is invalid.
pub fn directives(text: &str) -> Result<String, String> {
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let plain = !text.contains(['=', ',', '[']);
    // The filter accepts any word as a target's name: a misspelt level would disable all logs.
    if plain && !known.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(format!("expected one of {}", known.join(", ")));
    }
    EnvFilter::builder()
        .parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Starts logging, and the export of [spans] if the variables `OTEL_*` ask for it. A second call has no
/// effect.
///
/// # Errors
///
/// If one of these variables is invalid; if there is an export, outside a tokio runtime.
pub fn init(args: &LogArgs) -> anyhow::Result<()> {
    let filter = filter(&args.log_level);
    let ansi = std::io::stderr().is_terminal();
    // Only a second call fails, and logging is already on then.
    let _already_on = match (otlp::start()?, args.log_format) {
        // Each layer has its own filter, or else spans would be in the log.
        (Some(export), LogFormat::Json) => registry()
            .with(export.with_filter(spans::filter()))
            .with(lines().json().flatten_event(true).with_filter(filter))
            .try_init(),
        (Some(export), LogFormat::Human) => registry()
            .with(export.with_filter(spans::filter()))
            .with(lines().with_ansi(ansi).with_filter(filter))
            .try_init(),
        (None, LogFormat::Json) => registry()
            .with(filter)
            .with(lines().json().flatten_event(true))
            .try_init(),
        (None, LogFormat::Human) => registry()
            .with(filter)
            .with(lines().with_ansi(ansi))
            .try_init(),
    };
    Ok(())
}

/// Log lines on standard error.
fn lines<S>() -> fmt::Layer<S, DefaultFields, Format, fn() -> Stderr> {
    fmt::Layer::default().with_writer(std::io::stderr)
}

/// The filter of these directives. The crate h2 warns of each connection that it ends, which a client can
/// repeat without limit; the server has a line of its own for that.
fn filter(directives: &str) -> EnvFilter {
    match directives.to_ascii_lowercase().as_str() {
        "info" | "warn" => EnvFilter::new(format!("{directives},h2=error")),
        _ => EnvFilter::new(directives),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_h2_are_shown_only_if_they_are_asked_for() {
        for (directives, expected) in [
            ("info", "h2=error,info"),
            ("WARN", "h2=error,warn"),
            ("debug", "debug"),
            ("info,h2=debug", "h2=debug,info"),
        ] {
            assert_eq!(filter(directives).to_string(), expected);
        }
    }

    #[test]
    fn a_misspelt_level_is_an_error() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,discovery=debug",
            "discovery=trace",
        ] {
            assert_eq!(directives(text).as_deref(), Ok(text));
        }
        for text in ["", "inof", "verbose"] {
            let reason = directives(text).unwrap_err();
            assert_eq!(
                reason,
                "expected one of off, error, warn, info, debug, trace"
            );
        }
        let reason = directives("discovery=loud").unwrap_err();
        assert!(
            reason.starts_with("error parsing level filter: expected one of \"off\", \"error\""),
            "{reason}"
        );
    }
}
