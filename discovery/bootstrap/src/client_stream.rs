//! The byte stream of a client, with the limits that hyper does not have:
//!
//! - A client must begin within a time: with HTTP/2's preface and settings, or a byte of HTTP/1.
//! - Each HTTP/2 frame, and the headers of each request, must arrive within a time. hyper's limit for
//!   HTTP/1 includes the wait for the next request.
//! - On a port for HTTP/2 only, the connection of a client that sends something else is closed. hyper
//!   leaves the rest of its bytes unread, and the kernel then resets the connection instead.
//! - A client that begins with TLS on a port without TLS is disconnected, with a log line.
//! - A flood of control frames ends the connection with GOAWAY and `ENHANCE_YOUR_CALM`.

use std::{
    future::Future as _,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tracing::warn;

use crate::{
    activity::Activity,
    flood::{Flood, FloodGuard},
    frames::Frames,
    thinned::Thinned,
    tls::HANDSHAKE,
};

/// The preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An error code of HTTP/2 (RFC 9113, section 7).
const ENHANCE_YOUR_CALM: u32 = 11;

static FLOODS: Thinned = Thinned::new();
static TLS: Thinned = Thinned::new();

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// For the beginning of the connection.
    pub(crate) begin: Duration,
    /// For each frame, and for the headers of each request, from their first byte on.
    pub(crate) receive: Duration,
}

/// The bytes that the client has sent so far.
#[derive(Debug)]
enum Protocol {
    /// This many bytes of the preface.
    Unknown(usize),
    Http1 {
        /// The requests accepted when a byte of the next one arrived.
        heard: Option<usize>,
    },
    Http2(Frames),
}

/// The part of the input that must arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Beginning,
    /// The headers of the n-th request of HTTP/1.
    Headers(usize),
    /// The n-th frame.
    Frame(u64),
}

/// A client's byte stream.
#[derive(Debug)]
pub(crate) struct ClientStream<S> {
    stream: S,
    peer: IpAddr,
    times: Times,
    http2_only: bool,
    /// True for the plaintext inside TLS.
    inside_tls: bool,
    activity: Arc<Activity>,
    protocol: Protocol,
    sent: Frames,
    flood: FloodGuard,
    last_stream: u32,
    /// The part that is waited for, and its limit.
    limit: (Part, Pin<Box<Sleep>>),
}

