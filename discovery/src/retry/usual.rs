//! The time that each method usually takes, by the answers of all instances. An attempt that had less
//! time says nothing about its instance.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Number of methods that are told apart. Methods with the same slot share a mean.
pub(super) const SLOTS: usize = 256;
/// The weight of one answer in the mean is one part in this many.
const SAMPLES: i64 = 16;

/// Mean latencies by method. It takes no lock.
#[derive(Debug)]
pub(crate) struct UsualLatency {
    /// In microseconds; 0 if no answer is known.
    means: Box<[AtomicU32]>,
}

/// The place of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodSlot(usize);

impl MethodSlot {
    /// The place of the method whose path has this hash.
    pub(crate) fn of(hash: u64) -> Self {
        // The remainder is less than 256.
        #[allow(clippy::cast_possible_truncation)]
        let slot = (hash % SLOTS as u64) as usize;
        Self(slot)
    }

    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl Default for UsualLatency {
    fn default() -> Self {
        Self {
            means: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl UsualLatency {
    /// Adds the latency of an answer.
    pub(crate) fn add(&self, method: MethodSlot, latency: Duration) {
        let sample = u32::try_from(latency.as_micros())
            .unwrap_or(u32::MAX)
            .max(1);
        let mean = &self.means[method.0];
        let old = mean.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            let step = (i64::from(sample) - i64::from(old)) / SAMPLES;
            u32::try_from(i64::from(old) + step).unwrap_or(old)
        };
        // Of two answers at the same time one may be lost, which a mean can bear.
        if new != old {
            mean.store(new, Ordering::Relaxed);
        }
    }

    /// Forgets the answers, as no instance has the method now.
    pub(crate) fn forget(&self, method: MethodSlot) {
        self.means[method.0].store(0, Ordering::Relaxed);
    }

    /// The mean latency; `None` before the first answer.
    pub(crate) fn get(&self, method: MethodSlot) -> Option<Duration> {
        let micros = self.means[method.0].load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(path: &str) -> MethodSlot {
        MethodSlot::of(crate::hash::bytes(path.as_bytes()))
    }

    #[test]
    fn the_mean_follows_the_answers_of_its_method() {
        let usual = UsualLatency::default();
        let method = slot("/pb.Trim/TrimSpace");
        let other = slot("/pb.Add/Sum");
        assert_ne!(method, other);
        assert_eq!(usual.get(method), None);
        usual.add(method, Duration::from_millis(10));
        assert_eq!(usual.get(method), Some(Duration::from_millis(10)));
        usual.add(method, Duration::from_millis(170));
        assert_eq!(usual.get(method), Some(Duration::from_millis(20)));
        for _ in 0..200 {
            usual.add(method, Duration::from_millis(300));
        }
        assert_eq!(usual.get(method).unwrap().as_millis(), 299);
        assert_eq!(usual.get(other), None);
        usual.forget(method);
        assert_eq!(usual.get(method), None);
    }

    #[test]
    fn any_latency_is_an_answer() {
        let usual = UsualLatency::default();
        let method = slot("/a.A/A");
        usual.add(method, Duration::ZERO);
        assert_eq!(usual.get(method), Some(Duration::from_micros(1)));
        for latency in [Duration::MAX, Duration::ZERO] {
            usual.add(method, latency);
            assert!(usual.get(method).is_some());
        }
    }
}
