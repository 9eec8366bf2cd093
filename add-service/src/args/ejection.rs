//! The flags about outlier detection: when a trim instance is ejected, and how it returns.

use std::time::Duration;

use bootstrap::values::{duration, positive_duration};
use clap::Args;
use discovery::{ChannelBuilder, EjectionPolicy};

/// The flags.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Outlier detection")]
pub(super) struct EjectionArgs {
    /// Eject failing instances, judged by the results of calls
    #[arg(long, env = "ADD_EJECT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    eject: bool,
    /// Consecutive broken or unanswered calls that eject an instance; 0: off
    #[arg(long, env = "ADD_EJECT_AFTER_BROKEN", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_transport)]
    eject_after_broken: u32,
    /// Consecutive error statuses that eject an instance; 0: off
    #[arg(long, env = "ADD_EJECT_AFTER_ERRORS", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_status)]
    eject_after_errors: u32,
    /// Consecutive calls overtaken by a hedged attempt that eject an instance; 0: off
    #[arg(long, env = "ADD_EJECT_AFTER_OVERTAKEN", value_name = "N", default_value_t = EjectionPolicy::default().consecutive_overtaken)]
    eject_after_overtaken: u32,
    /// Time window of the failing share
    #[arg(long, env = "ADD_EJECT_WINDOW", value_name = "DURATION", default_value = "10s", value_parser = positive_duration)]
    eject_window: Duration,
    /// Minimum calls in the window for the failing share to count
    #[arg(long, env = "ADD_EJECT_MIN_CALLS", value_name = "N", default_value_t = EjectionPolicy::default().min_calls)]
    eject_min_calls: u32,
    /// Failing share that ejects an instance if it is far above that of the others; 1: off
    #[arg(long, env = "ADD_EJECT_SHARE", value_name = "SHARE", default_value_t = EjectionPolicy::default().failing_share)]
    eject_share: f64,
    /// Standard deviations below the mean success rate that eject an instance, if there are at least
    /// five; 0: off
    #[arg(long, env = "ADD_EJECT_DEVIATIONS", value_name = "N", default_value_t = EjectionPolicy::default().success_rate_deviations)]
    eject_deviations: f64,
    /// Duration of the first ejection; the n-th one in a row is n times as long
    #[arg(long, env = "ADD_EJECT_TIME", value_name = "DURATION", default_value = "3s", value_parser = positive_duration)]
    eject_time: Duration,
    /// Maximum duration of an ejection
    #[arg(long, env = "ADD_EJECT_TIME_MAX", value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    eject_time_max: Duration,
    /// Maximum share of the instances that are ejected at the same time
    #[arg(long, env = "ADD_EJECT_MAX", value_name = "SHARE", default_value_t = EjectionPolicy::default().max_share)]
    eject_max: f64,
    /// Time until an instance that returns receives its full share of calls again
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
