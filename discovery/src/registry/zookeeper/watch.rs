//! The watch of one service: the nodes below its path.
//!
//! A read lists the children and gets the data of each new one, and leaves a watch on the list and on
//! each node. A watch fires once. After an event, the list is read again with a new watch, and so is each
//! node whose watch has fired or that is new. The watches of the other nodes are still set, so their data
//! is current. Over a new connection, everything is read again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{
    client::{Connection, Ensemble, Failure},
    layout::Layout,
    protocol::{Code, Event, handshake::Session},
};
use crate::{
    future::BoxFuture,
    instance::Instance,
    registry::{Listing, Query, RegistryError, Source, Update, token_bucket::TokenBucket},
};

/// The time between two reads of the list in quiet times. It bounds the age of
/// [`InstanceSet::confirmed`](crate::registry::InstanceSet::confirmed), and finds a lost event.
const CONFIRM: Duration = Duration::from_secs(5);

/// The time between two reads while nodes keep changing. The first few are made at once.
const CHANGE_INTERVAL: Duration = Duration::from_millis(100);

/// Requests for data that are under way at a time.
const PIPELINED: usize = 128;

/// A connection that lasted this long is replaced at once after its end. One that ended sooner is a
/// failure, after which the driver waits.
const SETTLED: Duration = Duration::from_secs(1);

/// The way to a service's nodes.
pub(super) struct Nodes {
    pub(super) ensemble: Arc<Ensemble>,
    /// The registry's name.
    pub(super) registry: String,
    pub(super) path: String,
    pub(super) layout: Layout,
    pub(super) query: Query,
    /// The wish for the session's timeout.
    pub(super) timeout: Duration,
}

pub(super) struct NodeSource {
    nodes: Nodes,
    reads: TokenBucket,
    session: Option<Session>,
    view: Option<View>,
}

/// The nodes, as read over one connection.
struct View {
    connection: Connection,
    since: Instant,
    /// The nodes by name, without those whose watch has fired.
    read: BTreeMap<String, Node>,
}

/// A node that was read.
enum Node {
    Instance(Instance),
    /// The query leaves the instance out.
    LeftOut,
    /// The data is not an instance, for this reason.
    Unusable(String),
    /// The data may not be read. It has no watch.
    Unreadable(Code),
}

impl NodeSource {
    pub(super) fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            reads: TokenBucket::new(CHANGE_INTERVAL),
            session: None,
            view: None,
        }
    }

    /// The next set. A connection that ends is replaced without a failure if another server answers.
    async fn update(&mut self) -> Result<Update, Failure> {
        if let Some(view) = &mut self.view {
            match view.update(&self.nodes, &mut self.reads).await {
                Err(failure) if failure.is_lost() && view.since.elapsed() >= SETTLED => {
                    debug!(
                        service = self.nodes.query.service,
                        "connects again: {failure}"
                    );
                }
                result => return result,
            }
        }
        let ensemble = &self.nodes.ensemble;
        let connection = ensemble.reconnect(self.nodes.timeout, &mut self.session);
        let view = self.view.insert(View::new(connection.await?));
        view.refresh(&self.nodes).await?;
        Ok(view.listing().into())
    }
}

impl Source for NodeSource {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RegistryError>> {
        Box::pin(async {
            let update = self.update().await;
            update.map_err(|failure| {
                self.view = None;
                let action = format!("watch {}", self.nodes.query.service);
                failure.into_error(&self.nodes.registry, &action)
            })
        })
    }
}

impl View {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            since: Instant::now(),
            read: BTreeMap::new(),
        }
    }

    /// Waits for an event, for [`CONFIRM`] at most, and reads what may have changed.
    async fn update(&mut self, nodes: &Nodes, reads: &mut TokenBucket) -> Result<Update, Failure> {
        let event = match timeout(CONFIRM, self.connection.event()).await {
            Ok(event) => Some(event?),
            Err(_elapsed) => None,
        };
        // Changes of the same moment are read together.
        sleep(reads.take(Instant::now())).await;
        let fired = self.forget(event, nodes);
        let changed = self.refresh(nodes).await?;
        Ok(if fired || changed {
            self.listing().into()
        } else {
            Update::Unchanged
        })
    }

    /// Drops the nodes whose watch has fired, in this event or in others that have come. True if there
    /// was any.
    fn forget(&mut self, event: Option<Event>, nodes: &Nodes) -> bool {
        let mut fired = false;
        let mut next = event;
        while let Some(event) = next {
            // An event of the service's own path names no node: the list has changed.
            let name = event.path.strip_prefix(&nodes.path).unwrap_or_default();
            fired |= self.read.remove(name.trim_start_matches('/')).is_some();
            next = self.connection.event_now();
        }
        fired
    }

    /// Reads the list, and each node that is new or whose watch has fired. True if there was any.
    async fn refresh(&mut self, nodes: &Nodes) -> Result<bool, Failure> {
        let names = self.children(&nodes.path).await?;
        let before = self.read.len();
        self.read.retain(|name, node| {
            names.binary_search(name).is_ok() && !matches!(node, Node::Unreadable(_))
        });
        let new = names
            .into_iter()
            .filter(|name| !self.read.contains_key(name));
        let new: Vec<_> = new.collect();
        let changed = self.read.len() != before || !new.is_empty();
        let connection = &self.connection;
        let read: Vec<_> = stream::iter(new)
            .map(|name| nodes.read(connection, name))
            .buffered(PIPELINED)
            .try_collect()
            .await?;
        self.read.extend(read.into_iter().flatten());
        Ok(changed)
    }

    /// The names of the nodes, sorted. None if the path does not exist.
    async fn children(&self, path: &str) -> Result<Vec<String>, Failure> {
        loop {
            match self.connection.children(path).await {
                Ok(mut names) => {
                    names.sort_unstable();
                    return Ok(names);
                }
                Err(Failure::Refused(Code::NO_NODE)) => {}
                Err(failure) => return Err(failure),
            }
            // The list of a path that does not exist leaves no watch. This does, and the path may
            // have been created in between.
            if self.connection.exists(path).await?.is_none() {
                return Ok(Vec::new());
            }
        }
    }

    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        for (name, node) in &self.read {
            match node {
                Node::Instance(instance) => listing.push(instance.clone()),
                Node::LeftOut => {}
                Node::Unusable(reason) => listing.reject(reason.clone()),
                Node::Unreadable(code) => listing.reject(format!("{name}: {code}")),
            }
        }
        listing
    }
}

impl Nodes {
    /// Reads a node and leaves a watch on it. `None` if it was removed meanwhile.
    async fn read(
        &self,
        connection: &Connection,
        name: String,
    ) -> Result<Option<(String, Node)>, Failure> {
        // The server's own names need no check.
        let data = connection.data(&format!("{}/{name}", self.path)).await;
        let node = match data {
            Ok((data, _)) => match self.layout.decode(&name, &data, &self.query) {
                Ok(Some(instance)) => Node::Instance(instance),
                Ok(None) => Node::LeftOut,
                Err(reason) => Node::Unusable(reason),
            },
            Err(Failure::Refused(Code::NO_NODE)) => return Ok(None),
            Err(Failure::Refused(code)) if code.is_denial() => Node::Unreadable(code),
            Err(failure) => return Err(failure),
        };
        Ok(Some((name, node)))
    }
}
