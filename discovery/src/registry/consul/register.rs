//! One registration with a Consul agent: put in, kept there, taken out.
//!
//! Kept means: a query is always under way that Consul answers when it no longer holds the service
//! as it was registered, and that breaks when the agent dies. Whatever ends it, registering again
//! is the cure, and the [`Registrar`](crate::Registrar) does that.
//!
//! An agent that restarts from its data folder calls every check critical, and registering again
//! does not change that. A gRPC check runs again by itself within its interval; a heartbeat is sent
//! right after every registration.

use std::{
    collections::BTreeMap,
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::{
    client::{Answer, Client, Request, pathable, segment},
    token_bucket::TokenBucket,
};
use crate::{
    backoff::Backoff,
    registry::{Check, Registration, RegistrationClient, RegistryError},
};

/// How long Consul may hold the query back that watches over the registration.
const HOLD: Duration = Duration::from_secs(30);

/// The least time between two such queries, after a few that are free.
const HOLD_INTERVAL: Duration = Duration::from_secs(1);

/// A registration lost sooner than this after it was made was lost quickly.
const SETTLED: Duration = Duration::from_secs(60);

/// Waits before a loss is reported that follows quick ones: two processes under one ID would
/// otherwise overwrite each other ten times a second.
const QUICK_LOSS: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// Heartbeats in the time that a check takes to turn critical without one.
const BEATS: u32 = 3;

pub(super) struct ConsulRegistration {
    client: Arc<Client>,
    id: String,
    wanted: Service,
    body: Bytes,
    ttl: Option<Duration>,
    check_id: String,
    /// Whether checks that somebody else registered under this ID are to go. True for the first
    /// registration of a process only: an operator's maintenance mode is such a check, and must
    /// not end because the agent was restarted.
    replace_checks: AtomicBool,
    quick_losses: AtomicU32,
}

impl ConsulRegistration {
    /// # Errors
    ///
    /// `InvalidSetting` for what Consul would refuse, or take and then not serve.
    pub(super) fn new(
        client: Arc<Client>,
        registration: &Registration,
    ) -> Result<Self, RegistryError> {
        let invalid = |reason: String| RegistryError::InvalidSetting {
            registry: client.name().to_owned(),
            reason: format!("cannot register {:?}: {reason}", registration.instance.id),
        };
        registration.instance.validate()?;
        let definition = Definition::new(registration).map_err(invalid)?;
        let body = serde_json::to_vec(&definition).map_err(|e| invalid(e.to_string()))?;
        Ok(Self {
            id: definition.id,
            wanted: definition.service,
            body: body.into(),
            ttl: match registration.check {
                Check::Ttl { ttl } => Some(ttl),
                Check::Grpc { .. } | Check::None => None,
            },
            check_id: check_id(&registration.instance.id),
            client,
            replace_checks: AtomicBool::new(true),
            quick_losses: AtomicU32::new(0),
        })
    }

    fn forgotten(&self) -> RegistryError {
        RegistryError::Forgotten {
            registry: self.client.name().to_owned(),
            id: self.id.clone(),
        }
    }

    async fn put(&self) -> Result<(), RegistryError> {
        let action = format!("register {}", self.id);
        let path = "/v1/agent/service/register".to_owned();
        let mut request = Request::new(Method::PUT, path, &action);
        if self.replace_checks.load(Relaxed) {
            request.query.push(("replace-existing-checks", "true"));
        }
        request.body = Some(self.body.clone());
        self.client.call_ok(request).await?;
        if let Some(ttl) = self.ttl {
            // A check that was critical stays so; only a heartbeat lifts it.
            self.heartbeat(ttl / BEATS).await?;
        }
        self.replace_checks.store(false, Relaxed);
        Ok(())
    }

    async fn heartbeat(&self, limit: Duration) -> Result<(), RegistryError> {
        let action = format!("send a heartbeat of {}", self.id);
        let path = format!("/v1/agent/check/pass/{}", segment(&self.check_id));
        let mut request = Request::new(Method::PUT, path, &action);
        request.held = Some(limit);
        let answer = self.client.call(request).await?;
        if answer.status.is_success() {
            Ok(())
        } else if answer.status == StatusCode::NOT_FOUND
            || says(&answer, "does not have associated TTL")
        {
            Err(self.forgotten())
        } else {
            Err(self.client.refused(&action, &answer))
        }
    }

    async fn heartbeats(&self) -> RegistryError {
        let Some(ttl) = self.ttl else {
            return future::pending().await;
        };
        let every = ttl / BEATS;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A connection that stalls is given up with the try; the next one has another.
            let mut beat = self.heartbeat(every / 2).await;
            if matches!(beat, Err(RegistryError::Unreachable { .. })) {
                beat = self.heartbeat(every / 2).await;
            }
            if let Err(error) = beat {
                return error;
            }
        }
    }

    /// Follows what the agent holds under the ID until that is not what was registered.
    async fn watch_over(&self) -> RegistryError {
        let action = format!("watch over the registration of {}", self.id);
        let path = format!("/v1/agent/service/{}", segment(&self.id));
        let wait = format!("{}s", HOLD.as_secs());
        let mut requests = TokenBucket::new(HOLD_INTERVAL);
        let mut hash = None::<String>;
        loop {
            sleep(requests.take(Instant::now())).await;
            let mut request = Request::new(Method::GET, path.clone(), &action);
            if let Some(hash) = &hash {
                request.query.extend([("hash", &**hash), ("wait", &*wait)]);
                request.held = Some(HOLD + HOLD / 16 + Duration::from_secs(5));
            }
            let answer = match self.client.call(request).await {
                Ok(answer) => answer,
                Err(error) => return error,
            };
            if answer.status == StatusCode::NOT_FOUND {
                return self.forgotten();
            }
            if !answer.status.is_success() {
                return self.client.refused(&action, &answer);
            }
            let found: Service = match serde_json::from_slice(&answer.body) {
                Ok(found) => found,
                Err(error) => return self.client.malformed(&action, error.to_string()),
            };
            if found != self.wanted {
                self.replace_checks.store(true, Relaxed);
                return RegistryError::Overwritten {
                    registry: self.client.name().to_owned(),
                    id: self.id.clone(),
                    found: format!("{} at {}:{}", found.name, found.address, found.port),
                };
            }
            let header = answer.headers.get("x-consul-contenthash");
            hash = header.and_then(|h| h.to_str().ok()).map(str::to_owned);
        }
    }
}