impl<S> ClientStream<S> {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(stream: S, peer: IpAddr, times: Times, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            peer,
            activity,
            http2_only: false,
            inside_tls: false,
            protocol: Protocol::Unknown(0),
            sent: Frames::default(),
            flood: FloodGuard::new(),
            last_stream: 0,
            limit: (Part::Beginning, Box::pin(sleep(times.begin))),
            times,
        }
    }

    /// Closes the connection of a client that does not speak HTTP/2.
    pub(crate) fn http2_only(mut self, only: bool) -> Self {
        self.http2_only = only;
        self
    }

    /// Marks the stream as the plaintext inside TLS, which is not searched for another handshake.
    pub(crate) fn inside_tls(mut self, inside: bool) -> Self {
        self.inside_tls = inside;
        self
    }

    /// True if these first bytes are TLS, on a port without TLS.
    fn begins_tls(&self, bytes: &[u8]) -> bool {
        !self.inside_tls
            && matches!(self.protocol, Protocol::Unknown(0))
            && bytes.first() == Some(&HANDSHAKE)
    }

    fn received(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        if let Protocol::Unknown(arrived) = &mut self.protocol {
            let expected = &PREFACE[*arrived..];
            let part = bytes.len().min(expected.len());
            if bytes[..part] != expected[..part] {
                self.protocol = Protocol::Http1 { heard: Some(0) };
                return Ok(());
            }
            *arrived += part;
            bytes = &bytes[part..];
            if *arrived < PREFACE.len() {
                return Ok(());
            }
            self.protocol = Protocol::Http2(Frames::default());
        }
        match &mut self.protocol {
            Protocol::Unknown(_) => {}
            Protocol::Http1 { heard } => {
                if let Some(accepted) = self.activity.between_requests() {
                    *heard = Some(accepted);
                }
            }
            Protocol::Http2(frames) => {
                let none_before = frames.complete() == 0;
                let mut result = Ok(());
                frames.follow(bytes, |head| {
                    if head.is_useful() {
                        self.last_stream = self.last_stream.max(head.stream);
                    }
                    result = result.and_then(|()| self.flood.received(head));
                });
                if none_before && frames.complete() > 0 {
                    self.activity.begins();
                }
                return result;
            }
        }
        Ok(())
    }

    fn sent(&mut self, bytes: &[u8]) {
        // The server of HTTP/2 may begin before the client does.
        if !matches!(self.protocol, Protocol::Http1 { .. }) {
            self.sent.follow(bytes, |head| self.flood.sent(head));
        }
    }

    /// The part of the input that the client has begun and not finished.
    fn awaited(&self) -> Option<Part> {
        match &self.protocol {
            Protocol::Unknown(_) => Some(Part::Beginning),
            Protocol::Http1 { heard } => {
                let between = self.activity.between_requests()?;
                (*heard == Some(between)).then_some(Part::Headers(between))
            }
            Protocol::Http2(frames) if frames.complete() == 0 => Some(Part::Beginning),
            Protocol::Http2(frames) => frames.incomplete().map(Part::Frame),
        }
    }

    /// Called while the client sends nothing. Ready if it has exceeded a limit.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.activity.waits();
        let Some(part) = self.awaited() else {
            return Poll::Pending;
        };
        let (current, limit) = &mut self.limit;
        if *current != part {
            *current = part;
            limit.as_mut().reset(Instant::now() + self.times.receive);
        }
        limit.as_mut().poll(cx).map(|()| {
            let message = match part {
                Part::Beginning => "the client connected and did not begin HTTP",
                Part::Headers(_) => "the headers of a request did not arrive in time",
                Part::Frame(_) => "the rest of an HTTP/2 frame did not arrive in time",
            };
            io::Error::new(io::ErrorKind::TimedOut, message)
        })
    }
}

