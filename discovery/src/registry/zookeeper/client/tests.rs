//! The client against a scripted server, on a paused clock.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::registry::zookeeper::protocol::{Code, Malformed, Request, handshake::Session};

/// The session's timeout.
const TIMEOUT: Duration = Duration::from_secs(9);

const PING: i32 = 11;

/// The server's end of a connection.
struct Server(DuplexStream);

impl Server {
    /// The number and the operation of the next request.
    async fn request(&mut self) -> (i32, i32) {
        let length = self.0.read_i32().await.unwrap();
        let mut request = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut request).await.unwrap();
        let int = |at: usize| i32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        (int(0), int(4))
    }

    /// Answers the request `xid`.
    async fn answer(&mut self, xid: i32, error: i32, record: &[u8]) {
        let length = i32::try_from(16 + record.len()).unwrap();
        self.0.write_i32(length).await.unwrap();
        self.0.write_i32(xid).await.unwrap();
        self.0.write_i64(0).await.unwrap();
        self.0.write_i32(error).await.unwrap();
        self.0.write_all(record).await.unwrap();
    }

    async fn event(&mut self, path: &str) {
        let length = u8::try_from(path.len()).unwrap();
        let head = [0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, length];
        self.answer(-1, 0, &[&head, path.as_bytes()].concat()).await;
    }
}

async fn connect() -> (Server, Connection) {
    let (mut server, mut client) = duplex(1 << 16);
    // The server's answer: version, timeout, session, password.
    let mut answer = vec![0, 0, 0, 36, 0, 0, 0, 0];
    answer.extend_from_slice(&9000_i32.to_be_bytes());
    answer.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 16]);
    answer.extend_from_slice(&[1; 16]);
    server.write_all(&answer).await.unwrap();
    let mut received = BytesMut::new();
    let session = handshake::open(&mut client, &mut received, TIMEOUT, None, None);
    let session: Session = session.await.unwrap();
    assert_eq!((session.id, session.timeout), (7, TIMEOUT));
    let mut hello = [0; 49];
    server.read_exact(&mut hello).await.unwrap();
    (Server(server), Connection::start(client, session, received))
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_order_and_events_in_between() {
    let (mut server, mut connection) = connect().await;
    let serve = async {
        for _ in 0..3 {
            let (xid, _) = server.request().await;
            server.event(&format!("/{xid}")).await;
            server
                .answer(xid, if xid == 2 { -101 } else { 0 }, b"abcd")
                .await;
        }
        server
    };
    let calls = async {
        tokio::join!(
            connection.call(Request::data("/a")),
            connection.call(Request::data("/b")),
            connection.call(Request::data("/c")),
        )
    };
    let (_server, (first, second, third)) = tokio::join!(serve, calls);
    assert_eq!(first.unwrap(), &b"abcd"[..]);
    assert!(matches!(second, Err(Failure::Refused(Code::NO_NODE))));
    assert_eq!(third.unwrap(), &b"abcd"[..]);
    // An event comes before the answer that may show its change.
    let events: Vec<_> = std::iter::from_fn(|| connection.event_now()).collect();
    let paths: Vec<_> = events.iter().map(|event| &*event.path).collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_kept_by_pings() {
    let (mut server, connection) = connect().await;
    let begun = Instant::now();
    for nth in 1..10 {
        let (xid, operation) = server.request().await;
        assert_eq!((xid, operation), (-2, PING));
        assert_eq!(begun.elapsed().as_secs(), nth * 3);
        server.answer(xid, 0, &[]).await;
    }
    assert!(!connection.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_dead_after_two_thirds_of_the_timeout() {
    let (_server, mut connection) = connect().await;
    let begun = Instant::now();
    let lost = connection.event().await.unwrap_err();
    assert!(matches!(lost, Lost::Silent(_)), "{lost}");
    assert_eq!(begun.elapsed().as_secs(), 6);
    let call = connection.call(Request::data("/a")).await;
    assert!(matches!(call, Err(Failure::Lost(Lost::Silent(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_pings_only_is_left_after_the_timeout() {
    let (mut server, connection) = connect().await;
    let serve = async {
        loop {
            if let (xid @ -2, _) = server.request().await {
                server.answer(xid, 0, &[]).await;
            }
        }
    };
    let begun = Instant::now();
    tokio::select! {
        // The server sees the end of the connection at the same moment.
        biased;
        call = connection.call(Request::data("/a")) => {
            assert!(matches!(call, Err(Failure::Lost(Lost::Overdue(TIMEOUT)))), "{call:?}");
        }
        () = serve => {}
    }
    assert_eq!(begun.elapsed(), TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_request_ends_the_connection() {
    for xid in [1, 3, i32::MIN] {
        let (mut server, connection) = connect().await;
        let serve = async {
            let (first, _) = server.request().await;
            server.answer(first, 0, &[]).await;
            server.request().await;
            server.answer(xid, 0, &[]).await;
        };
        let calls = async {
            connection.call(Request::data("/a")).await.unwrap();
            connection.call(Request::data("/b")).await
        };
        let ((), call) = tokio::join!(serve, calls);
        let lost = call.unwrap_err();
        assert!(
            matches!(lost, Failure::Lost(Lost::Malformed(Malformed::ORDER))),
            "{lost}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_frame_ends_the_connection() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0, 0, 0, 2, 0, 0],
        &[0xff; 8],
    ] {
        let (mut server, mut connection) = connect().await;
        server.0.write_all(bytes).await.unwrap();
        let lost = connection.event().await.unwrap_err();
        assert!(matches!(lost, Lost::Malformed(_)), "{lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_end_of_the_connection_is_seen_by_all_calls() {
    let (mut server, mut connection) = connect().await;
    let serve = async {
        server.request().await;
        drop(server);
    };
    let ((), call) = tokio::join!(serve, connection.call(Request::data("/a")));
    assert!(matches!(call, Err(Failure::Lost(Lost::Closed))), "{call:?}");
    assert!(matches!(connection.event().await, Err(Lost::Closed)));
    assert!(connection.has_ended());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_close_the_connection_is_not_sent() {
    let (mut server, connection) = connect().await;
    let large = vec![0; Request::LIMIT];
    let call = connection.call(Request::set_data("/a", &large, 0)).await;
    assert!(matches!(call, Err(Failure::TooLarge(_))), "{call:?}");
    assert!(timeout(TIMEOUT / 9, server.request()).await.is_err());
    assert!(!connection.has_ended());
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_under_way_at_a_time_and_not_more() {
    let (mut server, connection) = connect().await;
    let calls = (0..1000).map(|_| connection.call(Request::data("/a")));
    let calls = futures_util::future::join_all(calls);
    let serve = async {
        let mut first = 1;
        while first <= 1000 {
            // All that come without an answer.
            let mut last = first;
            while let Ok((xid, _)) = timeout(Duration::from_millis(10), server.request()).await {
                last = xid;
            }
            assert!(last - first < 256, "{first} to {last}");
            assert!(last - first > 100, "{first} to {last}");
            for xid in first..=last {
                server.answer(xid, 0, b"x").await;
            }
            first = last + 1;
        }
    };
    let (answers, ()) = tokio::join!(calls, serve);
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_connection_closes_it() {
    let (mut server, connection) = connect().await;
    drop(connection);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(server.0.read(&mut [0; 8]).await.unwrap(), 0);
}
