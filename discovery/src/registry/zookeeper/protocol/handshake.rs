//! The records that open a session.

use std::{fmt, time::Duration};

use super::{
    code::Code,
    reader::{Malformed, Reader},
    writer::Writer,
};

const AUTH_XID: i32 = -4;
const AUTH: i32 = 100;

/// The shortest timeout. A server grants at least two of its ticks, which are seconds.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);

/// A session of the server. It outlives its connection by the timeout.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct Session {
    /// Never zero.
    pub(in super::super) id: i64,
    password: Vec<u8>,
    /// The timeout that the server granted. The session ends after this time without a request.
    pub(in super::super) timeout: Duration,
}

impl fmt::Debug for Session {
    /// Leaves out the password, which is enough to take the session over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x} ({:?})", self.id, self.timeout)
    }
}

/// The frame that opens a session, or resumes one.
///
/// The last transaction that this client has seen is left out (zero). A server that was restarted
/// empty would otherwise close every connection of an older client for ever, instead of saying that
/// the session has expired. A `sync` after the handshake keeps a server that lags behind from
/// showing an older state.
pub(in super::super) fn connect(wish: Duration, resume: Option<&Session>) -> Vec<u8> {
    const NO_PASSWORD: [u8; 16] = [0; 16];
    let timeout = resume.map_or(wish, |session| session.timeout);
    Writer::frame()
        .int(0)
        .long(0)
        .int(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        .long(resume.map_or(0, |session| session.id))
        .buffer(resume.map_or(&NO_PASSWORD[..], |session| &session.password))
        // Not with a server that has lost the others and serves old data.
        .flag(false)
        .finish()
}

/// Reads the answer: the session, or `None` if the session to resume has expired.
pub(in super::super) fn connected(frame: &[u8]) -> Result<Option<Session>, Malformed> {
    let mut reader = Reader::new(frame);
    let _version = reader.int()?;
    let timeout = reader.int()?;
    let id = reader.long()?;
    let password = reader.buffer()?.to_vec();
    let Some(timeout) = u64::try_from(timeout).ok().filter(|&timeout| timeout > 0) else {
        return Ok(None);
    };
    if id == 0 {
        return Err(Malformed("the session's ID is zero"));
    }
    Ok(Some(Session {
        id,
        password,
        // Pings follow from it, so a tiny one would flood the server.
        timeout: Duration::from_millis(timeout).max(MIN_TIMEOUT),
    }))
}

/// The frame that authenticates the session by `user:password`.
pub(in super::super) fn authenticate(credentials: &str) -> Vec<u8> {
    Writer::frame()
        .int(AUTH_XID)
        .int(AUTH)
        .int(0)
        .text("digest")
        .text(credentials)
        .finish()
}

/// Reads the answer to it: `None` if it succeeded.
pub(in super::super) fn authenticated(frame: &[u8]) -> Result<Option<Code>, Malformed> {
    let mut reader = Reader::new(frame);
    if reader.int()? != AUTH_XID {
        return Err(Malformed("not the answer to the authentication"));
    }
    let _zxid = reader.long()?;
    Ok(Code::new(reader.int()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(timeout: i32, id: i64) -> Vec<u8> {
        let frame = Writer::frame().int(0).int(timeout).long(id);
        frame.buffer(&[7; 16]).flag(false).finish().split_off(4)
    }

    #[test]
    fn the_granted_session_is_read_and_resumed() {
        let session = connected(&answer(4000, 0x1234)).unwrap().unwrap();
        assert_eq!(
            (session.id, session.timeout),
            (0x1234, Duration::from_secs(4))
        );
        assert_eq!(format!("{session:?}"), "0x1234 (4s)");
        let again = connect(Duration::from_secs(9), Some(&session));
        assert_eq!(
            again[16..28],
            [0, 0, 0x0f, 0xa0, 0, 0, 0, 0, 0, 0, 0x12, 0x34]
        );
        assert_eq!(again[32..48], [7; 16]);
    }

    #[test]
    fn an_expired_session_has_no_timeout() {
        assert_eq!(connected(&answer(0, 0)), Ok(None));
        assert!(connected(&answer(4000, 0)).is_err());
        assert!(connected(&[0; 3]).is_err());
    }
}
