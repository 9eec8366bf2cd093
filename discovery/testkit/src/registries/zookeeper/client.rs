//! A small ZooKeeper client: its own few operations, independent of the registry under test.
//!
//! The protocol is one of length-prefixed frames of big-endian numbers, as `zookeeper.jute` in
//! ZooKeeper's sources describes it.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The number of each operation (`ZooDefs.OpCode`).
const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const AUTH: i32 = 100;
const CLOSE: i32 = -11;

/// The transaction ID of an authentication, and of an event of a watch.
const AUTH_XID: i32 = -4;
const EVENT_XID: i32 = -1;

/// `KeeperException.Code`.
const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;

/// Any version of a node.
const ANY_VERSION: i32 = -1;

/// All permissions (`ZooDefs.Perms`).
const ALL: i32 = 31;

/// A reply larger than this is refused.
const MAX_FRAME: usize = 16 << 20;

/// A session. It ends with the connection, at the latest after its 10 s: there are no heartbeats.
pub struct ZooKeeperClient {
    stream: TcpStream,
    xid: i32,
}

impl fmt::Debug for ZooKeeperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperClient").finish_non_exhaustive()
    }
}

impl ZooKeeperClient {
    /// Opens a session.
    ///
    /// # Errors
    ///
    /// When the server does not answer, as with all calls below.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let mut client = Self { stream, xid: 0 };
        let mut hello = BytesMut::new();
        hello.put_i32(0); // protocol version
        hello.put_i64(0); // last transaction seen
        hello.put_i32(10_000); // session timeout, in milliseconds
        hello.put_i64(0); // no earlier session
        put_bytes(&mut hello, &[0; 16])?;
        hello.put_u8(0); // not read-only
        client.send(&hello).await?;
        client.receive().await?;
        Ok(client)
    }

    /// Adds the digest credentials `USER:PASSWORD` to the session.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn authenticate(&mut self, credentials: &str) -> Result<()> {
        let mut packet = BytesMut::new();
        packet.put_i32(AUTH_XID);
        packet.put_i32(AUTH);
        packet.put_i32(0);
        put_bytes(&mut packet, b"digest")?;
        put_bytes(&mut packet, credentials.as_bytes())?;
        self.send(&packet).await?;
        let (error, _) = self.reply(AUTH_XID).await?;
        ensure!(error == 0, "authentication: error {error}");
        Ok(())
    }

    /// Creates a persistent node with its parents, or replaces its data if it exists.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn put(&mut self, path: &str, data: &[u8]) -> Result<()> {
        let slashes = path.match_indices('/').skip(1);
        for parent in slashes.map(|(at, _)| &path[..at]) {
            self.create(parent, &[], "world", "anyone").await?;
        }
        if self.create(path, data, "world", "anyone").await? {
            return Ok(());
        }
        let mut body = BytesMut::new();
        put_bytes(&mut body, path.as_bytes())?;
        put_bytes(&mut body, data)?;
        body.put_i32(ANY_VERSION);
        self.call(SET_DATA, &body, path).await?;
        Ok(())
    }

    /// Creates a persistent node that only sessions with this session's credentials can use.
    ///
    /// # Errors
    ///
    /// When the server refuses, or the node exists.
    pub async fn create_private(&mut self, path: &str) -> Result<()> {
        ensure!(self.create(path, &[], "auth", "").await?, "{path} exists");
        Ok(())
    }

    /// Deletes a node. A missing one is not an error.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn delete(&mut self, path: &str) -> Result<()> {
        let mut body = BytesMut::new();
        put_bytes(&mut body, path.as_bytes())?;
        body.put_i32(ANY_VERSION);
        match self.request(DELETE, &body).await? {
            (0 | NO_NODE, _) => Ok(()),
            (error, _) => bail!("delete {path}: error {error}"),
        }
    }

    /// The names below a node; none if it is missing.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn children(&mut self, path: &str) -> Result<Vec<String>> {
        let mut body = BytesMut::new();
        put_bytes(&mut body, path.as_bytes())?;
        body.put_u8(0); // no watch
        let mut reply = match self.request(GET_CHILDREN, &body).await? {
            (0, reply) => reply,
            (NO_NODE, _) => return Ok(Vec::new()),
            (error, _) => bail!("children of {path}: error {error}"),
        };
        let count = reply.try_get_i32()?;
        let names = (0..count).map(|_| {
            let name = take_bytes(&mut reply)?;
            Ok(String::from_utf8(name.to_vec())?)
        });
        names.collect()
    }

    /// The data of a node.
    ///
    /// # Errors
    ///
    /// When the server refuses, or there is no such node.
    pub async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let mut body = BytesMut::new();
        put_bytes(&mut body, path.as_bytes())?;
        body.put_u8(0); // no watch
        let mut reply = self.call(GET_DATA, &body, path).await?;
        Ok(take_bytes(&mut reply)?.to_vec())
    }

    /// Ends the session.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn close(mut self) -> Result<()> {
        self.request(CLOSE, &[]).await?;
        Ok(())
    }

    /// False if the node exists.
    async fn create(&mut self, path: &str, data: &[u8], scheme: &str, id: &str) -> Result<bool> {
        let mut body = BytesMut::new();
        put_bytes(&mut body, path.as_bytes())?;
        put_bytes(&mut body, data)?;
        body.put_i32(1); // one entry in the access list
        body.put_i32(ALL);
        put_bytes(&mut body, scheme.as_bytes())?;
        put_bytes(&mut body, id.as_bytes())?;
        body.put_i32(0); // persistent
        match self.request(CREATE, &body).await? {
            (0, _) => Ok(true),
            (NODE_EXISTS, _) => Ok(false),
            (error, _) => bail!("create {path}: error {error}"),
        }
    }

    async fn call(&mut self, operation: i32, body: &[u8], path: &str) -> Result<Bytes> {
        let (error, reply) = self.request(operation, body).await?;
        ensure!(error == 0, "operation {operation} on {path}: error {error}");
        Ok(reply)
    }

    /// The error code and the rest of the reply.
    async fn request(&mut self, operation: i32, body: &[u8]) -> Result<(i32, Bytes)> {
        self.xid += 1;
        let mut packet = BytesMut::new();
        packet.put_i32(self.xid);
        packet.put_i32(operation);
        packet.put_slice(body);
        self.send(&packet).await?;
        self.reply(self.xid).await
    }

    async fn reply(&mut self, xid: i32) -> Result<(i32, Bytes)> {
        loop {
            let mut reply = self.receive().await?;
            let (seen, _transaction) = (reply.try_get_i32()?, reply.try_get_i64()?);
            let error = reply.try_get_i32()?;
            if seen != EVENT_XID {
                ensure!(seen == xid, "reply to request {seen} instead of {xid}");
                return Ok((error, reply));
            }
        }
    }

    async fn send(&mut self, packet: &[u8]) -> Result<()> {
        let mut frame = BytesMut::new();
        put_bytes(&mut frame, packet)?;
        self.stream.write_all(&frame).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Bytes> {
        let length = usize::try_from(self.stream.read_i32().await.context("no reply")?)?;
        ensure!(length <= MAX_FRAME, "a reply of {length} bytes");
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await?;
        Ok(frame.into())
    }
}

fn put_bytes(buffer: &mut BytesMut, bytes: &[u8]) -> Result<()> {
    buffer.put_i32(bytes.len().try_into()?);
    buffer.put_slice(bytes);
    Ok(())
}

/// A length and so many bytes; -1 stands for none.
fn take_bytes(buffer: &mut Bytes) -> Result<Bytes> {
    let length = buffer.try_get_i32()?.max(0).try_into()?;
    ensure!(buffer.len() >= length, "the reply is cut");
    Ok(buffer.split_to(length))
}
