//! The watch of one service: refreshes at the pace of the records' TTL, within bounds.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::resolver::{Resolved, Resolver};
use crate::{
    future::BoxFuture,
    registry::{RegistryError, Source, Update},
};

/// The instances behind a name.
pub(super) trait Resolve: Send + 'static {
    fn resolve(&mut self) -> impl Future<Output = Result<Resolved, RegistryError>> + Send;
}

impl Resolve for Resolver {
    fn resolve(&mut self) -> impl Future<Output = Result<Resolved, RegistryError>> + Send {
        Self::resolve(self)
    }
}

pub(super) struct DnsSource<R> {
    resolver: R,
    /// The least and the greatest time between two refreshes.
    bounds: (Duration, Duration),
    /// The time of the next refresh. None: at once.
    due: Option<Instant>,
}

impl<R: Resolve> DnsSource<R> {
    pub(super) fn new(resolver: R, bounds: (Duration, Duration)) -> Self {
        Self {
            resolver,
            bounds,
            due: None,
        }
    }

    async fn update(&mut self) -> Result<Update, RegistryError> {
        if let Some(due) = self.due.take() {
            sleep_until(due).await;
        }
        // The TTL counts from the question, not from the end of a slow answer.
        let asked = Instant::now();
        let Resolved { listing, ttl } = self.resolver.resolve().await?;
        let ttl = Duration::from_secs(ttl.unwrap_or_default().into());
        let (min, max) = self.bounds;
        self.due = Some(asked + ttl.clamp(min, max));
        Ok(listing.into())
    }
}

impl<R: Resolve> Source for DnsSource<R> {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(self.update())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        instance::Instance,
        registry::{Instancer as _, Listing, WatchDriver},
    };

    /// Answers with these TTLs in turn, then fails. Notes the time of each question.
    struct Script {
        ttls: std::vec::IntoIter<Option<u32>>,
        begun: Instant,
        asked: Arc<Mutex<Vec<Duration>>>,
    }

    impl Resolve for Script {
        async fn resolve(&mut self) -> Result<Resolved, RegistryError> {
            self.asked.lock().unwrap().push(self.begun.elapsed());
            let Some(ttl) = self.ttls.next() else {
                return Err(RegistryError::Refused {
                    registry: "dns".to_owned(),
                    action: "look up x".to_owned(),
                    code: "SERVFAIL".to_owned(),
                    reason: String::new(),
                    transient: true,
                });
            };
            let listing: Listing = Instance::new("10.0.0.1", 1).into_iter().collect();
            Ok(Resolved { listing, ttl })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refreshes_follow_the_ttl_between_the_bounds_and_the_set_outlives_failures() {
        let asked = Arc::default();
        let script = Script {
            ttls: vec![
                Some(0),
                Some(5),
                Some(i32::MAX.cast_unsigned()),
                None,
                Some(30),
            ]
            .into_iter(),
            begun: Instant::now(),
            asked: Arc::clone(&asked),
        };
        let bounds = (Duration::from_secs(1), Duration::from_secs(30));
        let source = DnsSource::new(script, bounds);
        let driver = WatchDriver::start("dns", "refresh", source).unwrap();
        let mut sets = driver.watch();
        let set = sets.wait_for(|set| set.error.is_some()).await.unwrap();
        assert_eq!(set.instances.len(), 1);
        let seconds: Vec<_> = asked
            .lock()
            .unwrap()
            .iter()
            .map(Duration::as_secs)
            .collect();
        assert_eq!(seconds, [0, 1, 6, 36, 37, 67]);
    }
}
