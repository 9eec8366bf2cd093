//! One refresh: the instances behind a name, from the first server that answers.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::timeout;
use tracing::debug;

use super::{
    addresses::{Addresses, Known},
    client::{Conversation, Failure, Servers},
    config::Records,
    instances::{by_priority, instance},
    lookup::{Found, Refusal, least, look_up},
    message::{Kind, Question},
    name::Name,
};
use crate::registry::{Listing, RegistryError};

/// A refresh takes at most this many times the limit of one answer.
const ANSWERS: u32 = 5;

/// The instances, and the time in seconds for which they are valid, if the server says.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) listing: Listing,
    pub(super) ttl: Option<u32>,
}

/// What to look up, where, and for which service.
pub(super) struct Lookup {
    /// The registry's name.
    pub(super) registry: String,
    pub(super) service: String,
    pub(super) name: Name,
    pub(super) records: Records,
    pub(super) servers: Servers,
    pub(super) timeout: Duration,
}

pub(super) struct Resolver {
    lookup: Lookup,
    known: Known,
    /// The server that answered last.
    preferred: String,
}

impl Resolver {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            known: Known::default(),
            preferred: String::new(),
        }
    }

    /// Asks each server until one gives a good answer, the one that answered last first.
    pub(super) async fn resolve(&mut self) -> Result<Resolved, RegistryError> {
        let mut last = None;
        for server in self.servers().await? {
            let limit = self.lookup.timeout * ANSWERS;
            let result = match timeout(limit, self.ask(&server)).await {
                Ok(result) => result,
                Err(_elapsed) => Err(Failure::timeout(limit)),
            };
            match result {
                Ok(resolved) => {
                    self.preferred = server;
                    return Ok(resolved);
                }
                Err(failure) => {
                    let error =
                        failure.into_error(&self.lookup.registry, &self.question(), &server);
                    debug!(service = self.lookup.service, "{error}");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.no_servers("no server is known".into())))
    }

    async fn servers(&self) -> Result<Vec<String>, RegistryError> {
        let servers = self.lookup.servers.list().await;
        let mut servers = servers.map_err(|error| self.no_servers(error.into()))?;
        // A stable sort: the others keep their order.
        servers.sort_by_key(|server| *server != self.preferred);
        Ok(servers)
    }

    fn no_servers(&self, source: crate::BoxError) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.lookup.registry.clone(),
            action: "read the system's nameservers".to_owned(),
            source,
        }
    }

    fn question(&self) -> Question {
        Question {
            name: self.lookup.name.clone(),
            kind: match self.lookup.records {
                Records::Srv => Kind::Srv,
                Records::Addresses { .. } => Kind::A,
            },
        }
    }

    async fn ask(&mut self, server: &str) -> Result<Resolved, Failure> {
        let mut conversation = Conversation::open(server, self.lookup.timeout).await?;
        match self.lookup.records {
            Records::Srv => self.srv(&mut conversation).await,
            Records::Addresses { port } => self.addresses(&mut conversation, port).await,
        }
    }

    /// The addresses of the name, each with this port.
    async fn addresses(
        &mut self,
        conversation: &mut Conversation,
        port: u16,
    ) -> Result<Resolved, Failure> {
        let name = &self.lookup.name;
        let names = BTreeSet::from([name.clone()]);
        let mut found = self.known.find(conversation, names, &[]).await?;
        let found = found
            .remove(name)
            .unwrap_or_else(|| Ok(Addresses::default()))?;
        let mut listing = Listing::default();
        for address in found.ips {
            match instance(&self.lookup.service, address, port) {
                Ok(instance) => listing.push(instance),
                Err(reason) => listing.reject(reason),
            }
        }
        for reason in found.malformed {
            listing.reject(format!("a record of {name}: {reason}"));
        }
        let ttl = found.ttl;
        Ok(Resolved { listing, ttl })
    }

    /// The instances of the lowest priority that has any.
    async fn srv(&mut self, conversation: &mut Conversation) -> Result<Resolved, Failure> {
        let found = look_up(conversation, vec![self.question()]).await?;
        let nothing = || Err(Refusal::Malformed("no answer"));
        let Found {
            data,
            malformed,
            mut ttl,
            additional,
        } = found.into_iter().next().unwrap_or_else(nothing)?;
        let mut listing = Listing::default();
        for reason in malformed {
            listing.reject(format!("a record of {}: {reason}", self.lookup.name));
        }
        let levels = by_priority(data);
        self.known
            .retain(|name| levels.iter().any(|level| level.has(name)));
        for level in &levels {
            let targets = level.targets();
            let found = self.known.find(conversation, targets, &additional).await?;
            let add = level.instances(&self.lookup.service, &found, &self.known, &mut listing);
            ttl = least(ttl, add);
            if !listing.instances().is_empty() {
                break;
            }
        }
        Ok(Resolved { listing, ttl })
    }
}
