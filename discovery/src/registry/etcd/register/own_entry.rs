//! The instance's own entry: written, followed, and removed.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::registry::{
    RegistryError,
    etcd::{
        client::Client,
        proto::{
            Compare, DELETE, DeleteRangeRequest, KeyValue, Operation, PutRequest, RANGE,
            RangeRequest, RangeResponse, ResponseHeader, TXN, TxnRequest, TxnResponse,
        },
        watch::{Events, Keys, News},
    },
    token_bucket::TokenBucket,
};

/// The least time between two reads of the entry, after a burst.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct OwnEntry {
    client: Arc<Client>,
    /// The instance's ID.
    id: String,
    keys: Keys,
    value: Vec<u8>,
}

impl OwnEntry {
    pub(super) fn new(client: Arc<Client>, id: &str, key: String, value: Vec<u8>) -> Self {
        Self {
            client,
            id: id.to_owned(),
            keys: Keys {
                first: key.into_bytes(),
                end: Vec::new(),
            },
            value,
        }
    }

    fn key(&self) -> &[u8] {
        &self.keys.first
    }

    /// Writes the entry under the lease, or without one if it is 0. An equal entry is not written
    /// again: that would wake every watch. Returns a revision at which the entry is there.
    pub(super) async fn put(&self, lease: i64) -> Result<i64, RegistryError> {
        let put = Operation::Put(PutRequest {
            key: self.key().to_vec(),
            value: self.value.clone(),
            lease,
        });
        let request = TxnRequest {
            compare: self.is_ours(lease),
            success: Vec::new(),
            failure: vec![put.into()],
        };
        let action = format!("register {}", self.id);
        let answer: TxnResponse = self.client.call(&action, TXN, &request).await?;
        Ok(revision(answer.header.as_ref()))
    }

    /// Removes the entry, if it is this instance's and has this lease.
    pub(super) async fn delete(&self, lease: i64) -> Result<(), RegistryError> {
        let delete = Operation::Delete(DeleteRangeRequest {
            key: self.key().to_vec(),
        });
        let request = TxnRequest {
            compare: self.is_ours(lease),
            success: vec![delete.into()],
            failure: Vec::new(),
        };
        let action = format!("deregister {}", self.id);
        let answer = self.client.call::<_, TxnResponse>(&action, TXN, &request);
        answer.await.map(drop)
    }

    fn is_ours(&self, lease: i64) -> Vec<Compare> {
        vec![
            Compare::value(self.key(), &self.value),
            Compare::lease(self.key(), lease),
        ]
    }

    /// Ends when the entry is not as it was registered at `revision`, or the server cannot be asked.
    pub(super) async fn until_lost(&self, lease: i64, revision: i64) -> RegistryError {
        match self.follow(lease, revision).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn follow(
        &self,
        lease: i64,
        mut revision: i64,
    ) -> Result<std::convert::Infallible, RegistryError> {
        let action = format!("watch the registration of {}", self.id);
        let mut reads = TokenBucket::new(INTERVAL);
        loop {
            let mut events = Events::open(&self.client, &action, &self.keys, revision).await?;
            loop {
                match events.next(&self.client, &action).await? {
                    News::Quiet => {}
                    News::Changes(changes) => {
                        for change in changes {
                            let entry = change.kv.filter(|_| change.kind != DELETE);
                            self.verify(entry.as_ref(), lease)?;
                        }
                    }
                    News::Lost(_) => break,
                }
            }
            sleep(reads.take(Instant::now())).await;
            revision = self.read(&action, lease).await?;
        }
    }

    /// Reads the entry. Returns the revision at which it was as it was registered.
    async fn read(&self, action: &str, lease: i64) -> Result<i64, RegistryError> {
        let request = RangeRequest {
            key: self.key().to_vec(),
            range_end: Vec::new(),
        };
        let answer: RangeResponse = self.client.call(action, RANGE, &request).await?;
        self.verify(answer.kvs.first(), lease)?;
        Ok(revision(answer.header.as_ref()))
    }

    /// Fails if the entry is missing or is not this registration's.
    fn verify(&self, entry: Option<&KeyValue>, lease: i64) -> Result<(), RegistryError> {
        let registry = self.client.name().to_owned();
        let id = self.id.clone();
        let Some(entry) = entry else {
            return Err(RegistryError::Forgotten { registry, id });
        };
        let found = if entry.value != self.value {
            let value = String::from_utf8_lossy(&entry.value);
            value
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect()
        } else if entry.lease != lease {
            format!("an equal entry with the lease {:x}", entry.lease)
        } else {
            return Ok(());
        };
        Err(RegistryError::Overwritten {
            registry,
            id,
            found,
        })
    }
}

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}
