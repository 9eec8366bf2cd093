//! The requests of a session.

use super::writer::Writer;

pub(super) const PING_XID: i32 = -2;

/// The operations' numbers (`ZooDefs.OpCode` in ZooKeeper's source).
mod operation {
    pub(super) const CREATE: i32 = 1;
    pub(super) const DELETE: i32 = 2;
    pub(super) const EXISTS: i32 = 3;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SYNC: i32 = 9;
    pub(super) const PING: i32 = 11;
    pub(super) const GET_CHILDREN: i32 = 8;
    pub(super) const CLOSE_SESSION: i32 = -11;
}

/// The time that a node exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Lifetime {
    /// Until it is deleted.
    Persistent = 0,
    /// Until the session that created it ends.
    Ephemeral = 1,
}

/// The access rights of a new node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// All clients may read, change and delete it. In a URL: `open`.
    Open,
    /// Clients with the same credentials may do everything, others may read. In a URL: `others-read`.
    OthersRead,
    /// Clients with the same credentials may do everything, others nothing. In a URL: `creator`.
    Creator,
}

/// Permission bits (`ZooDefs.Perms`).
const ALL: i32 = 31;
const READ: i32 = 1;

/// One request of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Request {
    operation: i32,
    /// The frame with zeros in place of the number.
    frame: Vec<u8>,
}

impl Request {
    /// Size limit of a request: ZooKeeper's default for `jute.maxbuffer`. The server closes the
    /// connection on a larger one.
    pub(in super::super) const LIMIT: usize = 0xf_ffff;

    fn new(operation: i32, body: impl FnOnce(Writer) -> Writer) -> Self {
        let header = Writer::frame().int(0).int(operation);
        Self {
            operation,
            frame: body(header).finish(),
        }
    }

    pub(in super::super) fn create(
        path: &str,
        data: &[u8],
        lifetime: Lifetime,
        access: Access,
    ) -> Self {
        Self::new(operation::CREATE, |body| {
            access
                .write(body.text(path).buffer(data))
                .int(lifetime as i32)
        })
    }

    /// Deletes the node in this version.
    pub(in super::super) fn delete(path: &str, version: i32) -> Self {
        Self::new(operation::DELETE, |body| body.text(path).int(version))
    }

    /// Asks for the status, and for an event when the node is created, changed or deleted.
    pub(in super::super) fn exists(path: &str) -> Self {
        Self::new(operation::EXISTS, |body| body.text(path).flag(true))
    }

    /// Asks for the data, and for an event when it is changed or the node is deleted.
    pub(in super::super) fn data(path: &str) -> Self {
        Self::new(operation::GET_DATA, |body| body.text(path).flag(true))
    }

    /// Replaces the data of the node in this version.
    pub(in super::super) fn set_data(path: &str, data: &[u8], version: i32) -> Self {
        Self::new(operation::SET_DATA, |body| {
            body.text(path).buffer(data).int(version)
        })
    }

    /// Asks for the names of the children, and for an event when one is added or removed.
    pub(in super::super) fn children(path: &str) -> Self {
        Self::new(operation::GET_CHILDREN, |body| body.text(path).flag(true))
    }

    /// Makes the server catch up with its leader before the requests that follow.
    pub(in super::super) fn sync(path: &str) -> Self {
        Self::new(operation::SYNC, |body| body.text(path))
    }

    /// Ends the session. The server removes its ephemeral nodes.
    pub(in super::super) fn close_session() -> Self {
        Self::new(operation::CLOSE_SESSION, |body| body)
    }

    /// The frame of the request with the number `xid`.
    pub(in super::super) fn into_frame(self, xid: i32) -> Vec<u8> {
        let mut frame = self.frame;
        frame[4..8].copy_from_slice(&xid.to_be_bytes());
        frame
    }

    /// The size that the server limits.
    pub(in super::super) fn size(&self) -> usize {
        self.frame.len() - 4
    }
}

/// The frame of a ping.
pub(in super::super) fn ping() -> Vec<u8> {
    Request::new(operation::PING, |body| body).into_frame(PING_XID)
}

impl Access {
    /// The rights of this name in a URL.
    pub(in super::super) fn named(name: &str) -> Option<Self> {
        match name {
            "open" => Some(Self::Open),
            "others-read" => Some(Self::OthersRead),
            "creator" => Some(Self::Creator),
            _ => None,
        }
    }

    fn write(self, body: Writer) -> Writer {
        let entry = |body: Writer, rights, scheme, id| body.int(rights).text(scheme).text(id);
        // The scheme `auth` stands for all identities of the session.
        match self {
            Self::Open => entry(body.int(1), ALL, "world", "anyone"),
            Self::Creator => entry(body.int(1), ALL, "auth", ""),
            Self::OthersRead => {
                let body = entry(body.int(2), ALL, "auth", "");
                entry(body, READ, "world", "anyone")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_documented_bytes() {
        let request = Request::create("/a", b"x", Lifetime::Ephemeral, Access::Open);
        assert_eq!(
            request.into_frame(7),
            [
                &[0, 0, 0, 50][..],
                &[0, 0, 0, 7, 0, 0, 0, 1],
                &[0, 0, 0, 2, b'/', b'a', 0, 0, 0, 1, b'x'],
                &[0, 0, 0, 1, 0, 0, 0, 31, 0, 0, 0, 5],
                b"world",
                &[0, 0, 0, 6],
                b"anyone",
                &[0, 0, 0, 1],
            ]
            .concat()
        );
        assert_eq!(ping(), [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11]);
    }
}
