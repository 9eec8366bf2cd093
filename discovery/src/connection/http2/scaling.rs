//! Several connections to one instance, for more calls at a time than the server takes on one (gRFC
//! A105).
//!
//! A call uses the first connection that has a stream left. Where none has, another connection is made,
//! up to the limit, and the call waits for the first stream that becomes free on any of them.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::debug;

use super::Http2;
use crate::{
    BoxError,
    connection::{ConnectError, Connection, RequestBody, SendError, Transport, TransportBody},
    error::chain,
    instance::Instance,
};

/// Time for making an additional connection.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Delay after an additional connection that could not be made.
const AGAIN: Duration = Duration::from_secs(1);

/// The connections of one instance.
struct Pool {
    members: ArcSwap<Vec<Arc<Member>>>,
    limit: usize,
    /// True once a connection that has ended had answered a call.
    answered: AtomicBool,
    signals: Arc<Signals>,
}

#[derive(Default)]
struct Signals {
    /// Requests another connection.
    more: Notify,
    /// Notified when a stream has become free.
    free: Notify,
}

/// One connection.
struct Member {
    transport: Box<dyn Transport>,
    in_flight: AtomicUsize,
}

impl Member {
    /// Takes one of its streams, if one is left.
    fn take(self: &Arc<Self>, signals: &Arc<Signals>) -> Option<InFlight> {
        let capacity = self.transport.capacity();
        let taken = !self.transport.is_closed()
            && self
                .in_flight
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    (count < capacity).then_some(count + 1)
                })
                .is_ok();
        taken.then(|| InFlight {
            member: Arc::clone(self),
            signals: Arc::clone(signals),
        })
    }
}

/// A stream in use, until dropped.
struct InFlight {
    member: Arc<Member>,
    signals: Arc<Signals>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.member.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.signals.free.notify_one();
    }
}

impl Pool {
    fn take(&self) -> Option<InFlight> {
        let members = self.members.load();
        let taken = members.iter().find_map(|member| member.take(&self.signals));
        if taken.is_none() && members.len() < self.limit {
            self.signals.more.notify_one();
        }
        taken
    }

    fn is_closed(&self) -> bool {
        self.members
            .load()
            .iter()
            .all(|member| member.transport.is_closed())
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Member>>)) {
        self.members.rcu(|members| {
            let mut members = members.to_vec();
            change(&mut members);
            members
        });
        self.signals.free.notify_waiters();
    }

    fn remove(&self, ended: &Arc<Member>) {
        if ended.transport.has_answered() {
            self.answered.store(true, Ordering::Relaxed);
        }
        self.change(|members| members.retain(|member| !Arc::ptr_eq(member, ended)));
    }
}

/// This connection to `instance`, with others beside it when its streams are used up.
pub(super) fn scaled(http2: &Http2, instance: &Instance, connection: Connection) -> Connection {
    let signals = Arc::<Signals>::default();
    let pool = Arc::new(Pool {
        members: ArcSwap::default(),
        limit: http2.max_connections,
        answered: AtomicBool::new(false),
        signals: Arc::clone(&signals),
    });
    let growth = Growth {
        http2: http2.clone(),
        instance: instance.clone(),
        // Dropping the transport closes the connections.
        pool: Arc::downgrade(&pool),
        signals,
    };
    let first = growth.join(&pool, connection);
    Connection::new(Pooled(pool), growth.drive(first))
}

/// Makes additional connections, and drives all of them.
struct Growth {
    http2: Http2,
    instance: Instance,
    pool: Weak<Pool>,
    signals: Arc<Signals>,
}

impl Growth {
    /// Adds a connection. Returns a future that drives it and removes it at its end.
    fn join(
        &self,
        pool: &Pool,
        connection: Connection,
    ) -> BoxFuture<'static, Result<(), BoxError>> {
        let Connection { transport, driver } = connection;
        let member = Arc::new(Member {
            transport,
            in_flight: AtomicUsize::new(0),
        });
        let (pool_of, known) = (self.pool.clone(), Arc::downgrade(&member));
        pool.change(|members| members.push(Arc::clone(&member)));
        Box::pin(async move {
            let ended = driver.await;
            if let (Some(pool), Some(member)) = (pool_of.upgrade(), known.upgrade()) {
                pool.remove(&member);
            }
            ended
        })
    }

    /// Runs until the last connection has ended, and returns the reason of its end.
    async fn drive(self, first: BoxFuture<'static, Result<(), BoxError>>) -> Result<(), BoxError> {
        let mut drivers = FuturesUnordered::from_iter([first]);
        loop {
            tokio::select! {
                Some(ended) = drivers.next() => {
                    if drivers.is_empty() {
                        return ended;
                    }
                }
                Some(driver) = self.another(), if drivers.len() < self.http2.max_connections => {
                    drivers.push(driver);
                }
            }
        }
    }

    /// Waits until another connection is needed, and makes it.
    async fn another(&self) -> Option<BoxFuture<'static, Result<(), BoxError>>> {
        loop {
            self.signals.more.notified().await;
            let attempt = timeout(ATTEMPT, self.http2.open(&self.instance, &self.http2));
            let error = match attempt.await {
                Ok(Ok(connection)) => return Some(self.join(&*self.pool.upgrade()?, connection)),
                Ok(Err(error)) => error,
                Err(_) => ConnectError::Timeout(ATTEMPT),
            };
            debug!(instance = %self.instance, "no additional connection: {}", chain(&error));
            sleep(AGAIN).await;
        }
    }
}

/// Carries calls over the connections of a pool.
struct Pooled(Arc<Pool>);

impl Transport for Pooled {
    fn send(
        &self,
        request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        if let Some(in_flight) = self.0.take() {
            return exchange(in_flight, request);
        }
        let pool = Arc::clone(&self.0);
        Box::pin(async move {
            let in_flight = loop {
                let free = pool.signals.free.notified();
                if let Some(in_flight) = pool.take() {
                    break in_flight;
                }
                if pool.is_closed() {
                    return Err(SendError::unprocessed(
                        "the connection accepts no more calls",
                    ));
                }
                free.await;
            };
            drop(pool);
            exchange(in_flight, request).await
        })
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn has_answered(&self) -> bool {
        let members = self.0.members.load();
        self.0.answered.load(Ordering::Relaxed)
            || members.iter().any(|member| member.transport.has_answered())
    }

    /// That of all connections that may be made.
    fn capacity(&self) -> usize {
        let members = self.0.members.load();
        let capacities = members.iter().map(|member| member.transport.capacity());
        let sum = capacities.clone().fold(0, usize::saturating_add);
        let missing = self.0.limit.saturating_sub(members.len());
        sum.saturating_add(capacities.max().unwrap_or(0).saturating_mul(missing))
    }
}

/// Sends the request on the stream that was taken, which is in use until the response is dropped.
fn exchange(
    in_flight: InFlight,
    request: Request<RequestBody>,
) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
    let response = in_flight.member.transport.send(request);
    Box::pin(async move {
        let response = response.await?;
        Ok(response.map(|body| {
            let counted = Counted {
                body,
                _in_flight: in_flight,
            };
            counted.boxed_unsync()
        }))
    })
}

/// A response's body on a stream that is counted.
struct Counted {
    body: TransportBody,
    _in_flight: InFlight,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
