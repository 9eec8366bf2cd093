//! An HTTP server with answers from the test, valid or not: for answers that a real server does not
//! give on demand.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// A request of a client.
#[derive(Clone, Debug)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Without the query, still percent-encoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As text; broken characters are replaced.
    pub body: String,
}

impl Request {
    /// The first query parameter of this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value)
    }

    /// The first header of this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| &**value)
    }

    fn parse(head: &str) -> Result<Self> {
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (method, target) = words.next().zip(words.next()).context("no request line")?;
        let url = Url::parse("http://fake")?.join(target)?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            method: method.to_owned(),
            path: url.path().to_owned(),
            query: url.query_pairs().into_owned().collect(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            body: String::new(),
        })
    }
}

/// The server's reaction to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    delay: Duration,
    bytes: Vec<u8>,
    after: After,
}

#[derive(Clone, Debug)]
enum After {
    /// The next request on the same connection.
    Next,
    Close,
    /// Sends nothing more and keeps the connection open.
    Hang,
    /// Sends the same bytes repeatedly, with this pause.
    Repeat(Vec<u8>, Duration),
}

impl Reply {
    /// A complete answer.
    #[must_use]
    pub fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut head = format!(
            "HTTP/1.1 {status} Reason\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// A valid answer of Consul with its index.
    #[must_use]
    pub fn consul(index: u64, body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &[("X-Consul-Index", &index.to_string())], body)
    }

    /// These bytes, valid or not.
    #[must_use]
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            delay: Duration::ZERO,
            bytes: bytes.into(),
            after: After::Next,
        }
    }

    /// No answer, on an open connection.
    #[must_use]
    pub fn hang() -> Self {
        Self::raw([]).then_hang()
    }

    /// Answers after this time.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends nothing more after this, but keeps the connection open.
    #[must_use]
    pub fn then_hang(mut self) -> Self {
        self.after = After::Hang;
        self
    }

    /// Closes the connection after this.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.after = After::Close;
        self
    }

    /// Sends these bytes repeatedly after this, with a pause in between.
    #[must_use]
    pub fn then_repeat(mut self, bytes: impl Into<Vec<u8>>, pause: Duration) -> Self {
        self.after = After::Repeat(bytes.into(), pause);
        self
    }
}

/// A running server; dropping it closes all its connections.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeServer {
    /// Listens on a free loopback port and answers each request with the reply of `answer`.
    ///
    /// # Errors
    ///
    /// When no port is free.
    pub async fn start<F>(answer: F) -> Result<Self>
    where
        F: Fn(&Request) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, shared.clone(), Arc::new(answer)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<F>(listener: TcpListener, shared: Arc<Shared>, answer: Arc<F>)
where
    F: Fn(&Request) -> Reply + Send + Sync + 'static,
{
    // Dropped with the server, and closes the connections.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let open = Open::new(shared.clone());
        let answer = answer.clone();
        connections.spawn(async move {
            // A client may disconnect at any time.
            let _gone = serve(stream, &open.0, &*answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.open.fetch_add(1, SeqCst);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn serve(
    mut stream: TcpStream,
    shared: &Shared,
    answer: &(impl Fn(&Request) -> Reply + Sync),
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = input.split_off(end + 4);
                break std::mem::replace(&mut input, rest);
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let mut request = Request::parse(std::str::from_utf8(&head)?.trim_end())?;
        let length = request.header("content-length").unwrap_or("0").parse()?;
        while input.len() < length {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
        let rest = input.split_off(length);
        request.body = String::from_utf8_lossy(&std::mem::replace(&mut input, rest)).into_owned();
        let reply = answer(&request);
        shared.requests().push(request);
        let (mut reading, mut writing) = stream.split();
        let send = async {
            sleep(reply.delay).await;
            writing.write_all(&reply.bytes).await?;
            match reply.after {
                After::Next => Ok(true),
                After::Close => Ok(false),
                After::Hang => std::future::pending().await,
                After::Repeat(bytes, pause) => loop {
                    writing.write_all(&bytes).await?;
                    sleep(pause).await;
                },
            }
        };
        let go_on: Result<bool> = tokio::select! {
            done = send => done,
            // Detects a client that disconnects meanwhile, and keeps the bytes of an early request.
            more = reading.read_buf(&mut input) => Ok(more? > 0),
        };
        if !go_on? {
            return Ok(());
        }
    }
}
