//! When a trim instance is taken out on the evidence of calls, and how it comes back.

use std::time::Duration;

use bootstrap::values::{duration, positive_duration};
use clap::Args;
use discovery::{ChannelBuilder, EjectionPolicy};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Outlier detection")]
pub(super) struct EjectionArgs {
    /// Remove failing instances from use, judged by the results of calls
    #[arg(long, env = "ADD_EJECT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    eject: bool,
    /// Broken or unanswered calls in a row that eject; 0: none do
    #[arg(long, env = "ADD_EJECT_AFTER_BROKEN", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_transport)]
    eject_after_broken: u32,
    /// Bad statuses in a row that eject; 0: none do
    #[arg(long, env = "ADD_EJECT_AFTER_ERRORS", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_status)]
    eject_after_errors: u32,
    /// Calls in a row that a hedged attempt elsewhere overtook, which eject; 0: none do
    #[arg(long, env = "ADD_EJECT_AFTER_OVERTAKEN", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_overtaken)]
    eject_after_overtaken: u32,
    /// How far back shares are counted
    #[arg(long, env = "ADD_EJECT_WINDOW", value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    eject_window: Duration,
    /// Calls in that time before an instance's share counts
    #[arg(long, env = "ADD_EJECT_MIN_CALLS", value_name = "N", default_value_t = EjectionPolicy::default().min_calls)]
    eject_min_calls: u32,
    /// Failing share that ejects if it is far above the others'; 1: none does
    #[arg(long, env = "ADD_EJECT_SHARE", value_name = "SHARE", default_value_t = EjectionPolicy::default().failing_share)]
    eject_share: f64,
    /// Standard deviations below the mean success rate that eject, from five instances up; 0: off
    #[arg(long, env = "ADD_EJECT_DEVIATIONS", value_name = "N", default_value_t = EjectionPolicy::default().success_rate_deviations)]
    eject_deviations: f64,
    /// Time of a first ejection; the n-th in short order takes n times as long
    #[arg(long, env = "ADD_EJECT_TIME", value_name = "DURATION", default_value = "3s", value_parser = positive_duration)]
    eject_time: Duration,
    /// No ejection takes longer
    #[arg(long, env = "ADD_EJECT_TIME_MAX", value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    eject_time_max: Duration,
    /// Share of the instances that may be out at the same time
    #[arg(long, env = "ADD_EJECT_MAX", value_name = "SHARE", default_value_t = EjectionPolicy::default().max_share)]
    eject_max: f64,
    /// Time over which a returning instance gets back to its full share
    #[arg(long, env = "ADD_SLOW_START", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    slow_start: Duration,
}

impl EjectionArgs {
    pub(super) fn apply(&self, builder: ChannelBuilder) -> ChannelBuilder {
        let policy = EjectionPolicy::default()
            .with_enabled(self.eject)
            .with_consecutive_transport(self.eject_after_broken)
            .with_consecutive_status(self.eject_after_errors)
            .with_consecutive_overtaken(self.eject_after_overtaken)
            .with_window(self.eject_window)
            .with_min_calls(self.eject_min_calls)
            .with_failing_share(self.eject_share)
            .with_success_rate_deviations(self.eject_deviations)
            .with_base_time(self.eject_time)
            .with_max_time(self.eject_time_max)
            .with_max_share(self.eject_max)
            .with_slow_start(self.slow_start);
        builder.ejection(policy)
    }
}
