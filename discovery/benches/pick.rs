//! Cost of one pick, by policy, size of the set and number of concurrent threads.
//!
//! A pick loads the set from its atomic pointer, calls the picker, and takes the endpoint at the
//! returned index, as a call does.
//!
//! The row "shared counter" only counts, in one cache line that all threads write to. A rotation that is
//! exact from any number of threads cannot cost less. Sets of more than 1 024 endpoints do not have one.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::Criterion;
use discovery::{
    Instance,
    balance::{Context, Picker, Policy},
    endpoint::Endpoint,
};
use testkit::Table;

const SIZES: [u16; 3] = [3, 100, 10_000];
const THREADS: [usize; 2] = [1, 2];

/// The part of a channel's snapshot that a pick uses.
struct Set {
    candidates: Vec<Arc<Endpoint>>,
    picker: Box<dyn Picker>,
}

/// The name of the row of [`Counter`].
const COUNTER: &str = "shared counter";

/// Counts picks, and always picks the first endpoint.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicUsize);

impl Picker for Counter {
    fn pick(&self, _candidates: &[Arc<Endpoint>], _context: &Context) -> usize {
        black_box(self.0.fetch_add(1, Ordering::Relaxed));
        0
    }
}

impl Set {
    fn of(name: &str, size: u16) -> Arc<ArcSwap<Self>> {
        let endpoint = |port| Arc::new(Endpoint::new(Instance::new("127.0.0.1", port).unwrap()));
        let candidates: Vec<_> = (1..=size).map(endpoint).collect();
        let picker = if name == COUNTER {
            Box::new(Counter::default())
        } else {
            let policy: Policy = name.parse().unwrap();
            policy.balancer().picker(&candidates)
        };
        Arc::new(ArcSwap::from_pointee(Self { candidates, picker }))
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    let mut table = Table::new([
        "ns per pick",
        "1 thread: 3",
        "100",
        "10000",
        "2 threads: 3",
        "100",
        "10000",
        "target",
    ]);
    for name in [COUNTER].iter().chain(Policy::NAMES) {
        let mut cells = vec![(*name).to_owned()];
        for threads in THREADS {
            for size in SIZES {
                let nanos = bench(&mut criterion, name, size, threads);
                cells.push(nanos.map_or_else(|| "-".to_owned(), |nanos| format!("{nanos:.1}")));
            }
        }
        let target = match *name {
            "round-robin" => "<= 15 on 1, <= 40 on 2",
            _ => "",
        };
        cells.push(target.to_owned());
        table.row(cells);
    }
    criterion.final_summary();
    // A test run picks once, which measures nothing.
    if !std::env::args().any(|arg| arg == "--test") {
        println!("\n{table}");
    }
}

/// The median of the samples in ns per pick; `None` if the command line's filter excludes it.
fn bench(criterion: &mut Criterion, name: &str, size: u16, threads: usize) -> Option<f64> {
    let set = Set::of(name, size);
    let mut samples = Vec::new();
    criterion.bench_function(&format!("{name}, {threads} thread(s), {size}"), |bencher| {
        bencher.iter_custom(|picks| {
            let taken = time(&set, threads, picks);
            #[allow(clippy::cast_precision_loss, reason = "an average for the table")]
            samples.push((picks, taken.as_secs_f64() * 1e9 / picks as f64));
            taken
        });
    });
    // Criterion's first samples have few picks, because it is still estimating their cost.
    let most = samples.iter().map(|(picks, _)| *picks).max()?;
    let mut samples: Vec<_> = samples
        .into_iter()
        .filter_map(|(picks, nanos)| (picks >= most / 2).then_some(nanos))
        .collect();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// The time of `picks` picks in each of the threads, which run concurrently.
fn time(set: &Arc<ArcSwap<Set>>, threads: usize, picks: u64) -> Duration {
    if threads == 1 {
        return pick(set, picks);
    }
    let barrier = Barrier::new(threads);
    let total: Duration = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    pick(set, picks)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    total / u32::try_from(threads).unwrap()
}

fn pick(set: &ArcSwap<Set>, picks: u64) -> Duration {
    let mut random = fastrand::Rng::with_seed(7);
    let begun = Instant::now();
    for _ in 0..picks {
        let set = set.load();
        let random = random.u64(..);
        let context = Context::new(begun, random).with_key(random);
        let index = set.picker.pick(&set.candidates, black_box(&context));
        black_box(set.candidates.get(index));
    }
    begun.elapsed()
}
