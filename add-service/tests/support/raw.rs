//! Clients that write HTTP/2 frames of their own.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::LIMIT;

/// The preface of HTTP/2 and empty settings.
pub(crate) const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Error codes of HTTP/2.
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// The headers of a POST, by HPACK's static table and literals that are not indexed.
pub(crate) fn post(path: &str) -> Vec<u8> {
    let literal = |name: &[u8], value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        [name, &[length], value.as_bytes()].concat()
    };
    [
        // :method POST, :scheme http
        vec![0x83, 0x86],
        literal(&[0x04], path),
        literal(&[0x01], "localhost"),
        literal(&[0x0f, 0x10], "application/grpc"),
    ]
    .concat()
}

/// The end of a connection, as its client sees it.
#[derive(Debug)]
pub(crate) struct End {
    /// The error code of GOAWAY, if one came.
    pub(crate) go_away: Option<u32>,
    /// Streams that the server reset.
    pub(crate) resets: usize,
    /// Bytes that the client could send.
    pub(crate) sent: usize,
}

/// A connection that sends until the server ends it, and reads all that the server sends.
pub(crate) struct Raw {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Raw {
    pub(crate) async fn begin(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        writer.write_all(HTTP2).await.unwrap();
        Self { reader, writer }
    }

    /// Sends `chunks`, then waits for the end. An iterator without an end is sent until the server
    /// closes the connection, which it must within three times the limit.
    pub(crate) async fn send(self, chunks: impl Iterator<Item = Vec<u8>>) -> End {
        let Self {
            mut reader,
            mut writer,
        } = self;
        let write = async {
            let mut sent = 0;
            for chunk in chunks {
                if writer.write_all(&chunk).await.is_err() {
                    break;
                }
                sent += chunk.len();
            }
            sent
        };
        let read = async {
            let (mut go_away, mut resets) = (None, 0);
            // An error is the end too: the server closes while the client still sends.
            while let Ok((kind, payload)) = read_frame(&mut reader).await {
                match kind {
                    GOAWAY => {
                        go_away = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                    }
                    RST_STREAM => resets += 1,
                    _ => {}
                }
            }
            (go_away, resets)
        };
        let ((go_away, resets), sent) = timeout(LIMIT * 3, async { tokio::join!(read, write) })
            .await
            .unwrap();
        End {
            go_away,
            resets,
            sent,
        }
    }
}

async fn read_frame(reader: &mut OwnedReadHalf) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length.try_into().unwrap()];
    reader.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}
