//! A recorder of metrics that tests can read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder as Facade,
    SharedString, Unit,
};

/// Clones are handles to the same values.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Values>);

#[derive(Default)]
struct Values {
    described: Mutex<BTreeSet<String>>,
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Samples>>>,
}

#[derive(Default)]
struct Samples(AtomicUsize);

impl HistogramFn for Samples {
    fn record(&self, _: f64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Recorder {
    /// The value of a counter, such as `calls_total{service=a,outcome=ok}`.
    pub(crate) fn counter(&self, series: &str) -> Option<u64> {
        let counters = self.0.counters.lock().unwrap();
        Some(counters.get(series)?.load(Ordering::SeqCst))
    }

    /// The sum of a counter's series, over all values of its labels.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let counters = self.0.counters.lock().unwrap();
        counters
            .iter()
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .map(|(_, value)| value.load(Ordering::SeqCst))
            .sum()
    }

    pub(crate) fn gauge(&self, series: &str) -> Option<f64> {
        let gauges = self.0.gauges.lock().unwrap();
        Some(f64::from_bits(gauges.get(series)?.load(Ordering::SeqCst)))
    }

    /// The number of samples of a histogram.
    pub(crate) fn samples(&self, series: &str) -> Option<usize> {
        let histograms = self.0.histograms.lock().unwrap();
        Some(histograms.get(series)?.0.load(Ordering::SeqCst))
    }

    pub(crate) fn is_described(&self, name: &str) -> bool {
        self.0.described.lock().unwrap().contains(name)
    }

    fn describe(&self, name: &KeyName) {
        let mut described = self.0.described.lock().unwrap();
        described.insert(name.as_str().to_owned());
    }
}

fn series(key: &Key) -> String {
    let labels: Vec<_> = key
        .labels()
        .map(|label| format!("{}={}", label.key(), label.value()))
        .collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Facade for Recorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.counters.lock().unwrap();
        Counter::from_arc(Arc::clone(counters.entry(series(key)).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut gauges = self.0.gauges.lock().unwrap();
        Gauge::from_arc(Arc::clone(gauges.entry(series(key)).or_default()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut histograms = self.0.histograms.lock().unwrap();
        Histogram::from_arc(Arc::clone(histograms.entry(series(key)).or_default()))
    }
}