impl RegistrationClient for ConsulRegistration {
    fn id(&self) -> &str {
        &self.id
    }

    fn registry(&self) -> &str {
        self.client.name()
    }

    fn register(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(self.put())
    }

    fn maintain(&self) -> BoxFuture<'_, RegistryError> {
        Box::pin(async {
            let since = Instant::now();
            let lost = tokio::select! {
                lost = self.watch_over() => lost,
                lost = self.heartbeats() => lost,
            };
            // An agent that went away is no sign of a quarrel, and is to be met as it returns.
            if !matches!(lost, RegistryError::Unreachable { .. }) {
                let quick = if since.elapsed() < SETTLED {
                    self.quick_losses.fetch_add(1, Relaxed)
                } else {
                    self.quick_losses.swap(0, Relaxed);
                    0
                };
                if quick > 0 {
                    sleep(QUICK_LOSS.after(quick, &mut fastrand::Rng::new())).await;
                }
            }
            lost
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async {
            let action = format!("deregister {}", self.id);
            let path = format!("/v1/agent/service/deregister/{}", segment(&self.id));
            let answer = self
                .client
                .call(Request::new(Method::PUT, path, &action))
                .await?;
            // Without ACLs Consul 1.8 calls an unknown service a success; with ACLs, and later, not.
            let gone = answer.status == StatusCode::NOT_FOUND || says(&answer, "Unknown service");
            if answer.status.is_success() || gone {
                Ok(())
            } else {
                Err(self.client.refused(&action, &answer))
            }
        })
    }
}

fn says(answer: &Answer, words: &str) -> bool {
    answer.reason().contains(words)
}

/// Check IDs are one namespace per agent, so that it must hold the instance's.
fn check_id(id: &str) -> String {
    format!("service:{id}")
}

/// The body of `PUT /v1/agent/service/register`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    #[serde(rename = "ID")]
    id: String,
    #[serde(flatten)]
    service: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckDefinition>,
}

/// What is sent as the service and found again, name for name.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// The only one with two names: `Name` when it is sent, `Service` when it is found.
    #[serde(rename(serialize = "Name", deserialize = "Service"))]
    name: String,
    address: String,
    port: u16,
    #[serde(default, deserialize_with = "null_is_empty")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    meta: BTreeMap<String, String>,
    #[serde(default)]
    weights: Weights,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckDefinition {
    #[serde(rename = "CheckID")]
    check_id: String,
    name: &'static str,
    /// Consul's default is critical until the first run.
    status: &'static str,
    #[serde(rename = "GRPC", skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(rename = "TTL", skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deregister_critical_service_after: Option<String>,
}

impl Definition {
    fn new(registration: &Registration) -> Result<Self, String> {
        let instance = &registration.instance;
        pathable(&instance.id).map_err(|reason| format!("the ID {reason}"))?;
        pathable(&instance.service).map_err(|reason| format!("the service's name {reason}"))?;
        if !(1..=65535).contains(&instance.weight) {
            return Err(format!("weight {} is outside 1 to 65535", instance.weight));
        }
        let mut meta = instance.meta.clone();
        if let Some(zone) = &instance.zone {
            meta.insert("zone".to_owned(), zone.clone());
        }
        check_meta(&meta)?;
        Ok(Self {
            id: instance.id.clone(),
            service: Service {
                name: instance.service.clone(),
                address: instance.host.clone(),
                port: instance.port,
                tags: instance.tags.clone(),
                meta,
                weights: Weights {
                    passing: instance.weight,
                    warning: 1,
                },
            },
            check: CheckDefinition::new(registration)?,
        })
    }
}

