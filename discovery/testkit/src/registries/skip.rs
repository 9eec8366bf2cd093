//! Tests whose server is not on this machine.

use std::{env, io::Write as _};

use anyhow::{Result, bail};

/// Says on standard error that a test is skipped, even if the test harness captures its output.
///
/// # Errors
///
/// In CI, where nothing may be missing: if the variable `CI` is set to anything but `false` or `0`.
pub fn skip(what: &str, reason: &str) -> Result<()> {
    let ci = env::var("CI").unwrap_or_default();
    if !["", "0", "false"].contains(&ci.as_str()) {
        bail!("{what}: {reason} (CI={ci}: tests must not be skipped)");
    }
    // Unlike `eprintln!`, this is not captured.
    writeln!(std::io::stderr(), "SKIPPED: {what}: {reason}")?;
    Ok(())
}
