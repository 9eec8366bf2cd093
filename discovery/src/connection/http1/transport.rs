//! Calls over the connections of a pool.

use std::{convert::Infallible, sync::Arc};

use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, Uri, header, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    lease::{Lease, LeasedBody},
    link::{closed_unused, is_closed},
    pool::Pool,
};
use crate::connection::{
    Repeatable, RequestBody, SendError, Transport, TransportBody, origin::Origin,
};

/// Sends requests over the connections of a pool.
pub(crate) struct Http1Transport {
    pool: Arc<Pool>,
    origin: Origin,
    /// Closes when the transport is dropped, which the driver awaits.
    _open: oneshot::Sender<Infallible>,
}

impl Http1Transport {
    pub(super) fn new(pool: Arc<Pool>, origin: Origin, open: oneshot::Sender<Infallible>) -> Self {
        Self {
            pool,
            origin,
            _open: open,
        }
    }
}

impl Drop for Http1Transport {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl Transport for Http1Transport {
    fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        to_origin_form(&mut request, &self.origin);
        let pool = Arc::clone(&self.pool);
        Box::pin(async move {
            let permit = pool.turn().await?;
            exchange(pool, permit, request).await
        })
    }

    fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }

    fn has_answered(&self) -> bool {
        self.pool.has_answered()
    }

    fn capacity(&self) -> usize {
        self.pool.bounds().connections.get()
    }
}

/// Writes the target and `Host` as a server expects them (RFC 9112, sections 3.2.1 and 3.2).
fn to_origin_form(request: &mut Request<RequestBody>, origin: &Origin) {
    origin.complete(request.uri_mut());
    if !request.headers().contains_key(header::HOST)
        && let Some(authority) = request.uri().authority()
    {
        // Without a user's name and password.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        if let Ok(host) = HeaderValue::try_from(host) {
            request.headers_mut().insert(header::HOST, host);
        }
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

/// Sends a request over an idle connection, or another one, and over a new one if the server has closed
/// the idle one meanwhile and that does no harm.
async fn exchange(
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
    mut request: Request<RequestBody>,
) -> Result<Response<TransportBody>, SendError> {
    let mut again = copy(&request);
    let mut sent = false;
    loop {
        // After one that may have received the request, only a new one.
        let mut link = match pool.take().filter(|_| !sent) {
            Some(link) => link,
            None => pool.make().await?,
        };
        let was_used = link.is_used;
        if link.sender.ready().await.is_err() {
            if was_used {
                continue;
            }
            return Err(SendError::unprocessed(closed_unused()));
        }
        let mut error = match link.sender.try_send_request(request).await {
            Ok(response) => {
                pool.note_answer();
                link.note(&response);
                let lease = Lease { pool, link, permit };
                return Ok(response.map(|body| LeasedBody::new(body, lease).boxed_unsync()));
            }
            Err(error) => error,
        };
        let unsent = error.take_message();
        let error = error.into_error();
        request = match unsent {
            Some(unsent) if was_used => unsent,
            Some(_) => return Err(SendError::unprocessed(error)),
            None if was_used && is_closed(&error) => {
                sent = true;
                again.take().ok_or_else(|| SendError::new(error))?
            }
            None => return Err(SendError::new(error)),
        };
    }
}

/// The same request again, if it may be executed twice.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let repeatable = request.extensions().get::<Repeatable>().copied()?;
    let mut copy = Request::new(request.body().copy()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().insert(repeatable);
    Some(copy)
}