impl CheckDefinition {
    fn new(registration: &Registration) -> Result<Option<Self>, String> {
        let text = |what: &str, duration: Duration| match duration.as_millis() {
            0 => Err(format!("the check's {what} is under a millisecond")),
            millis => Ok(Some(format!("{millis}ms"))),
        };
        let mut check = Self {
            check_id: check_id(&registration.instance.id),
            name: "heartbeat",
            status: "passing",
            grpc: None,
            interval: None,
            timeout: None,
            ttl: None,
            deregister_critical_service_after: registration
                .deregister_critical_after
                .map(|after| text("deregister-critical-after", after))
                .transpose()?
                .flatten(),
        };
        match registration.check {
            Check::None => return Ok(None),
            Check::Ttl { ttl } => check.ttl = text("TTL", ttl)?,
            Check::Grpc { interval, timeout } => {
                check.name = "gRPC health";
                check.grpc = Some(registration.instance.authority());
                check.interval = text("interval", interval)?;
                check.timeout = text("timeout", timeout)?;
            }
        }
        Ok(Some(check))
    }
}

/// Consul's limits, told before it is asked.
fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > 64 {
        return Err(format!("{} metadata keys, Consul takes 64", meta.len()));
    }
    for (key, value) in meta {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if key.is_empty() || key.len() > 128 || !key.bytes().all(allowed) {
            return Err(format!(
                "metadata key {key:?} is not 1 to 128 letters, digits, - and _"
            ));
        }
        if key.starts_with("consul-") {
            return Err(format!("metadata key {key:?}: consul- is Consul's own"));
        }
        if value.len() > 512 {
            return Err(format!("metadata value of {key:?} is over 512 bytes"));
        }
    }
    Ok(())
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::instance::Instance;

    fn registration(check: Check) -> Registration {
        Registration {
            instance: Instance {
                tags: vec!["trim".to_owned()],
                zone: Some("a".to_owned()),
                ..Instance::named("trim_service", [127, 0, 0, 1].into(), 8975).unwrap()
            },
            check,
            deregister_critical_after: Some(Duration::from_secs(90)),
        }
    }

    fn body(registration: &Registration) -> Value {
        serde_json::to_value(Definition::new(registration).unwrap()).unwrap()
    }

    #[test]
    fn the_body_is_what_consul_takes() {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_millis(1500));
        let check = json!({
            "CheckID": "service:trim_service-127.0.0.1-8975", "Name": "gRPC health",
            "Status": "passing", "GRPC": "127.0.0.1:8975", "Interval": "5000ms",
            "Timeout": "1500ms", "DeregisterCriticalServiceAfter": "90000ms",
        });
        let expected = json!({
            "ID": "trim_service-127.0.0.1-8975", "Name": "trim_service", "Address": "127.0.0.1",
            "Port": 8975, "Tags": ["trim"], "Meta": {"zone": "a"},
            "Weights": {"Passing": 1, "Warning": 1}, "Check": check,
        });
        assert_eq!(
            body(&registration(Check::Grpc { interval, timeout })),
            expected
        );
    }

    #[test]
    fn the_check_is_of_the_kind_asked_for() {
        let ttl = Duration::from_secs(15);
        let with_ttl = body(&registration(Check::Ttl { ttl }));
        assert_eq!(with_ttl["Check"]["TTL"], "15000ms");
        assert_eq!(with_ttl["Check"]["Interval"], Value::Null);
        assert_eq!(body(&registration(Check::None))["Check"], Value::Null);
    }

    #[test]
    fn what_consul_would_not_serve_is_refused_first() {
        let change: [fn(&mut Registration); 11] = [
            |r| r.instance.weight = 0,
            |r| r.instance.weight = 65536,
            |r| r.instance.service.clear(),
            |r| r.instance.id = "a//b".to_owned(),
            |r| r.instance.id = "..".to_owned(),
            |r| {
                r.check = Check::Ttl {
                    ttl: Duration::ZERO,
                }
            },
            |r| _ = r.instance.meta.insert("a b".to_owned(), String::new()),
            |r| _ = r.instance.meta.insert("consul-x".to_owned(), String::new()),
            |r| _ = r.instance.meta.insert("k".repeat(129), String::new()),
            |r| _ = r.instance.meta.insert("k".to_owned(), "v".repeat(513)),
            |r| r.instance.meta = (0..64).map(|n| (format!("k{n}"), String::new())).collect(),
        ];
        for (nth, change) in change.into_iter().enumerate() {
            let mut registration = registration(Check::None);
            assert!(Definition::new(&registration).is_ok());
            change(&mut registration);
            assert!(
                Definition::new(&registration).is_err(),
                "change {nth} was taken"
            );
        }
    }
}
