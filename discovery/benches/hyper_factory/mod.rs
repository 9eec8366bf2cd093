//! The same transport on hyper's HTTP/2 client, to compare what a call costs.
//!
//! It has what the measurement needs, with the settings of `Http2`. A factory for use would also
//! have to wait for the server's first frame, to recognize requests that were not processed, and to
//! read the stream limit from the driver.

use discovery::{
    BoxError, Instance,
    connection::{
        ConnectError, Connection, Factory, RequestBody, SendError, Transport, TransportBody,
    },
};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

pub(crate) struct HyperFactory;

impl Factory for HyperFactory {
    fn connect<'a>(
        &'a self,
        instance: &'a Instance,
    ) -> BoxFuture<'a, Result<Connection, ConnectError>> {
        async move {
            let failed = |error: BoxError| ConnectError::Connect(error);
            let authority = instance
                .authority()
                .parse()
                .map_err(|error: http::uri::InvalidUri| failed(error.into()))?;
            let stream = TcpStream::connect((instance.host.as_str(), instance.port))
                .await
                .map_err(|error| failed(error.into()))?;
            stream
                .set_nodelay(true)
                .map_err(|error| failed(error.into()))?;
            let (sender, connection) = Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .max_header_list_size(16 << 10)
                .max_send_buf_size(1 << 20)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failed(error.into()))?;
            let driver = connection.map(|ended| ended.map_err(Into::into));
            Ok(Connection::new(
                HyperTransport { sender, authority },
                driver,
            ))
        }
        .boxed()
    }
}

struct HyperTransport {
    sender: SendRequest<RequestBody>,
    authority: Authority,
}

impl Transport for HyperTransport {
    fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> BoxFuture<'static, Result<Response<TransportBody>, SendError>> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(parts).unwrap();
        let mut sender = self.sender.clone();
        let response = sender.send_request(request);
        async move {
            let response = response.await.map_err(SendError::new)?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        }
        .boxed()
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
