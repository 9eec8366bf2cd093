//! The messages of the server on an open session: answers, pings and events.

use bytes::Bytes;

use super::{
    code::Code,
    reader::{Malformed, Reader},
    request::PING_XID,
};

/// The number in place of a request's in an event.
const EVENT_XID: i32 = -1;

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Received {
    /// The answer to the request `xid`.
    Answer {
        xid: i32,
        /// The answer's record, or the error in its place.
        result: Result<Bytes, Code>,
    },
    /// The answer to a ping.
    Pong,
    /// A watch has fired.
    Event(Event),
}

/// A watch has fired, and is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Event {
    /// The node that changed.
    pub(in super::super) path: String,
}

/// The part of a node's status that is of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Stat {
    /// The number of changes of the data.
    pub(in super::super) version: i32,
    /// The session whose end removes the node. Zero for a persistent node.
    pub(in super::super) owner: i64,
}

/// Reads a frame.
pub(in super::super) fn received(frame: &Bytes) -> Result<Received, Malformed> {
    let mut reader = Reader::new(frame);
    let xid = reader.int()?;
    let _zxid = reader.long()?;
    let error = Code::new(reader.int()?);
    Ok(match xid {
        PING_XID => Received::Pong,
        EVENT_XID => {
            let _kind = reader.int()?;
            let _state = reader.int()?;
            let path = reader.text()?.to_owned();
            Received::Event(Event { path })
        }
        xid => Received::Answer {
            xid,
            result: match error {
                Some(code) => Err(code),
                None => Ok(frame.slice_ref(reader.rest())),
            },
        },
    })
}

/// The names of a node's children.
pub(in super::super) fn children(answer: &[u8]) -> Result<Vec<String>, Malformed> {
    Reader::new(answer).texts()
}

/// A node's data and status.
pub(in super::super) fn data_and_stat(answer: &[u8]) -> Result<(&[u8], Stat), Malformed> {
    let mut reader = Reader::new(answer);
    Ok((reader.buffer()?, read_stat(&mut reader)?))
}

/// The status of a node that exists.
pub(in super::super) fn stat(answer: &[u8]) -> Result<Stat, Malformed> {
    read_stat(&mut Reader::new(answer))
}

fn read_stat(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
    // Transactions and times of creation and change.
    for _ in 0..4 {
        reader.long()?;
    }
    let version = reader.int()?;
    // Versions of the children and of the access rights.
    for _ in 0..2 {
        reader.int()?;
    }
    let owner = reader.long()?;
    Ok(Stat { version, owner })
}
