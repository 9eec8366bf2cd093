//! One connection to a member of the cluster, for unary calls and streams of messages.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use http::{Request, Response, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use prost::Message;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::{
    Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::{
    BoxError,
    connection::{
        Connection as Connected, RequestBody, SendError, Transport, TransportBody, body::OneShot,
    },
};

/// The metadata key of the token, as etcd's Go client sends it.
const TOKEN: &str = "token";

/// Asks a member to end the stream when it has lost its leader, so that a member that is cut off from
/// the cluster does not look alive.
const HAS_LEADER: &str = "hasleader";

/// A token as it is sent.
pub(super) type Token = MetadataValue<Ascii>;

/// A connection. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub(super) struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    transport: Box<dyn Transport>,
    driver: AbortHandle,
    endpoint: String,
    message_limit: usize,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Drives the connection in the background. The caller must be inside a tokio runtime.
    pub(super) fn start(connected: Connected, endpoint: String, message_limit: usize) -> Self {
        let Connected { transport, driver } = connected;
        // The calls get the reason for its end.
        let driver = tokio::spawn(driver.map(drop)).abort_handle();
        Self {
            shared: Arc::new(Shared {
                transport,
                driver,
                endpoint,
                message_limit,
            }),
        }
    }

    /// The member's `HOST:PORT`.
    pub(super) fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.transport.is_closed()
    }

    /// Closes the connection. The calls and streams on it fail.
    pub(super) fn close(&self) {
        self.shared.driver.abort();
    }

    /// Sends one request and awaits the answer. The caller limits the time.
    pub(super) async fn unary<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        token: Option<Token>,
    ) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = tonic::Request::new(request);
        authorize(&mut request, token);
        let path = PathAndQuery::from_static(path);
        let answer = self
            .grpc()
            .unary(request, path, ProstCodec::default())
            .await;
        Ok(answer?.into_inner())
    }

    /// Opens a stream in both directions with `first` as its first request. Completes with the
    /// server's first answer, which [`Stream::next`] then returns. The caller limits the time.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        first: Q,
        token: Option<Token>,
    ) -> Result<Stream<Q, A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        // Unbounded: the owner of the stream sends a request per answer or interval.
        let (requests, queue) = mpsc::unbounded_channel();
        let queue = stream::unfold(queue, async |mut queue| Some((queue.recv().await?, queue)));
        let queue = stream::once(async { first }).chain(queue);
        let mut request = tonic::Request::new(queue);
        authorize(&mut request, token);
        let has_leader = MetadataValue::from_static("true");
        request.metadata_mut().insert(HAS_LEADER, has_leader);
        let path = PathAndQuery::from_static(path);
        let answers = self
            .grpc()
            .streaming(request, path, ProstCodec::default())
            .await?
            .into_inner();
        Ok(Stream {
            requests,
            answers,
            connection: self.clone(),
        })
    }

    fn grpc(&self) -> Grpc<Self> {
        Grpc::new(self.clone()).max_decoding_message_size(self.shared.message_limit)
    }
}

fn authorize<T>(request: &mut tonic::Request<T>, token: Option<Token>) {
    if let Some(token) = token {
        request.metadata_mut().insert(TOKEN, token);
    }
}

impl Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<TransportBody>;
    type Error = SendError;
    type Future = BoxFuture<'static, Result<Self::Response, SendError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let request = request.map(|body| {
            let body = body.map_err(BoxError::from).boxed_unsync();
            RequestBody::one_shot(Arc::new(OneShot::new(Vec::new(), body, Arc::default())))
        });
        self.shared.transport.send(request)
    }
}

/// An open stream of requests and answers. Dropping it cancels the call.
pub(crate) struct Stream<Q, A> {
    requests: mpsc::UnboundedSender<Q>,
    answers: Streaming<A>,
    connection: Connection,
}

impl<Q, A> Stream<Q, A> {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Queues a request. On a broken stream, [`next`](Self::next) returns the reason.
    pub(crate) fn send(&self, request: Q) {
        let _broken = self.requests.send(request);
    }

    /// The next answer. The caller limits the time. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<A, Status> {
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("the server ended the stream"))
    }
}
