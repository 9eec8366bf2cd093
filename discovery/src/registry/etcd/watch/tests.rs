//! Watches from revisions that a real etcd does not have, or no longer has.

use std::{sync::Arc, time::Duration};

use testkit::registries::{Etcd, Server};
use tokio::time::timeout;

use super::*;
use crate::registry::etcd::Config;

fn client(etcd: &Server<Etcd>) -> Client {
    Client::new(Arc::new(Config::new([etcd.address()]))).unwrap()
}

fn keys() -> Keys {
    Keys {
        first: b"/services/trim/".to_vec(),
        end: prefix_end(b"/services/trim/"),
    }
}

/// The first answer that is not quiet.
async fn news_after(client: &Client, revision: i64) -> News {
    let mut events = Events::open(client, "watch", &keys(), revision)
        .await
        .unwrap();
    let news = async {
        loop {
            match events.next(client, "watch").await.unwrap() {
                News::Quiet => {}
                news => return news,
            }
        }
    };
    timeout(Duration::from_secs(60), news).await.unwrap()
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_asks_for_a_new_read() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    for value in ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"] {
        etcd.put("/services/trim/a", value).await.unwrap();
    }
    let client = client(&etcd);
    assert!(matches!(news_after(&client, 1).await, News::Changes(_)));
    let revision = serde_json::json!({ "revision": "3" });
    etcd.call("/v3/kv/compaction", &revision).await.unwrap();
    let News::Lost(reason) = news_after(&client, 1).await else {
        panic!("the compacted events were not missed");
    };
    assert!(reason.contains("compacted"), "{reason}");
}

#[tokio::test]
async fn a_watch_from_a_revision_to_come_asks_for_a_new_read() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    etcd.put("/services/trim/a", "127.0.0.1:1").await.unwrap();
    let client = client(&etcd);
    let News::Lost(reason) = news_after(&client, 1000).await else {
        panic!("the watch waits for the revision");
    };
    assert!(reason.contains("went back from 1000 to 2"), "{reason}");
}

#[tokio::test]
async fn a_watch_that_missed_events_reads_the_whole_set_again() {
    let Some(etcd) = Server::start(Etcd).await.unwrap() else {
        return;
    };
    etcd.put("/services/trim/a", "127.0.0.1:1").await.unwrap();
    let mut source = EtcdSource::new(Arc::new(client(&etcd)), Query::new("trim"));
    source.update().await.unwrap();
    // As if the store had been made anew behind the same connection.
    let events = Events::open(&source.client, "watch", &source.keys, 1000)
        .await
        .unwrap();
    source.events = Some(events);
    etcd.put("/services/trim/b", "127.0.0.1:2").await.unwrap();
    let Update::Listing(listing) = source.update().await.unwrap() else {
        panic!("no listing");
    };
    assert_eq!(listing.instances().len(), 2);
}