impl<S: AsyncWrite + Unpin> ClientStream<S> {
    /// Sends GOAWAY, if the client leaves room for it between two frames.
    fn go_away(&mut self, flood: Flood, cx: &mut Context<'_>) -> io::Error {
        if self.sent.is_between() {
            let mut frame = [0; 17];
            // 8 bytes of payload, type 7.
            frame[2] = 8;
            frame[3] = 7;
            frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
            frame[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
            // The connection is closed whether or not this succeeds.
            let _sent = Pin::new(&mut self.stream).poll_write(cx, &frame);
        }
        let kind = flood.name();
        if let Some(suppressed) = FLOODS.line() {
            warn!(client = %self.peer, suppressed, "connection ended: a flood of {kind}");
        }
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            format!("a flood of {kind}"),
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            return self.poll_limit(cx).map(Err);
        };
        let bytes = &buffer.filled()[before..];
        if self.begins_tls(bytes) {
            buffer.set_filled(before);
            if let Some(suppressed) = TLS.line() {
                warn!(
                    client = %self.peer,
                    suppressed,
                    "connection refused: the client uses TLS, and this port has none (--tls-cert, \
                     --tls-key)"
                );
            }
            let message = "the client uses TLS on a port without TLS";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        if !bytes.is_empty()
            && let Err(flood) = self.received(bytes)
        {
            // A read that fails must not have filled the buffer.
            buffer.set_filled(before);
            return Poll::Ready(Err(self.go_away(flood, cx)));
        }
        if self.http2_only && matches!(self.protocol, Protocol::Http1 { .. }) {
            buffer.set_filled(before);
            let mut rest = [0; 4096];
            let _read = Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut rest));
            let message = "the client does not speak HTTP/2";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.sent(&bytes[..count]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The frames of small answers are in one buffer, whose plain write is the cheaper system call.
        if let [bytes] = slices {
            return self.poll_write(cx, bytes);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(mut count)) = written {
            for slice in slices {
                let part = count.min(slice.len());
                self.sent(&slice[..part]);
                count -= part;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const TIMES: Times = Times {
        begin: Duration::from_secs(10),
        receive: Duration::from_secs(30),
    };
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0PINGPING";

    fn connection() -> (DuplexStream, ClientStream<DuplexStream>, Arc<Activity>) {
        let (client, server) = duplex(1 << 20);
        let activity = Arc::<Activity>::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let server = ClientStream::new(server, peer, TIMES, Arc::clone(&activity));
        (client, server, activity)
    }

    /// The time after which the server closes a connection that sent these bytes one by one.
    async fn closed_after(said: &[u8], limit: Duration) -> Duration {
        let (mut client, mut server, _) = connection();
        let begun = Instant::now();
        let send = async {
            for byte in said {
                client.write_u8(*byte).await.unwrap();
                sleep(limit / 1_000).await;
            }
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(server.read_to_end(&mut received), send);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(received, said);
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_closed() {
        let half_settings = [PREFACE, &SETTINGS[..5]].concat();
        for said in [
            &b""[..],
            b"P",
            b"PRI ",
            &PREFACE[..23],
            PREFACE,
            &half_settings,
        ] {
            assert_eq!(
                closed_after(said, TIMES.begin).await,
                TIMES.begin,
                "{said:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn headers_and_frames_that_do_not_arrive_end_the_connection() {
        let headers = b"\0\0\x01\x01\0\0\0\0\x01x";
        let data = b"\0\0\x05\0\0\0\0\0\x01half";
        let begun = [PREFACE, SETTINGS].concat();
        for said in [
            b"G".to_vec(),
            b"GET / HTTP/1.1\r\nhost: x\r\n".to_vec(),
            b"PRI * HTTP/1.1\r\n".to_vec(),
            [&begun[..], &[0]].concat(),
            [&begun[..], headers].concat(),
            [&begun[..], headers, headers].concat(),
            [&begun[..], data].concat(),
        ] {
            let took = closed_after(&said, TIMES.receive).await;
            assert!(
                took >= TIMES.receive && took < TIMES.receive * 2,
                "{said:?}: {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_and_frames_there_is_no_limit() {
        let (mut client, mut server, activity) = connection();
        let begun = [PREFACE, SETTINGS, PING].concat();
        let mut received = vec![0; begun.len()];
        client.write_all(&begun).await.unwrap();
        server.read_exact(&mut received).await.unwrap();
        let late = async {
            sleep(TIMES.receive * 5).await;
            client.write_u8(0).await.unwrap();
        };
        assert_eq!(tokio::join!(late, server.read_u8()).1.unwrap(), 0);
        assert!(!activity.is_late());

        let (mut client, mut server, activity) = connection();
        for _ in 0..3 {
            client.write_all(b"GET").await.unwrap();
            server.read_exact(&mut [0; 3]).await.unwrap();
            activity.accept();
            // A body may take longer: its own limit applies.
            let late = async {
                sleep(TIMES.receive * 5).await;
                client.write_u8(b'x').await.unwrap();
            };
            assert_eq!(tokio::join!(late, server.read_u8()).1.unwrap(), b'x');
            activity.answer();
            let late = async {
                sleep(TIMES.receive * 5).await;
                client.write_u8(b'G').await.unwrap();
            };
            assert_eq!(tokio::join!(late, server.read_u8()).1.unwrap(), b'G');
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_speak_http2_is_closed_where_it_must() {
        let (mut client, server, _) = connection();
        let mut server = server.http2_only(true);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_ended_with_goaway() {
        let (mut client, mut server, _) = connection();
        server.write_all(SETTINGS).await.unwrap();
        client
            .write_all(&[PREFACE, SETTINGS].concat())
            .await
            .unwrap();
        client
            .write_all(b"\0\0\x01\x01\x05\0\0\0\x07x")
            .await
            .unwrap();
        for _ in 0..2_000 {
            client.write_all(PING).await.unwrap();
        }
        let mut received = Vec::new();
        let error = server.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        drop(server);
        let mut sent = Vec::new();
        client.read_to_end(&mut sent).await.unwrap();
        let go_away = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x07\0\0\0\x0b";
        assert_eq!(sent, [SETTINGS, go_away].concat());
    }
}
