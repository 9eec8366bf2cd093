//! Opens or resumes a session on a new stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    super::protocol::{
        handshake::{self, Session},
        take_frame,
    },
    error::{Failure, Lost},
};

/// Opens a session with a timeout of `wish`, or resumes one, and authenticates it. `received` keeps
/// what the server sent after the handshake.
///
/// # Errors
///
/// [`Failure::Expired`] if the session to resume has expired.
pub(super) async fn open<S>(
    stream: &mut S,
    received: &mut BytesMut,
    wish: Duration,
    resume: Option<&Session>,
    credentials: Option<&str>,
) -> Result<Session, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = ask(stream, received, &handshake::connect(wish, resume)).await?;
    let session = handshake::connected(&answer)?.ok_or(Failure::Expired)?;
    if let Some(credentials) = credentials {
        let answer = ask(stream, received, &handshake::authenticate(credentials)).await?;
        if let Some(code) = handshake::authenticated(&answer)? {
            return Err(Failure::Refused(code));
        }
    }
    Ok(session)
}

/// Sends a frame and reads one.
async fn ask<S>(stream: &mut S, received: &mut BytesMut, frame: &[u8]) -> Result<Bytes, Lost>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(frame).await?;
    stream.flush().await?;
    loop {
        if let Some(frame) = take_frame(received)? {
            return Ok(frame);
        }
        if stream.read_buf(received).await? == 0 {
            return Err(Lost::Closed);
        }
    }
}
