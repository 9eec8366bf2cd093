//! A channel that keeps the instance of a call and its attempts. tonic makes a [`Status`] of a response
//! without the response's extensions, so a failed call would lose them.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use discovery::{Attempt, Channel, EarlierAttempts, Instance, ResponseBody, ServedBy};
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower_service::Service;

/// A channel for one call, which keeps the instance that answered and the attempts before it, also if
/// the call fails. Clones share them.
#[derive(Clone, Debug)]
pub struct ObservedChannel {
    channel: Channel,
    seen: Arc<Mutex<Seen>>,
}

/// The instance that answered, and the attempts before it.
type Seen = (Option<Arc<Instance>>, Vec<Attempt>);

impl ObservedChannel {
    /// A channel for one call over `channel`.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self {
            channel,
            seen: Arc::default(),
        }
    }

    /// Takes the instance that answered, and the attempts before it. Without an answer: `None`, and no
    /// attempts.
    #[must_use]
    pub fn take(&self) -> (Option<Arc<Instance>>, Vec<Attempt>) {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service<Request<Body>> for ObservedChannel {
    type Response = Response<ResponseBody>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.channel.call(request);
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            let mut response = call.await?;
            let extensions = response.extensions_mut();
            let served_by = extensions.remove::<ServedBy>();
            let earlier = extensions.remove::<EarlierAttempts>();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = (
                served_by.map(|served_by| served_by.0),
                earlier.map_or_else(Vec::new, |earlier| earlier.0),
            );
            Ok(response)
        })
    }
}
