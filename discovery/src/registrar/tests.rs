use std::{
    fmt,
    future::pending,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;
use crate::{
    future::BoxFuture,
    registry::{CheckState, RegistryError},
};

/// A registry that does not answer so many calls: it stalls, or refuses.
#[derive(Default)]
struct Flaky {
    register_stalls: bool,
    register_takes: Duration,
    registered: AtomicBool,
    stalls: usize,
    refusals: usize,
    transient: bool,
    asked: AtomicUsize,
}

impl RegistrationClient for Flaky {
    fn id(&self) -> &'static str {
        "a"
    }

    fn registry(&self) -> &'static str {
        "flaky"
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        if self.register_stalls {
            Box::pin(pending())
        } else {
            Box::pin(async {
                sleep(self.register_takes).await;
                self.registered.store(true, SeqCst);
                Ok(())
            })
        }
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(pending())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        let nth = self.asked.fetch_add(1, SeqCst);
        Box::pin(async move {
            if nth < self.stalls {
                return pending().await;
            }
            if nth - self.stalls < self.refusals {
                return Err(RegistryError::Refused {
                    registry: "flaky".to_owned(),
                    action: "deregister a".to_owned(),
                    code: "status 500".to_owned(),
                    reason: "no".to_owned(),
                    transient: self.transient,
                });
            }
            self.registered.store(false, SeqCst);
            Ok(())
        })
    }
}

const LIMIT: Duration = Duration::from_secs(2);

/// How deregistering ended, after how many requests, and how long it took.
async fn deregister(flaky: Flaky) -> (bool, usize, Duration) {
    deregister_at(&Arc::new(flaky)).await
}

async fn deregister_at(client: &Arc<Flaky>) -> (bool, usize, Duration) {
    let registrar = Registrar::start(Arc::clone(client) as Arc<dyn RegistrationClient>).unwrap();
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let done = registrar.deregister(LIMIT).await.is_ok();
    (done, client.asked.load(SeqCst), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_hangs_does_not_stand_in_the_way() {
    let hanging = Flaky {
        register_stalls: true,
        ..Flaky::default()
    };
    assert_eq!(deregister(hanging).await, (true, 1, 3 * LIMIT / 4));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_ends_after_the_deregistration_is_undone() {
    let slow = Arc::new(Flaky {
        register_takes: LIMIT / 2,
        ..Flaky::default()
    });
    assert_eq!(deregister_at(&slow).await, (true, 2, LIMIT / 2));
    assert!(!slow.registered.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_stalls_or_fails_is_asked_again() {
    let (done, asked, _) = deregister(Flaky {
        stalls: 1,
        refusals: 1,
        transient: true,
        ..Flaky::default()
    })
    .await;
    assert_eq!((done, asked), (true, 3));
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_however_long_it_stalls() {
    let (done, asked, took) = deregister(Flaky {
        register_stalls: true,
        stalls: usize::MAX,
        ..Flaky::default()
    })
    .await;
    assert!(!done && asked > 1 && took <= LIMIT, "{asked} in {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_is_not_asked_again() {
    let (done, asked, _) = deregister(Flaky {
        refusals: 9,
        transient: false,
        ..Flaky::default()
    })
    .await;
    assert_eq!((done, asked), (false, 1));
}

/// A registry whose health check the test controls.
struct Checked(watch::Sender<CheckState>);

impl RegistrationClient for Checked {
    fn id(&self) -> &'static str {
        "a"
    }

    fn registry(&self) -> &'static str {
        "checked"
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async { Ok(()) })
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(pending())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async { Ok(()) })
    }

    fn check_state(&self) -> Option<watch::Receiver<CheckState>> {
        Some(self.0.subscribe())
    }
}

#[tokio::test]
async fn the_state_follows_the_registry_s_check() {
    let client = Arc::new(Checked(watch::Sender::new(CheckState::Passing)));
    let registrar = Registrar::start(client.clone()).unwrap();
    let mut state = registrar.state();
    state.wait_for(RegistrationState::is_passing).await.unwrap();
    for check in [
        CheckState::critical("connection refused"),
        CheckState::warning("slow"),
        CheckState::Passing,
    ] {
        client.0.send_replace(check.clone());
        let has = |state: &RegistrationState| matches!(state, RegistrationState::Registered { check: c } if *c == check);
        let state = state.wait_for(has).await.unwrap();
        assert!(state.is_registered());
        assert_eq!(state.is_passing(), check == CheckState::Passing);
    }
}

#[test]
fn outside_a_runtime_it_is_an_error() {
    let error = Registrar::start(Arc::new(Flaky::default())).unwrap_err();
    assert!(
        matches!(&error, RegistryError::NoRuntime { action } if action == "register a"),
        "{error}"
    );
    assert!(error.to_string().contains("outside a tokio runtime"));
    // A registrar may also be started inside a runtime and ended outside of it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let registrar = runtime.block_on(async { Registrar::start(Arc::new(Flaky::default())) });
    let ended = futures_util::future::FutureExt::now_or_never(registrar.unwrap().deregister(LIMIT));
    assert!(matches!(ended, Some(Err(RegistryError::NoRuntime { .. }))));
}

/// The messages of the events of this thread, with their levels.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    fn about_checks(&self) -> Vec<(Level, String)> {
        let events = self.0.lock().unwrap();
        let checks = events
            .iter()
            .filter(|(_, text)| text.contains("health check"));
        checks.cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let level = *event.metadata().level();
        self.0.lock().unwrap().push((level, message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[tokio::test]
async fn a_change_of_the_check_is_logged_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let client = Arc::new(Checked(watch::Sender::new(CheckState::Passing)));
    let registrar = Registrar::start(client.clone()).unwrap();
    let mut state = registrar.state();
    state.wait_for(RegistrationState::is_passing).await.unwrap();
    assert_eq!(log.about_checks(), []);
    for check in [
        CheckState::critical("refused 1"),
        CheckState::critical("refused 2"),
        CheckState::Passing,
    ] {
        client.0.send_replace(check.clone());
        let has = |state: &RegistrationState| matches!(state, RegistrationState::Registered { check: c } if *c == check);
        state.wait_for(has).await.unwrap();
    }
    let expected = [
        (Level::WARN, "the health check is critical: refused 1"),
        (Level::INFO, "the health check passes again"),
    ];
    assert_eq!(
        log.about_checks(),
        expected.map(|(level, text)| (level, text.to_owned()))
    );
}
