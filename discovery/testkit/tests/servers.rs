//! The servers start, keep their data across a restart, lose it by a wipe, and end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testkit::{
    eventually,
    registries::{Etcd, Eureka, Knot, Launch, Server, ZooKeeper},
};
use tokio::{net::UdpSocket, time::timeout};

/// Time limit of a condition.
const LIMIT: Duration = Duration::from_secs(20);

/// The value that a test writes and looks for.
trait Entry: Launch {
    async fn write(server: &Server<Self>) -> Result<()>
    where
        Self: Sized;

    async fn is_there(server: &Server<Self>) -> Result<bool>
    where
        Self: Sized;
}

impl Entry for Etcd {
    async fn write(server: &Server<Self>) -> Result<()> {
        server.put("/a/b", "1").await
    }

    async fn is_there(server: &Server<Self>) -> Result<bool> {
        Ok(server.list("/a/").await? == [("/a/b".to_owned(), "1".to_owned())])
    }
}

impl Entry for ZooKeeper {
    async fn write(server: &Server<Self>) -> Result<()> {
        let mut client = server.client().await?;
        client.put("/a/b", b"1").await?;
        client.close().await
    }

    async fn is_there(server: &Server<Self>) -> Result<bool> {
        let mut client = server.client().await?;
        Ok(client.children("/a").await? == ["b"] && client.get("/a/b").await? == b"1")
    }
}

impl Entry for Eureka {
    async fn write(server: &Server<Self>) -> Result<()> {
        let instance = json!({ "instance": {
            "instanceId": "a", "app": "B", "hostName": "127.0.0.1", "ipAddr": "127.0.0.1",
            "status": "UP", "port": { "$": 1, "@enabled": "true" },
            "dataCenterInfo": {
                "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
            },
        }});
        server.call("POST", "/apps/B", Some(&instance)).await?;
        Ok(())
    }

    async fn is_there(server: &Server<Self>) -> Result<bool> {
        let all = server.call("GET", "/apps", None).await?;
        Ok(all["applications"]["application"][0]["instance"][0]["instanceId"] == "a")
    }
}

impl Entry for Knot {
    async fn write(server: &Server<Self>) -> Result<()> {
        let records: Vec<_> = (1..=3).map(|port| format!("SRV 0 1 {port} ns")).collect();
        server.set_records("_b._tcp", 5, &records).await?;
        // Replaces them.
        server.set_records("_b._tcp", 5, &records[..1]).await
    }

    async fn is_there(server: &Server<Self>) -> Result<bool> {
        // ID 7, one question: _b._tcp.discovery.test SRV IN.
        let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in ["_b", "_tcp", "discovery", "test", ""] {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 33, 0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(server.address()).await?;
        socket.send(&query).await?;
        let mut answer = [0; 512];
        let received = socket.recv(&mut answer);
        timeout(Duration::from_secs(20), received).await??;
        // The low half of the third and of the fourth word: the code and the number of answers.
        Ok((answer[3] & 15, answer[7]) == (0, 1))
    }
}

/// `keeps`: the server has its entries after a restart.
async fn starts_restarts_and_ends<L: Entry + Default>(keeps: bool) {
    let Some(mut server) = Server::start(L::default()).await.unwrap() else {
        return;
    };
    assert!(!L::is_there(&server).await.unwrap());
    L::write(&server).await.unwrap();
    assert!(L::is_there(&server).await.unwrap());
    server.kill().await.unwrap();
    assert!(server.pause().is_err(), "it still runs");
    server.restart().await.unwrap();
    assert_eq!(L::is_there(&server).await.unwrap(), keeps);
    server.terminate().await.unwrap();
    server.restart_wiped().await.unwrap();
    assert!(!L::is_there(&server).await.unwrap());
    server.pause().unwrap();
    // A thread that runs when the signal is sent may still answer one request.
    let is_silent = async || {
        let look = L::is_there(&server);
        timeout(Duration::from_millis(300), look).await.is_err()
    };
    eventually("a stopped server is silent", LIMIT, is_silent)
        .await
        .unwrap();
    server.resume().unwrap();
    assert!(!L::is_there(&server).await.unwrap());
}

#[tokio::test]
async fn etcd_keeps_its_data_until_it_is_wiped() {
    starts_restarts_and_ends::<Etcd>(true).await;
}

#[tokio::test]
async fn zookeeper_keeps_its_data_until_it_is_wiped() {
    starts_restarts_and_ends::<ZooKeeper>(true).await;
}

#[tokio::test]
async fn eureka_starts_empty_every_time() {
    starts_restarts_and_ends::<Eureka>(false).await;
}

#[tokio::test]
async fn dns_keeps_its_records_until_it_is_wiped() {
    starts_restarts_and_ends::<Knot>(true).await;
}
