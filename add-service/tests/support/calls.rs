//! Continuous calls to an add service, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use testkit::eventually;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

use super::{Http, LIMIT};

/// Calls made at the same time, each followed by the next after this long at the earliest.
const CALLERS: usize = 3;
const PACE: Duration = Duration::from_millis(10);

/// The results of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: u32,
    pub(crate) failed: Vec<String>,
    /// How many texts each instance trimmed.
    served: BTreeMap<String, u32>,
}

impl Tally {
    pub(crate) fn served(&self, id: &str) -> u32 {
        self.served.get(id).copied().unwrap_or_default()
    }
}

/// Calls that go on until this is dropped.
pub(crate) struct Calls {
    tally: Arc<Mutex<Tally>>,
    callers: JoinSet<()>,
}

impl Calls {
    pub(crate) fn start(http: &Http) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (http, tally) = (http.clone(), Arc::clone(&tally));
            callers.spawn(async move {
                let begun = Instant::now();
                let mut pace = interval(PACE);
                loop {
                    pace.tick().await;
                    let answer = http.post("/concat", r#"{"a":"1 0","b":"2 0"}"#).await;
                    let mut tally = tally.lock().unwrap();
                    tally.calls += 1;
                    if answer.status == 200 && answer.text == r#"{"v":"1020"}"# {
                        for id in answer.header("x-trim-instance").split(',') {
                            *tally.served.entry(id.to_owned()).or_default() += 1;
                        }
                    } else {
                        let (at, status) = (begun.elapsed(), answer.status);
                        tally
                            .failed
                            .push(format!("after {at:?}: {status} {}", answer.text));
                    }
                }
            });
        }
        Self { tally, callers }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Waits for this many more calls, so that a state is not judged without calls.
    pub(crate) async fn more(&self, calls: u32) {
        let goal = self.tally().calls + calls;
        let look = async || match self.tally().calls {
            calls if calls >= goal => Ok(()),
            calls => Err(calls),
        };
        eventually("calls go on", LIMIT, look).await.unwrap();
    }

    /// Waits until each of these instances has received further calls.
    pub(crate) async fn reach(&self, ids: &[&str]) -> Duration {
        let before = self.tally();
        let look = async || {
            let now = self.tally();
            let missing = |id: &&&str| now.served(id) < before.served(id) + 3;
            match ids.iter().find(missing) {
                None => Ok(()),
                Some(id) => Err(format!("no calls to {id}: {now:?}")),
            }
        };
        eventually("calls reach the instances", LIMIT, look)
            .await
            .unwrap()
            .1
    }

    /// Waits until this instance receives none of 60 calls.
    pub(crate) async fn leave(&self, id: &str) {
        let mut since = self.tally();
        let look = async || {
            let now = self.tally();
            if now.served(id) != since.served(id) {
                since = now;
            } else if now.calls >= since.calls + 60 {
                return Ok(());
            }
            Err(since.clone())
        };
        eventually(&format!("no calls to {id}"), LIMIT, look)
            .await
            .unwrap();
    }

    /// Ends the calls and asserts that none has failed.
    pub(crate) async fn end(mut self) {
        self.more(30).await;
        // A caller ends by itself only if it panics: its connection to the add service broke.
        if let Some(ended) = self.callers.try_join_next() {
            ended.unwrap();
        }
        self.callers.shutdown().await;
        let tally = self.tally();
        assert!(
            tally.failed.is_empty(),
            "{} of {} calls failed: {:#?}",
            tally.failed.len(),
            tally.calls,
            tally.failed
        );
    }
}
