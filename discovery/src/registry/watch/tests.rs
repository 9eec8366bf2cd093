//! The driver's promises, on a paused clock with a scripted source.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Instant, advance},
};

use super::*;
use crate::instance::Instance;

/// Returns the results that the test sends.
struct Scripted(mpsc::UnboundedReceiver<Result<Update, RegistryError>>);

impl Source for Scripted {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(result) => result,
                None => std::future::pending().await,
            }
        })
    }
}

type Script = mpsc::UnboundedSender<Result<Update, RegistryError>>;

fn start() -> (Script, WatchDriver, watch::Receiver<InstanceSet>) {
    let (script, results) = mpsc::unbounded_channel();
    let driver = WatchDriver::start("scripted", "trim", Scripted(results)).unwrap();
    let sets = driver.watch();
    (script, driver, sets)
}

fn listing(hosts: &[&str]) -> Update {
    let instances = hosts.iter().map(|host| Instance::new(*host, 1).unwrap());
    instances.collect::<Listing>().into()
}

fn failure() -> RegistryError {
    RegistryError::Malformed {
        registry: "scripted".to_owned(),
        action: "watch trim".to_owned(),
        reason: "not a list".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_equal_answer_confirms_the_set_without_a_notification() {
    let (script, _driver, mut sets) = start();
    script.send(Ok(listing(&["b", "a"]))).unwrap();
    sets.changed().await.unwrap();
    let first = sets.borrow_and_update().clone();
    assert_eq!(first.instances[0].host, "a");
    for same in [listing(&["a", "b"]), Update::Unchanged] {
        advance(Duration::from_secs(10)).await;
        script.send(Ok(same)).unwrap();
        sleep(Duration::from_millis(1)).await;
        assert!(!sets.has_changed().unwrap());
        let now = sets.borrow().clone();
        assert!(Arc::ptr_eq(&now.instances, &first.instances));
        assert!(now.confirmed.unwrap() + Duration::from_millis(1) >= Instant::now().into_std());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_the_set_and_the_next_good_answer_clears_the_error() {
    let (script, _driver, mut sets) = start();
    script.send(Ok(listing(&["a"]))).unwrap();
    sets.changed().await.unwrap();
    script.send(Err(failure())).unwrap();
    sets.changed().await.unwrap();
    {
        let failed = sets.borrow_and_update();
        assert_eq!(failed.instances.len(), 1);
        let error = failed.error.as_ref().unwrap().to_string();
        assert!(error.contains("not a list"), "{error}");
    }
    script.send(Ok(Update::Unchanged)).unwrap();
    sets.changed().await.unwrap();
    let recovered = sets.borrow();
    assert_eq!(recovered.instances.len(), 1);
    assert!(recovered.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn repeated_failures_are_asked_ever_more_rarely_up_to_five_seconds() {
    let (script, _driver, mut sets) = start();
    let begun = Instant::now();
    for _ in 0..20 {
        script.send(Err(failure())).unwrap();
    }
    script.send(Ok(listing(&[]))).unwrap();
    sets.wait_for(|set| set.confirmed.is_some()).await.unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(20), "{took:?}");
    assert!(took < Duration::from_secs(101), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_asks_to_wait_is_not_asked_before() {
    let (script, _driver, mut sets) = start();
    let wait = Duration::from_secs(30);
    let begun = Instant::now();
    let busy = RegistryError::Busy {
        registry: "scripted".to_owned(),
        action: "watch trim".to_owned(),
        code: "status 429".to_owned(),
        reason: "too many requests".to_owned(),
        retry_after: wait,
    };
    assert!(busy.is_transient());
    script.send(Err(busy)).unwrap();
    script.send(Ok(listing(&["a"]))).unwrap();
    sets.wait_for(|set| set.confirmed.is_some()).await.unwrap();
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_unusable_entry_hides_no_other() {
    let (script, _driver, mut sets) = start();
    let mut mixed: Listing = [Instance::new("a", 1).unwrap()].into_iter().collect();
    mixed.reject("b: port 0");
    script.send(Ok(mixed.into())).unwrap();
    sets.changed().await.unwrap();
    assert_eq!(sets.borrow().instances.len(), 1);
}

#[tokio::test]
async fn a_dropped_watch_ends_its_source() {
    let (script, driver, sets) = start();
    drop((driver, sets));
    script.closed().await;
}

#[test]
fn a_watch_outside_a_runtime_is_an_error() {
    let (_script, results) = mpsc::unbounded_channel();
    let error = WatchDriver::start("scripted", "trim", Scripted(results)).unwrap_err();
    assert!(error.to_string().contains("watch trim"), "{error}");
}
