//! A channel that keeps who answered. A status that tonic makes of a response has lost that.

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

/// See the [module](self). Clones share what they have seen: each is for one call.
#[derive(Clone)]
pub(super) struct Observed {
    channel: Channel,
    seen: Arc<Mutex<Seen>>,
}

/// The instance that answered, and the attempts before it.
pub(super) type Seen = (Option<Arc<Instance>>, Vec<Attempt>);

impl Observed {
    pub(super) fn of(channel: Channel) -> Self {
        Self {
            channel,
            seen: Arc::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service<Request<Body>> for Observed {
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
