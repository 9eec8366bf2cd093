//! Runs the binary, and what several test files need beside it.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::Value;
use testkit::{Consul, Options, Process, TrimService, trim_service};
use tokio::sync::Mutex;

/// Long enough for a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_discovery"))
}

/// The result of one run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Asserts that the output has each of these parts, and the exit code.
    pub(crate) fn says(&self, code: i32, parts: &[&str]) {
        for part in parts {
            assert!(
                self.stdout.contains(part) || self.stderr.contains(part),
                "{part:?} is missing: {self:#?}"
            );
        }
        assert_eq!(self.code, code, "{self:#?}");
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Runs the binary to its end.
pub(crate) async fn run(arguments: &[&str]) -> Run {
    run_with(arguments, &[]).await
}

/// Runs it with variables of the environment.
pub(crate) async fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let variables = variables.iter().copied();
    let mut process = Process::spawn_with(binary(), arguments, variables).unwrap();
    ended(&mut process).await
}

/// The result of a process that is about to end.
pub(crate) async fn ended(process: &mut Process) -> Run {
    let status = process.exit(LIMIT).await.unwrap();
    Run {
        code: status.code().unwrap_or(-1),
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

/// A trim service that its registry lists: it listens before that.
pub(crate) async fn listed_trim(flags: &[&str]) -> TrimService {
    let trim = trim_service(flags).await.unwrap();
    let registered = trim.process.stderr_line("registered instance", LIMIT).await;
    registered.unwrap();
    trim
}

/// The Consul of this test file: shared by the tests that run at the same time, and ended with the last.
pub(crate) async fn shared_consul(options: Options) -> Arc<Consul> {
    static SHARED: Mutex<Weak<Consul>> = Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let consul = Arc::new(options.start().await.unwrap());
    *shared = Arc::downgrade(&consul);
    consul
}
