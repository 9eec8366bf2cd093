//! The watch against answers that are not Consul's, or that have entries which cannot be used: the last
//! good set stays, and a bad entry hides no other. The server is a fake, because a real Consul does not
//! give these answers on demand.

#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake_consul;
mod sets;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use discovery::chain;
use futures_util::future::join_all;
use serde_json::json;
use testkit::fake::{FakeServer, Reply, Request};

use crate::fake_consul::{HELD, config, entry, list, watch_of};
use crate::sets::{ids, until};

/// A server with `a` at index 5. It answers with `bad` after `broken` is set.
async fn server_that_breaks(bad: Reply) -> (FakeServer, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let answer = move |request: &Request| {
        if is_broken.load(SeqCst) {
            bad.clone()
        } else if request.parameter("index") == Some("5") {
            Reply::consul(5, list(&["a"])).delayed(HELD)
        } else {
            Reply::consul(5, list(&["a"]))
        }
    };
    (FakeServer::start(answer).await.unwrap(), broken)
}

/// 100 000 spaces, compressed by gzip.
const BOMB: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xed, 0xc1, 0x31, 0x01, 0x00, 0x00,
    0x00, 0xc2, 0xa0, 0x2a, 0xeb, 0x9f, 0xd2, 0x1a, 0x1e, 0x40, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xaf, 0x06, 0x2d, 0xf0, 0x79,
    0xca, 0xa0, 0x86, 0x01, 0x00,
];

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn the_last_good_set_survives_every_kind_of_nonsense() {
    let indexed = |body: &str| Reply::consul(6, body);
    let whole_length = |sent: &str| {
        let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 6\r\nContent-Length: 1000\r\n\r\n";
        Reply::raw(format!("{head}{sent}"))
    };
    let gzip = |body: &[u8]| {
        let headers = [("X-Consul-Index", "6"), ("Content-Encoding", "gzip")];
        Reply::new(200, &headers, body)
    };
    let cases = [
        ("garbage", indexed("<html>it works</html>"), "unusable"),
        ("an object", indexed("{}"), "unusable"),
        ("null", indexed("null"), "unusable"),
        ("an empty body", indexed(""), "unusable"),
        (
            "a list of something else",
            indexed(r#"[{"error": "rpc failed"}, {"Service": 7}]"#),
            "no service entry",
        ),
        ("a list cut short", indexed("[{\"Service\": {"), "unusable"),
        (
            "a body cut short",
            whole_length("[]").then_close(),
            "did not answer",
        ),
        (
            "a body that stalls",
            whole_length("[").then_hang(),
            "did not answer",
        ),
        (
            "a body that trickles",
            whole_length("[").then_repeat(" ", Duration::from_millis(50)),
            "did not answer",
        ),
        (
            "a body over the limit",
            indexed(&" ".repeat(8193)),
            "over 8192 bytes",
        ),
        (
            "a compressed body over the limit",
            gzip(BOMB),
            "over 8192 bytes",
        ),
        ("broken compression", gzip(b"[]"), "did not answer"),
        ("no index", Reply::new(200, &[], "[]"), "X-Consul-Index"),
        (
            "an index that is not a number",
            Reply::new(200, &[("X-Consul-Index", "-1")], "[]"),
            "X-Consul-Index",
        ),
        (
            "no known leader",
            Reply::new(
                200,
                &[("X-Consul-Index", "6"), ("X-Consul-KnownLeader", "false")],
                "[]",
            ),
            "leader",
        ),
        (
            "an error",
            Reply::new(500, &[], "No cluster leader"),
            "500: No cluster leader",
        ),
        ("a denial", Reply::new(403, &[], "ACL not found"), "denied"),
        (
            "redirects without end",
            Reply::new(301, &[("Location", "/")], ""),
            "not followed",
        ),
        (
            "another protocol",
            Reply::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n").then_close(),
            "did not answer",
        ),
        (
            "a closed connection",
            Reply::raw("").then_close(),
            "did not answer",
        ),
        ("silence", Reply::hang(), "did not answer"),
    ];
    join_all(cases.map(|(what, bad, reason)| async move {
        let (server, broken) = server_that_breaks(bad).await;
        let instancer = watch_of(&config(&server));
        let mut sets = instancer.watch();
        until(&mut sets, |set| ids(set) == ["a"]).await;
        broken.store(true, SeqCst);
        let set = until(&mut sets, |set| set.error.is_some()).await;
        assert_eq!(ids(&set), ["a"], "{what}");
        let said = chain(set.error.as_deref().unwrap());
        assert!(said.contains(reason), "{what}: {said}");
        let confirmed = set.confirmed.unwrap();
        broken.store(false, SeqCst);
        let set = until(&mut sets, |set| set.error.is_none()).await;
        assert_eq!(ids(&set), ["a"], "{what}");
        assert!(set.confirmed.unwrap() > confirmed, "{what}");
    }))
    .await;
}

#[tokio::test]
async fn unusable_entries_are_left_out_and_hide_no_other() {
    let entries = json!([
        entry("no address", "", 8975),
        entry("no port", "127.0.0.1", 0),
        entry("too high", "127.0.0.1", 70000),
        entry("negative", "127.0.0.1", -1),
        entry("any host", "0.0.0.0", 8975),
        null,
        {"Service": "text"},
        entry("good", "127.0.0.1", 8975),
    ]);
    let answer = move |request: &Request| match request.parameter("index") {
        None => Reply::consul(5, entries.to_string()),
        Some(_) => Reply::hang(),
    };
    let server = FakeServer::start(answer).await.unwrap();
    let instancer = watch_of(&config(&server));
    let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), ["good"]);
}
