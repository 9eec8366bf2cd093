//! Shared parts of the tests of the add service's binary.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod calls;
pub(crate) mod raw;

use std::{io::Write as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{SendStream, client};
use reqwest::{Client, StatusCode, header::HeaderMap};
use serde_json::Value;
use testkit::{AddService, TrimService, add_service, eventually, http_client, trim_service};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Far above the time that any step takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Limit of answers that must not wait for a timeout.
pub(crate) const QUICK: Duration = Duration::from_secs(2);

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The `err` field of a body that has no other field.
    pub(crate) fn reason(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let body: Value = serde_json::from_str(&self.text).unwrap();
        assert_eq!(
            body.as_object().map(serde_json::Map::len),
            Some(1),
            "{self:?}"
        );
        let reason = body["err"].as_str().unwrap();
        assert!(!reason.is_empty(), "{self:?}");
        reason.to_owned()
    }
}

/// A client of one add service over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    client: Client,
    address: SocketAddr,
}

impl Http {
    pub(crate) fn new(service: &AddService) -> Self {
        Self {
            client: http_client().unwrap(),
            address: service.http,
        }
    }

    /// A client of another port.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            client: http_client().unwrap(),
            address,
        }
    }

    /// The same service with another client.
    pub(crate) fn with(&self, client: Client) -> Self {
        Self {
            client,
            address: self.address,
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        self.client
            .request(method, format!("http://{}{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        send(self.request("POST", path).body(body)).await
    }

    /// Waits until this many instances are connected.
    pub(crate) async fn until_ready(&self, instances: usize) {
        let wanted = format!("ready: {instances} of {instances} instances\n");
        let look = async || {
            let answer = self.get("/readyz").await;
            if answer.text == wanted {
                Ok(())
            } else {
                Err(answer)
            }
        };
        eventually("ready", LIMIT, look).await.unwrap();
    }
}

/// A gRPC connection.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

/// A gRPC call on a connection of its own, whose request is sent in parts.
pub(crate) struct RawCall {
    response: client::ResponseFuture,
    body: SendStream<Bytes>,
    _client: client::SendRequest<Bytes>,
}

impl RawCall {
    /// Sends the headers.
    pub(crate) async fn begin(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = client::handshake(stream).await.unwrap();
        // Its error is that of the response.
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut request = http::Request::post(format!("http://{address}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, body) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        Self {
            response,
            body,
            _client: client,
        }
    }

    /// Sends a part of the request, and leaves it open.
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        let bytes = Bytes::copy_from_slice(bytes);
        self.body.send_data(bytes, false).unwrap();
        self
    }

    /// Ends the request.
    pub(crate) fn end(mut self) -> Self {
        self.body.send_data(Bytes::new(), true).unwrap();
        self
    }

    /// The status with which the call ends.
    pub(crate) async fn status(self) -> Status {
        let ended = async {
            let (head, mut body) = self.response.await.unwrap().into_parts();
            if let Some(status) = Status::from_header_map(&head.headers) {
                return status;
            }
            while let Some(data) = body.data().await {
                data.unwrap();
            }
            let trailers = body.trailers().await.unwrap().unwrap();
            Status::from_header_map(&trailers).unwrap()
        };
        timeout(LIMIT, ended).await.unwrap()
    }
}

pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

/// Trim instances that are not registered.
pub(crate) async fn trims(count: usize, flags: &[&str]) -> Vec<TrimService> {
    let mut started = Vec::new();
    for _ in 0..count {
        let flags = [&["--consul", "127.0.0.1:1"], flags].concat();
        started.push(trim_service(&flags).await.unwrap());
    }
    started
}

/// An add service that uses these instances.
pub(crate) async fn add_over(trims: &[TrimService], flags: &[&str]) -> AddService {
    let fixed: Vec<_> = trims.iter().map(|trim| trim.grpc.to_string()).collect();
    let fixed = fixed.join(",");
    add_service(&[&["--static", &fixed], flags].concat())
        .await
        .unwrap()
}

/// A file for `--trim-config`.
pub(crate) fn trim_config(json: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.as_bytes()).unwrap();
    file
}

/// A file for `--trim-config` that keeps slow answers of a busy machine from beginning second attempts.
pub(crate) fn patient() -> tempfile::NamedTempFile {
    trim_config(
        r#"{"methodConfig": [{"name": [{}], "timeout": "60s", "discovery": {"learnAttemptTimeout": false}}]}"#,
    )
}

/// An add service without instances. `Sum` works without them.
pub(crate) async fn add_alone(flags: &[&str]) -> AddService {
    add_service(&[&["--consul", "127.0.0.1:1"], flags].concat())
        .await
        .unwrap()
}

/// Reads from a connection until the received text contains `part`.
pub(crate) async fn read_until(stream: &mut TcpStream, part: &str) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received);
        if text.contains(part) {
            return text.into_owned();
        }
        let mut bytes = [0; 1024];
        let count = timeout(LIMIT, stream.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_ne!(count, 0, "closed after {text:?}");
        received.extend_from_slice(&bytes[..count]);
    }
}
