//! Adds the rules of HTTP to the transports of any factory: the meaning of each response, `Retry-After`, and
//! the health of an instance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{
    HeaderValue, Request, Response, Uri, Version, header,
    uri::{Authority, Parts, Scheme},
};
use http_body::Body as _;
use tokio::time::Instant;
use tracing::debug;

use super::{health::health, rules::Rules};
use crate::{
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
    instance::Instance,
    probe::IsProbe,
};

/// A factory whose transports have these rules.
pub(super) struct WithRules {
    inner: Arc<dyn Factory>,
    rules: Arc<Rules>,
    /// By instance: what one has asked for holds for its next connection too.
    left_out: Mutex<HashMap<String, Arc<LeftOut>>>,
}

impl WithRules {
    pub(super) fn new(inner: Arc<dyn Factory>, rules: Rules) -> Self {
        Self {
            inner,
            rules: Arc::new(rules),
            left_out: Mutex::default(),
        }
    }

    fn left_out(&self, instance: &Instance) -> Arc<LeftOut> {
        let mut all = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of instances without a connection, whose time is over.
        all.retain(|_, left_out| Arc::strong_count(left_out) > 1 || !left_out.is_over());
        Arc::clone(all.entry(instance.id.clone()).or_default())
    }
}

impl Factory for WithRules {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        Box::pin(async move {
            let Connection { transport, driver } = self.inner.connect(instance).await?;
            let transport = RuledTransport {
                inner: Arc::from(transport),
                rules: Arc::clone(&self.rules),
                left_out: self.left_out(instance),
                instance: Arc::from(instance.to_string()),
            };
            Ok(Connection::new(transport, driver))
        })
    }
}

struct RuledTransport {
    inner: Arc<dyn Transport>,
    rules: Arc<Rules>,
    left_out: Arc<LeftOut>,
    /// Its name, for the log.
    instance: Arc<str>,
}

impl Transport for RuledTransport {
    fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let rules = Arc::clone(&self.rules);
        if request.extensions().get::<IsProbe>().is_some() {
            return health(Arc::clone(&self.inner), rules, request.uri());
        }
        prepare(&mut request);
        let sent = self.inner.send(request);
        let (left_out, instance) = (Arc::clone(&self.left_out), Arc::clone(&self.instance));
        Box::pin(async move {
            let mut response = sent.await?;
            let time = rules.left_out(response.status(), response.headers());
            if let Some(time) = time {
                debug!(%instance, status = %response.status(), ?time, "asks for no requests");
                left_out.set(time);
            }
            let (mut parts, body) = response.into_parts();
            let reply = rules.reply(&parts, time.is_some());
            parts.extensions.insert(reply);
            response = Response::from_parts(parts, body);
            Ok(response)
        })
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn has_answered(&self) -> bool {
        self.inner.has_answered()
    }

    fn capacity(&self) -> usize {
        if self.left_out.is_over() {
            self.inner.capacity()
        } else {
            0
        }
    }
}

/// Completes a request that HTTP/2 or HTTP/1.1 will send.
fn prepare(request: &mut Request<RequestBody>) {
    // The version of the caller's own request says nothing about the connection.
    *request.version_mut() = Version::HTTP_11;
    let length = request.body().size_hint().exact();
    let headers = request.headers_mut();
    if let Some(length) = length
        && length > 0
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // `Host` and `:authority` are the same (RFC 9113, section 8.3.1).
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.and_then(|host| Authority::try_from(host).ok());
    if let Some(host) = host {
        headers.remove(header::HOST);
        let mut parts = Parts::default();
        parts.scheme = Some(request.uri().scheme().unwrap_or(&Scheme::HTTP).clone());
        parts.authority = Some(host);
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// The time up to which an instance has asked for no requests.
struct LeftOut {
    born: Instant,
    /// In milliseconds since then; 0 if it has not asked.
    until: AtomicU64,
}

impl Default for LeftOut {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl LeftOut {
    fn set(&self, time: Duration) {
        let until = (self.born.elapsed() + time).as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.until.fetch_max(until, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until == 0 || self.born.elapsed() >= Duration::from_millis(until)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty};

    use super::*;

    /// Asks for no requests for a minute.
    struct Busy;

    impl Factory for Busy {
        fn connect<'a>(
            &'a self,
            _: &'a Instance,
        ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
            Box::pin(async { Ok(Connection::new(Self, pending())) })
        }
    }

    impl Transport for Busy {
        fn send(
            &self,
            _: Request<RequestBody>,
        ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
            let body = Empty::new().map_err(|never| match never {});
            let response = Response::builder().status(503).header("retry-after", "60");
            let response = response.body(body.boxed_unsync()).map_err(SendError::new);
            Box::pin(async { response })
        }

        fn is_closed(&self) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_asks_for_no_requests_gets_none_over_its_next_connection() {
        let rules = Rules::new().with_max_retry_after(Duration::from_secs(60));
        let factory = WithRules::new(Arc::new(Busy), rules);
        let [one, other, third] = ["a:1", "b:1", "c:1"].map(|name| Instance::parse(name).unwrap());
        let connection = factory.connect(&one).await.unwrap();
        assert!(connection.transport.capacity() > 0);
        let request = Request::new(RequestBody::whole(Bytes::new()));
        connection.transport.send(request).await.unwrap();
        assert_eq!(connection.transport.capacity(), 0);
        drop(connection);
        let other = factory.connect(&other).await.unwrap();
        assert!(other.transport.capacity() > 0);
        let again = factory.connect(&one).await.unwrap();
        assert_eq!(again.transport.capacity(), 0);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(again.transport.capacity() > 0);
        drop(again);
        factory.connect(&third).await.unwrap();
        assert!(!factory.left_out.lock().unwrap().contains_key(&one.id));
    }
}
