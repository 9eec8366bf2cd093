//! The connections of HTTP/1.1: how many there are, when they are used again, and what their end means.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{
    CallErrorKind, ConnectivityState, Instance,
    http::{Channel, Connections},
    registry::StaticRegistry,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    answer, eventually, get,
    memory::{connected, patient},
    post, send,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What a raw server does with a request, by the number of those before it on the same connection.
#[derive(Clone, Copy)]
enum Act {
    Answer(&'static str),
    AnswerAndClose(&'static str),
    Close,
}

/// A server that writes its bytes itself.
struct Raw {
    port: u16,
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Raw {
    async fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (made, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (act, counts) = (Arc::new(act), (Arc::clone(&made), Arc::clone(&open)));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                counts.1.fetch_add(1, Ordering::SeqCst);
                let (act, open) = (Arc::clone(&act), Arc::clone(&counts.1));
                connections.spawn(async move {
                    let _ended_or_broken = serve(stream, &*act).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self {
            port,
            made,
            open,
            task,
        }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    async fn channel(&self, connections: Connections) -> Channel {
        channel(&[self.port], connections).await
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    act: &(dyn Fn(usize) -> Act + Send + Sync),
) -> std::io::Result<()> {
    let (mut nth, mut received, mut buffer) = (0, Vec::new(), [0; 1024]);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        received.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&received);
        // The requests here have no body or the body "text".
        let is_whole = text.ends_with("\r\n\r\n") && !text.contains("content-length")
            || text.ends_with("\r\n\r\ntext");
        if !is_whole {
            continue;
        }
        received.clear();
        match act(nth) {
            Act::Answer(text) => stream.write_all(text.as_bytes()).await?,
            Act::AnswerAndClose(text) => return stream.write_all(text.as_bytes()).await,
            Act::Close => return Ok(()),
        }
        nth += 1;
    }
}

async fn channel(ports: &[u16], connections: Connections) -> Channel {
    let instances = ports
        .iter()
        .map(|port| Instance::new("127.0.0.1", *port).unwrap());
    let registry = StaticRegistry::new(instances);
    let builder = Channel::from_registry(Arc::new(registry), "orders");
    connected(builder.retry(patient()).factory(connections)).await
}

/// Attempts of the first instance that counted against it.
fn failures(channel: &Channel) -> u64 {
    channel.endpoints()[0].calls.failed
}

#[tokio::test]
async fn requests_one_after_another_use_one_connection() {
    let server = Raw::start(|_| Act::Answer(OK)).await;
    let channel = server.channel(Connections::new()).await;
    for _ in 0..50 {
        assert_eq!(answer(&channel, get("/")).await, (200, "ok".to_owned()));
        assert_eq!(answer(&channel, post("/")).await.0, 200);
    }
    assert_eq!(server.made(), 1);
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_without_a_word_costs_no_request_and_no_failure() {
    let server = Raw::start(|_| Act::AnswerAndClose(OK)).await;
    let channel = server.channel(Connections::new()).await;
    for _ in 0..50 {
        assert_eq!(answer(&channel, get("/")).await.0, 200);
    }
    assert_eq!(failures(&channel), 0);
    assert_eq!(channel.status().ready, 1);
}

#[tokio::test]
async fn a_connection_that_closes_on_its_second_request_costs_no_get_and_an_error_for_a_post() {
    let server = Raw::start(|nth| {
        if nth == 0 {
            Act::Answer(OK)
        } else {
            Act::Close
        }
    })
    .await;
    let channel = server.channel(Connections::new()).await;
    for _ in 0..20 {
        assert_eq!(answer(&channel, get("/")).await.0, 200);
    }
    assert_eq!(failures(&channel), 0);
    // The connection has carried a GET: nobody knows if the server executes the next request.
    let error = send(&channel, post("/")).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::NotRetryable);
    assert_eq!(answer(&channel, post("/")).await.0, 200);
}

#[tokio::test]
async fn a_server_that_announces_the_close_gets_each_request_on_its_own_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nok",
    ] {
        let server = Raw::start(move |_| Act::AnswerAndClose(head)).await;
        let channel = server.channel(Connections::new()).await;
        for _ in 0..10 {
            assert_eq!(answer(&channel, post("/")).await, (200, "ok".to_owned()));
        }
        assert_eq!(server.made(), 10, "{head}");
        assert_eq!(failures(&channel), 0);
    }
}

#[tokio::test]
async fn an_unused_connection_is_closed_after_the_idle_time_and_the_next_request_makes_another() {
    let server = Raw::start(|_| Act::Answer(OK)).await;
    let idle = Duration::from_millis(100);
    let channel = server
        .channel(Connections::new().with_idle_timeout(idle))
        .await;
    answer(&channel, get("/")).await;
    eventually(|| server.open() == 0).await;
    assert_eq!(channel.status().ready, 1);
    assert_eq!(answer(&channel, post("/")).await.0, 200);
    assert_eq!(server.made(), 2);
    assert_eq!(failures(&channel), 0);
}

#[tokio::test]
async fn a_short_answer_that_nobody_reads_keeps_its_connection_and_a_long_one_costs_it() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let server = Raw::start(|_| Act::Answer(OK)).await;
    let channel = server.channel(Connections::new()).await;
    for _ in 0..10 {
        drop(send(&channel, get("/")).await.unwrap());
    }
    assert_eq!(server.made(), 1);
    let endless = Raw::start(|_| Act::Answer(CHUNKED)).await;
    let channel = endless.channel(Connections::new()).await;
    for _ in 0..3 {
        drop(send(&channel, get("/")).await.unwrap());
        eventually(|| endless.open() == 0).await;
    }
    assert_eq!(failures(&channel), 0);
}

#[tokio::test]
async fn an_instance_that_dies_is_noticed_without_a_request() {
    let server = Raw::start(|_| Act::Answer(OK)).await;
    let channel = server.channel(Connections::new()).await;
    answer(&channel, get("/")).await;
    drop(server);
    let is_down = || channel.endpoints()[0].connectivity == ConnectivityState::TransientFailure;
    eventually(is_down).await;
    let error = send(&channel, get("/")).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::AllUnreachable);
    assert!(error.to_string().contains("refused"), "{error}");
}

/// Servers that answer slowly, and the greatest number of requests that each has had at a time.
async fn slow_servers(count: usize) -> (Vec<u16>, Vec<Arc<AtomicUsize>>) {
    let (mut ports, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap().port());
        let (now, peak) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        peaks.push(Arc::clone(&peak));
        let handler = async move || {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(50)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            "ok"
        };
        let app = axum::Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await });
    }
    (ports, peaks)
}

#[tokio::test]
async fn requests_over_the_bound_of_one_instance_go_to_others_and_over_all_bounds_they_wait() {
    let (ports, peaks) = slow_servers(2).await;
    let bound = NonZeroUsize::new(3).unwrap();
    let channel = channel(&ports, Connections::new().with_max_connections(bound)).await;
    for requests in [6, 20] {
        let all = (0..requests).map(|_| answer(&channel, post("/")));
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|(status, _)| *status == 200));
        for peak in &peaks {
            assert_eq!(peak.load(Ordering::SeqCst), 3, "{requests}");
        }
    }
}
