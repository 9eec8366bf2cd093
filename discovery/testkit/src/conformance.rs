//! One conformance suite for all registries, against their real servers.
//!
//! A registry's test implements [`Subject`] for its server and calls [`run`]. The suite uses the public
//! traits of `discovery::registry` only. It runs every [`Case`], also after one has failed, prints
//! one table with the bounds that the registry states and the times that it took, and fails if
//! a case has failed.
//!
//! A time beyond its bound does not fail a case by itself where a busy machine may cause it: the table
//! then shows it with an exclamation mark. A case fails if a bound is exceeded by more than
//! [`PATIENCE`].

mod case;
mod control;
mod crash;
mod credentials;
mod entries;
mod malformed;
mod outage;
mod promises;
mod registration;
mod report;
mod restart;
mod scale;
mod subject;
mod watched;

use std::{io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;

use self::report::Report;
pub use self::{
    case::{Case, Finding},
    control::Control,
    credentials::SECURED_SERVICE,
    promises::Promises,
    subject::{Credentials, Subject},
};

/// How much longer than a bound the suite waits, for a machine that does other work.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Limit for one case, which is several waits.
const CASE_LIMIT: Duration = Duration::from_secs(600);

/// Runs every case against the registry's server, and prints the table.
///
/// # Errors
///
/// When a case has failed, with the reasons; and when the server does not start.
pub async fn run<S: Subject>() -> Result<()> {
    let Some(subject) = S::start().await? else {
        return Ok(());
    };
    let mut suite = Suite {
        report: Report::new(S::NAME, &subject.version().await?),
        promises: S::promises(),
        subject: Some(subject),
    };
    suite.case(Case::Seen, registration::seen).await?;
    suite
        .case(Case::RoundTrip, registration::round_trip)
        .await?;
    suite.case(Case::Updated, registration::updated).await?;
    suite
        .case(Case::Deregistered, registration::deregistered)
        .await?;
    suite.case(Case::Malformed, malformed::skipped).await?;
    suite.case(Case::Thousand, scale::thousand).await?;
    suite.case(Case::Killed, crash::killed).await?;
    suite.case(Case::Stopped, crash::stopped).await?;
    suite.case(Case::Outage, outage::outage).await?;
    suite.case(Case::Hang, outage::hang).await?;
    suite.case(Case::Kept, restart::kept).await?;
    suite.case(Case::Wiped, restart::wiped).await?;
    suite
        .case(Case::RightCredentials, credentials::right)
        .await?;
    suite
        .case(Case::WrongCredentials, credentials::wrong)
        .await?;
    suite.finish()
}

/// The cases that have run against one kind of server.
struct Suite<S> {
    promises: Promises,
    report: Report,
    /// `None` after a case has failed: the next one starts a server of its own.
    subject: Option<S>,
}

impl<S: Subject> Suite<S> {
    async fn case(
        &mut self,
        case: Case,
        run: impl AsyncFnOnce(&mut S) -> Result<Finding>,
    ) -> Result<()> {
        if let Some(reason) = self.promises.reason(case) {
            self.report.not_applicable(case, reason);
            return Ok(());
        }
        let mut subject = match self.subject.take() {
            Some(subject) => subject,
            None => S::start().await?.context("the server is no longer there")?,
        };
        let result = match timeout(CASE_LIMIT, run(&mut subject)).await {
            Ok(result) => result,
            Err(elapsed) => Err(elapsed).context(format!("not within {CASE_LIMIT:?}")),
        };
        if result.is_ok() {
            self.subject = Some(subject);
        }
        self.report.ran(case, self.promises.bound(case), result);
        // Unlike the macros, this is not captured by the test harness.
        writeln!(std::io::stderr(), "{}: {}", S::NAME, self.report.last())?;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        writeln!(std::io::stdout(), "\n{}", self.report.text(&self.promises))?;
        let failures = self.report.failures();
        ensure!(failures.is_empty(), "{}: {failures}", S::NAME);
        Ok(())
    }
}
