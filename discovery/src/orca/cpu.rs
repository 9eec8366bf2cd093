//! The CPU time of this process.

use std::time::Duration;

/// The CPU time that the process has used, in user and in system mode. `None` where the system does not
/// tell it.
pub(super) fn process_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        use nix::sys::{
            resource::{UsageWho, getrusage},
            time::TimeVal,
        };

        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let time = |value: TimeVal| {
            let seconds = u64::try_from(value.tv_sec()).unwrap_or_default();
            let micros = u64::try_from(value.tv_usec()).unwrap_or_default();
            Duration::from_secs(seconds) + Duration::from_micros(micros)
        };
        Some(time(usage.user_time()) + time(usage.system_time()))
    }
    #[cfg(not(unix))]
    None
}

/// The number of CPUs that the process may use, by its affinity and the quota of its control group.
pub(super) fn cpus() -> f64 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_the_process_grows_with_its_work() {
        let before = process_time().unwrap();
        let mut sum = 0_u64;
        while process_time().unwrap() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpus() >= 1.0);
    }
}
