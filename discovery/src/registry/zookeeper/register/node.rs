//! The node of a registration.

use super::super::{
    client::{Connection, Failure},
    path,
    protocol::{Access, Code, Lifetime, Request},
};

/// Attempts to create the node, while another client removes its parents or creates it too.
const ATTEMPTS: u32 = 5;

/// An ephemeral node and its data.
pub(super) struct Node {
    pub(super) path: String,
    pub(super) data: Vec<u8>,
    pub(super) access: Access,
}

impl Node {
    /// Creates the node in the connection's session, with the parents that are missing.
    ///
    /// A node of another session is replaced: it is what a killed process has left, and would vanish
    /// when that session expires. `Some` describes a node that is not replaced.
    pub(super) async fn create(&self, connection: &Connection) -> Result<Option<String>, Failure> {
        let mut found = String::new();
        for _ in 0..ATTEMPTS {
            let create = Request::create(&self.path, &self.data, Lifetime::Ephemeral, self.access);
            match connection.call(create).await {
                Ok(_) => return Ok(None),
                Err(Failure::Refused(Code::NO_NODE)) => {
                    self.create_parents(connection).await?;
                    continue;
                }
                Err(Failure::Refused(Code::NODE_EXISTS)) => {}
                Err(failure) => return Err(failure),
            }
            let (data, stat) = match connection.data(&self.path).await {
                Ok(node) => node,
                Err(Failure::Refused(Code::NO_NODE)) => continue,
                Err(failure) => return Err(failure),
            };
            let change = if stat.owner == connection.session().id {
                if data == self.data {
                    return Ok(None);
                }
                Request::set_data(&self.path, &self.data, stat.version)
            } else if stat.owner == 0 {
                return Ok(Some(format!("the persistent node {}", self.path)));
            } else {
                found = describe(&data, stat.owner);
                Request::delete(&self.path, stat.version)
            };
            match connection.call(change).await {
                Ok(_) | Err(Failure::Refused(Code::NO_NODE | Code::BAD_VERSION)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Some(found))
    }

    /// Creates the parents, from the deepest that exists down.
    async fn create_parents(&self, connection: &Connection) -> Result<(), Failure> {
        let parents: Vec<_> = path::parents(&self.path).collect();
        let create = async |path| {
            let create = Request::create(path, &[], Lifetime::Persistent, self.access);
            match connection.call(create).await {
                Ok(_) | Err(Failure::Refused(Code::NODE_EXISTS)) => Ok(true),
                Err(Failure::Refused(Code::NO_NODE)) => Ok(false),
                Err(failure) => Err(failure),
            }
        };
        let mut missing = parents.len();
        while missing > 0 && !create(parents[missing - 1]).await? {
            missing -= 1;
        }
        for parent in &parents[missing..] {
            create(parent).await?;
        }
        Ok(())
    }

    /// Waits until the node does not exist (`None`), or is another than was created.
    pub(super) async fn until_lost(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<String>, Failure> {
        loop {
            match connection.data(&self.path).await {
                Ok((data, stat)) if stat.owner == connection.session().id && data == self.data => {}
                Ok((data, stat)) => return Ok(Some(describe(&data, stat.owner))),
                Err(Failure::Refused(Code::NO_NODE)) => return Ok(None),
                Err(failure) => return Err(failure),
            }
            // Every watch of this connection is on the node.
            connection.event().await?;
        }
    }

    /// Deletes the node of any session.
    pub(super) async fn delete(&self, connection: &Connection) -> Result<(), Failure> {
        match connection.exists(&self.path).await? {
            Some(stat) if stat.owner != 0 => {}
            _ => return Ok(()),
        }
        match connection
            .call(Request::delete(&self.path, ANY_VERSION))
            .await
        {
            Ok(_) | Err(Failure::Refused(Code::NO_NODE)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

/// Matches every version.
const ANY_VERSION: i32 = -1;

/// A node for messages: the start of its data, and its session.
fn describe(data: &[u8], owner: i64) -> String {
    let data = String::from_utf8_lossy(data);
    let start: String = data.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{start} of session 0x{owner:x}")
}
