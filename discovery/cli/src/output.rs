//! Lines on standard output, each of which is flushed at once.

use std::{
    io::{self, Write as _},
    time::SystemTime,
};

use serde::Serialize;

/// Prints a text, which ends with a line break. A reader of a pipe sees it at once.
///
/// # Errors
///
/// `BrokenPipe` if the reader has closed the pipe, which ends the program without a message.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a value as one line of JSON.
///
/// # Errors
///
/// As [`print`].
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string(value)?))
}

/// Prints a value as indented JSON.
///
/// # Errors
///
/// As [`print`].
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints a line on standard error, for what is not the result.
pub(crate) fn note(line: &str) {
    // Ignored: a closed standard error does not change the result.
    let _printed = writeln!(io::stderr(), "{line}");
}

/// The present time in UTC, to the second.
pub(crate) fn now() -> String {
    utc(SystemTime::now())
}

/// A time in UTC, to the second.
pub(crate) fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
