//! An open-loop load: calls are due at fixed times, whether or not earlier ones were answered, and the
//! latency of a call counts from its due time. A stall therefore shows in the latency (no coordinated
//! omission).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

/// The client gives up this long after the call was due.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// The result of one call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The due time, from the start of the load.
    pub(crate) due: Duration,
    pub(crate) latency: Duration,
    /// The instances that served it, or the error.
    pub(crate) result: Result<String, String>,
}

/// The callers of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callers {
    /// Calls per second.
    pub(crate) rate: u32,
    /// Their deadline, in the form of `grpc-timeout`.
    pub(crate) deadline: &'static str,
}

impl Callers {
    /// Callers with a deadline that instances can keep.
    pub(crate) fn with_one_second(rate: u32) -> Self {
        Self {
            rate,
            deadline: "1S",
        }
    }
}

/// A running load.
pub(crate) struct Load {
    pub(crate) begun: Instant,
    calls: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Calls for as long as `length`.
    pub(crate) fn start(http: SocketAddr, callers: Callers, length: Duration) -> Result<Self> {
        let client = testkit::http_client_builder()?
            .pool_max_idle_per_host(1_024)
            .tcp_nodelay(true)
            .build()?;
        let begun = Instant::now();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(send_all(
            client,
            format!("http://{http}/concat"),
            (callers, length, begun),
            Arc::clone(&calls),
        ));
        Ok(Self { begun, calls, task })
    }

    /// All calls, once the last one has ended.
    pub(crate) async fn end(self) -> Result<Vec<Call>> {
        self.task.await?;
        let mut calls =
            std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner));
        calls.sort_by_key(|call| call.due);
        Ok(calls)
    }
}

async fn send_all(
    client: reqwest::Client,
    url: String,
    (callers, length, begun): (Callers, Duration, Instant),
    calls: Arc<Mutex<Vec<Call>>>,
) {
    let gap = Duration::from_secs(1) / callers.rate;
    let mut running = tokio::task::JoinSet::new();
    let mut due = Duration::ZERO;
    while due < length {
        sleep_until(begun + due).await;
        let (client, url, calls) = (client.clone(), url.clone(), Arc::clone(&calls));
        running.spawn(async move {
            let result = timeout_at(
                begun + due + DEADLINE,
                send(&client, &url, callers.deadline),
            )
            .await;
            let call = Call {
                due,
                latency: begun.elapsed().saturating_sub(due),
                result: result.unwrap_or_else(|_| Err("no answer within 1 s".to_owned())),
            };
            calls
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(call);
        });
        while running.try_join_next().is_some() {}
        due += gap;
    }
    running.join_all().await;
}

/// Makes one call. Returns the instances that served it.
pub(crate) async fn send(
    client: &reqwest::Client,
    url: &str,
    deadline: &str,
) -> Result<String, String> {
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .header("grpc-timeout", deadline)
        .body(r#"{"a":"1 0","b":"2 0"}"#)
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let instances = response
        .headers()
        .get("x-trim-instance")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = response.text().await.map_err(|error| error.to_string())?;
    // Go's encoder ends an answer with a newline.
    if status == 200 && body.trim_end() == r#"{"v":"1020"}"# {
        Ok(instances)
    } else {
        Err(format!("{}: {body}", status.as_u16()))
    }
}
