//! A Eureka in memory, for one application. A test replaces the answers that it is about.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use testkit::fake::{FakeServer, Reply, Request};

/// What the fake holds, and what the test changes.
#[derive(Default)]
pub(crate) struct State {
    /// The entry that is registered.
    pub(crate) entry: Option<Value>,
    /// The entries that were sent, in order.
    pub(crate) posts: Vec<Value>,
}

/// A running fake.
pub(crate) struct FakeEureka {
    pub(crate) server: FakeServer,
    state: Arc<Mutex<State>>,
}

impl FakeEureka {
    /// A fake that holds nothing.
    pub(crate) async fn start() -> Self {
        Self::with(|_, _| None).await
    }

    /// A fake whose answers are those of `instead`, where it gives one.
    pub(crate) async fn with(
        instead: impl Fn(&Request, &mut State) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let answer = move |request: &Request| {
            let mut state = shared.lock().unwrap();
            instead(request, &mut state).unwrap_or_else(|| state.answer(request))
        };
        let server = FakeServer::start(answer).await.unwrap();
        Self { server, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("eureka://{}?interval=100ms", self.server.address())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The number of requests with this method.
    pub(crate) fn count(&self, method: &str) -> usize {
        let requests = self.server.requests();
        requests.iter().filter(|r| r.method == method).count()
    }
}

impl State {
    /// As Eureka answers.
    pub(crate) fn answer(&mut self, request: &Request) -> Reply {
        let entry = request.path.matches('/').count() > 3;
        match request.method.as_str() {
            "POST" => {
                let body: Value = serde_json::from_str(&request.body).unwrap();
                let entry = body["instance"].clone();
                self.posts.push(entry.clone());
                let dirty = |entry: &Value| entry["lastDirtyTimestamp"].as_i64();
                // Of two entries, the one that was changed later.
                if self
                    .entry
                    .as_ref()
                    .is_none_or(|old| dirty(old) <= dirty(&entry))
                {
                    self.entry = Some(entry);
                }
                Reply::new(204, &[], "")
            }
            "GET" if request.path.starts_with("/eureka/vips/") => Reply::new(
                200,
                &[],
                json!({ "applications": { "application": [] } }).to_string(),
            ),
            _ if self.entry.is_none() => Reply::new(404, &[], "{}"),
            "GET" if entry => Reply::new(200, &[], json!({ "instance": self.entry }).to_string()),
            "GET" => Reply::new(200, &[], self.list().to_string()),
            "DELETE" => {
                self.entry = None;
                Reply::new(200, &[], "")
            }
            _ => Reply::new(200, &[], ""),
        }
    }

    fn list(&self) -> Value {
        json!({ "application": { "name": "TRIM_SERVICE", "instance": [self.entry] } })
    }
}

/// An answer that lists instances with these IDs.
pub(crate) fn list(ids: &[&str]) -> Reply {
    let entry = |id: &&str| {
        json!({ "instanceId": id, "app": "TRIM_SERVICE", "ipAddr": "127.0.0.1", "status": "UP",
                "port": { "$": 8975, "@enabled": "true" } })
    };
    let entries: Vec<_> = ids.iter().map(entry).collect();
    let body = json!({ "application": { "name": "TRIM_SERVICE", "instance": entries } });
    Reply::new(200, &[], body.to_string())
}
