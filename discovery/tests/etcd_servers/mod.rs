//! etcd servers with more than one member or with TLS, and calls that other clients of etcd make.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::{net::TcpListener, path::PathBuf};

use anyhow::{Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use testkit::{
    http_client,
    registries::{CommandLine, Etcd, Launch, Place, Server},
};

/// A member of a cluster of three.
pub(crate) struct Member {
    index: usize,
    peers: [u16; 3],
}

impl Launch for Member {
    const NAME: &'static str = "etcd";
    const VARIABLE: &'static str = "ETCD_BIN";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let client = format!("http://{}", place.address());
        let peer = |index: usize| format!("http://127.0.0.1:{}", self.peers[index]);
        let all: Vec<_> = (0..3).map(|i| format!("m{i}={}", peer(i))).collect();
        let own = peer(self.index);
        Ok(CommandLine::new(&place.home)
            .args(["--name", &format!("m{}", self.index)])
            .args(["--log-outputs", "stderr", "--data-dir"])
            .arg(place.data.join("etcd"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &own])
            .args(["--initial-advertise-peer-urls", &own])
            .args(["--initial-cluster", &all.join(",")]))
    }

    fn url(&self, place: &Place) -> String {
        Etcd.url(place)
    }

    async fn answers(&self, place: &Place) -> bool {
        Etcd.answers(place).await
    }
}

/// A cluster of three members.
pub(crate) struct Cluster {
    pub(crate) members: [Server<Member>; 3],
}

impl Cluster {
    /// `None` if this machine has no etcd, which has been said.
    pub(crate) async fn start() -> Option<Self> {
        // All are held until the end, so that they differ.
        let free: [TcpListener; 3] =
            std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let peers = [0, 1, 2].map(|i| free[i].local_addr().unwrap().port());
        drop(free);
        let member = |index| Server::start(Member { index, peers });
        // A member answers when the others are there.
        let (a, b, c) = tokio::try_join!(member(0), member(1), member(2)).unwrap();
        Some(Self {
            members: [a?, b?, c?],
        })
    }

    pub(crate) fn addresses(&self) -> [String; 3] {
        std::array::from_fn(|index| self.members[index].address())
    }
}

/// An etcd that speaks TLS only. It checks client certificates if it has a CA for them.
pub(crate) struct TlsEtcd {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

impl Launch for TlsEtcd {
    const NAME: &'static str = "etcd";
    const VARIABLE: &'static str = "ETCD_BIN";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let client = format!("https://{}", place.address());
        let metrics = format!("http://127.0.0.1:{}", place.ports[1]);
        let mut line = CommandLine::new(&place.home)
            .args(["--log-outputs", "stderr", "--data-dir"])
            .arg(place.data.join("etcd"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            // It has no other members.
            .args(["--listen-peer-urls", "http://127.0.0.1:0"])
            .args(["--listen-metrics-urls", &metrics])
            .arg("--cert-file")
            .arg(&self.certificate)
            .arg("--key-file")
            .arg(&self.key);
        if let Some(ca) = &self.client_ca {
            line = line
                .args(["--client-cert-auth", "--trusted-ca-file"])
                .arg(ca);
        }
        Ok(line)
    }

    fn url(&self, place: &Place) -> String {
        format!("etcds://{}", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        let health = async {
            let url = format!("http://127.0.0.1:{}/health", place.ports[1]);
            anyhow::Ok(http_client()?.get(url).send().await?.text().await?)
        };
        health.await.is_ok_and(|text| text.contains("true"))
    }
}

async fn call(address: &str, path: &str, body: &Value) -> Result<Value> {
    let url = format!("http://{address}{path}");
    let response = http_client()?.post(url).json(body).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{path}: {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// Puts a key without a lease at a member of a cluster, once the member accepts it.
pub(crate) async fn put(member: &Server<Member>, key: &str, value: &str) {
    let body = json!({"key": base64(key), "value": base64(value)});
    let address = member.address();
    let put = async || call(&address, "/v3/kv/put", &body).await;
    testkit::eventually("a put", std::time::Duration::from_secs(60), put)
        .await
        .unwrap();
}

/// Grants a lease. Returns its ID.
pub(crate) async fn lease(etcd: &Server<Etcd>, seconds: u32) -> String {
    let body = json!({ "TTL": seconds });
    let answer = etcd.call("/v3/lease/grant", &body).await.unwrap();
    answer["ID"].as_str().unwrap().to_owned()
}

/// Ends a lease.
pub(crate) async fn revoke(etcd: &Server<Etcd>, lease: &str) {
    let body = json!({ "ID": lease });
    etcd.call("/v3/lease/revoke", &body).await.unwrap();
}

/// Puts a key with a lease that lasts for the test.
pub(crate) async fn put_with_lease(etcd: &Server<Etcd>, key: &str, value: &str) {
    let lease = lease(etcd, 600).await;
    let body = json!({"key": base64(key), "value": base64(value), "lease": lease});
    etcd.call("/v3/kv/put", &body).await.unwrap();
}

/// Puts instances of `trim_service` in transactions of a hundred, from 127.0.0.1:10000 on.
pub(crate) async fn put_many(etcd: &Server<Etcd>, count: u16, lease: &str) {
    let ports: Vec<_> = (10_000..10_000 + count).collect();
    for ports in ports.chunks(100) {
        let put = |port: &u16| {
            let address = format!("127.0.0.1:{port}");
            let key = base64(&format!("/services/trim_service/{address}"));
            json!({"requestPut": {"key": key, "value": base64(&address), "lease": lease}})
        };
        let success: Vec<_> = ports.iter().map(put).collect();
        let body = json!({ "success": success });
        etcd.call("/v3/kv/txn", &body).await.unwrap();
    }
}

/// The entry of a key as etcd shows it: `value`, `lease`, `mod_revision`.
pub(crate) async fn entry(etcd: &Server<Etcd>, key: &str) -> Option<Value> {
    let body = json!({ "key": base64(key) });
    let answer = etcd.call("/v3/kv/range", &body).await.ok()?;
    answer["kvs"].get(0).cloned()
}
