//! A trim server on bare HTTP/2 frames, which ends its connections as proxies do, or its calls as
//! grpc-java does.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use discovery::Instance;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::{TcpListener, TcpStream},
};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, and `content-type: application/grpc` without indexing (RFC 7541).
const RESPONSE: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0` without indexing.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";
/// The code of a reset (RFC 9113, 7).
const CANCEL: [u8; 4] = [0, 0, 0, 8];
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// The end of each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// GOAWAY (`NO_ERROR`) with this call, its answer, and the end. Later calls are not processed.
    /// nginx does so after 1 000 calls, Envoy with `max_requests_per_connection`.
    GoAwayAfter(usize),
    /// The end of the byte stream after this many answers, without GOAWAY.
    CloseAfter(usize),
    /// None. The stream of the first call is reset, and the end of an answer follows all the same, as
    /// grpc-java sends it at a deadline.
    AnswerAfterReset,
}

/// A server on a real socket.
pub(crate) struct RawServer {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl RawServer {
    pub(crate) async fn start(end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::default(),
            connections: Arc::default(),
        };
        let (calls, connections) = (Arc::clone(&server.calls), Arc::clone(&server.connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let calls = Arc::clone(&calls);
                tokio::spawn(async move {
                    // The client may close first.
                    let _closed = serve(stream, end, &calls).await;
                });
            }
        });
        server
    }

    pub(crate) fn instance(&self) -> Instance {
        Instance::new("127.0.0.1", self.address.port()).unwrap()
    }

    /// Calls answered.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    pub(crate) fn connections_made(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn answer(out: &mut Vec<u8>, stream: u32) {
    frame(out, HEADERS, END_HEADERS, stream, RESPONSE);
    frame(out, DATA, 0, stream, EMPTY_MESSAGE);
    frame(out, HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS);
}

fn go_away(out: &mut Vec<u8>, last: u32) {
    let no_error = [0; 4];
    frame(out, GOAWAY, 0, 0, &[last.to_be_bytes(), no_error].concat());
}

async fn serve(mut stream: TcpStream, end: End, calls: &AtomicUsize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    let mut out = Vec::new();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let limit = match end {
        End::GoAwayAfter(limit) | End::CloseAfter(limit) => limit,
        End::AnswerAfterReset => usize::MAX,
    };
    let goes_away = matches!(end, End::GoAwayAfter(_));
    let (mut begun, mut last, mut answered) = (0, 0, 0);
    if limit == 0 && goes_away {
        go_away(&mut out, last);
    }
    loop {
        stream.write_all(&out).await?;
        out.clear();
        if answered == limit {
            stream.shutdown().await?;
            // Closing with unread bytes would reset the connection and discard the answers.
            copy(&mut stream, &mut sink()).await?;
            return Ok(());
        }
        let mut header = [0; 9];
        stream.read_exact(&mut header).await?;
        let [high, middle, low, kind, flags, rest @ ..] = header;
        let id = u32::from_be_bytes(rest);
        let length = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut out, PING, ACK, 0, &payload),
            HEADERS if begun < limit => {
                (begun, last) = (begun + 1, id);
                if begun == limit && goes_away {
                    go_away(&mut out, last);
                }
            }
            DATA if flags & END_STREAM != 0 && id <= last => {
                if matches!(end, End::AnswerAfterReset) && answered == 0 {
                    frame(&mut out, RST_STREAM, 0, id, &CANCEL);
                    let flags = END_HEADERS | END_STREAM;
                    frame(&mut out, HEADERS, flags, id, TRAILERS);
                } else {
                    answer(&mut out, id);
                }
                answered += 1;
                calls.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}
