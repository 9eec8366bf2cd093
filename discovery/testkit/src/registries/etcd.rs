//! etcd 3.5.

use anyhow::{Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{CommandLine, Launch, Place, Server};
use crate::http::http_client;

/// The password of the user `root`, once [`Server::enable_auth`] has made it.
pub const ETCD_PASSWORD: &str = "etcd-password";

/// An etcd of one member.
#[derive(Clone, Copy, Debug, Default)]
pub struct Etcd;

impl Launch for Etcd {
    const NAME: &'static str = "etcd";
    const VARIABLE: &'static str = "ETCD_BIN";

    fn command(&self, place: &Place) -> Result<CommandLine> {
        let client = format!("http://{}", place.address());
        let peer = format!("http://127.0.0.1:{}", place.ports[1]);
        Ok(CommandLine::new(&place.home)
            .args(["--name", "default", "--log-outputs", "stderr"])
            .arg("--data-dir")
            .arg(place.data.join("etcd"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")]))
    }

    fn url(&self, place: &Place) -> String {
        format!("etcd://{}", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        let health = async {
            let url = format!("http://{}/health", place.address());
            anyhow::Ok(http_client()?.get(url).send().await?.text().await?)
        };
        health.await.is_ok_and(|text| text.contains("true"))
    }
}

impl Server<Etcd> {
    /// Puts a key without a lease.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or with an error.
    pub async fn put(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let body = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        self.call("/v3/kv/put", &body).await?;
        Ok(())
    }

    /// Deletes a key.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn delete(&self, key: &str) -> Result<()> {
        let body = json!({ "key": STANDARD.encode(key) });
        self.call("/v3/kv/deleterange", &body).await?;
        Ok(())
    }

    /// The keys and values below a prefix.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        // The end of a prefix's range is the prefix with its last byte increased.
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let body = json!({ "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end) });
        let answer = self.call("/v3/kv/range", &body).await?;
        let text = |value: &Value| -> Result<String> {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let entries = answer["kvs"].as_array().into_iter().flatten();
        entries
            .map(|kv| Ok((text(&kv["key"])?, text(&kv["value"])?)))
            .collect()
    }

    /// Turns authentication on, with the user `root` and [`ETCD_PASSWORD`]. The calls above do not
    /// work afterwards.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn enable_auth(&self) -> Result<()> {
        let user = json!({ "name": "root", "password": ETCD_PASSWORD });
        self.call("/v3/auth/user/add", &user).await?;
        self.call("/v3/auth/role/add", &json!({ "name": "root" }))
            .await?;
        let grant = json!({ "user": "root", "role": "root" });
        self.call("/v3/auth/user/grant", &grant).await?;
        self.call("/v3/auth/enable", &json!({})).await?;
        Ok(())
    }

    /// A call of its JSON gateway, such as `/v3/kv/compaction`. Keys and values are in base64.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("http://{}{path}", self.address());
        let response = http_client()?.post(url).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}
