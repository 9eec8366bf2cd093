//! Set-ups that are broken at the registry or in the question to it.

use std::net::SocketAddr;

use serde_json::json;
use testkit::{
    fake::{FakeServer, Reply},
    free_ports,
};

use crate::{
    BROKEN, FINE, consul, doctor, register,
    support::{listed_trim, run},
    trim,
};

#[tokio::test]
async fn a_registry_that_is_down_is_named_with_its_address() {
    let [port] = free_ports().unwrap();
    for (scheme, product) in [("consul", "Consul"), ("etcd", "etcd")] {
        let url = format!("{scheme}://127.0.0.1:{port}");
        run(&["doctor", &url, "trim_service"]).await.says(
            BROKEN,
            &[
                &format!("nothing listens at 127.0.0.1:{port} (connection refused)"),
                &format!("start {product} there, or correct the host and the port in the URL"),
                "broken: calls can use no instance",
            ],
        );
    }
}

#[tokio::test]
async fn a_wrong_port_is_recognized_by_what_listens_there() {
    let (trim, _folder) = trim().await;
    let url = format!("consul://{}", trim.grpc);
    run(&["doctor", &url, "trim_service"]).await.says(
        BROKEN,
        &[
            &format!(
                "{} is not Consul: there is an HTTP/2 server without TLS",
                trim.grpc
            ),
            "correct the host and the port in the URL (Consul's default is 8500)",
        ],
    );
    let consul = consul().await;
    let url = format!("etcd://{}", consul.address());
    run(&["doctor", &url, "trim_service"]).await.says(
        BROKEN,
        &[
            "is not etcd: there is an HTTP/1 server",
            "(etcd's default is 2379)",
        ],
    );
}

#[tokio::test]
async fn a_denied_token_is_named_with_the_rights_that_it_needs() {
    let consul = consul().await;
    run(&["doctor", &consul.url(), "trim_service"]).await.says(
        BROKEN,
        &[
            "denied permission",
            "set CONSUL_HTTP_TOKEN (or CONSUL_HTTP_TOKEN_FILE) to a token whose policy has service:read",
        ],
    );
}

#[tokio::test]
async fn a_misspelt_service_has_its_near_names() {
    let consul = consul().await;
    let [port] = free_ports().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    register(&consul, "invoice_service", address, "passing").await;
    doctor(&consul, "invoice-servise", &[]).await.says(
        BROKEN,
        &[
            "knows no service \"invoice-servise\"",
            "did you mean \"invoice_service\"?",
        ],
    );
    doctor(&consul, "quite_different", &[]).await.says(
        BROKEN,
        &[
            "knows no service \"quite_different\"",
            "use a name that it knows: ",
        ],
    );
}

#[tokio::test]
async fn a_name_that_was_only_watched_is_not_a_known_one() {
    let (trim, folder) = trim().await;
    let url = format!("embedded://{}", folder.path().display());
    // The first run leaves the empty folder of its watch behind.
    for _ in 0..2 {
        let found = run(&["doctor", &url, "trim_servise"]).await;
        found.says(
            BROKEN,
            &["knows no service", "did you mean \"trim_service\"?"],
        );
    }
    drop(trim);
}

#[tokio::test]
async fn a_tag_that_no_instance_has_is_said_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}", folder.path().display());
    let flags = ["--registry", &url, "--ip", "127.0.0.1", "--tag", "blue"];
    let _trim = listed_trim(&flags).await;
    run(&["doctor", &url, "trim_service", "--tag", "green"])
        .await
        .says(
            BROKEN,
            &[
                "none of the instances of trim_service (1) has the tags green",
                "tags that they have: blue",
            ],
        );
    run(&["doctor", &url, "trim_service", "--tag", "blue"])
        .await
        .says(FINE, &[]);
}

#[tokio::test]
async fn a_registry_whose_clock_differs_is_a_warning() {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let [port] = free_ports().unwrap();
    let entry = json!([{
        "Node": {"Node": "n", "Address": "127.0.0.1"},
        "Service": {"ID": "a", "Service": "trim_service", "Address": "127.0.0.1", "Port": port},
    }]);
    let consul = FakeServer::start(move |request| match &*request.path {
        "/" => Reply::new(404, &[("Date", date)], ""),
        _ => Reply::consul(5, entry.to_string()),
    });
    let consul = consul.await.unwrap();
    let url = format!("consul://{}", consul.address());
    let found = run(&["doctor", &url, "trim_service"]).await;
    found.says(
        BROKEN,
        &[
            "the registry's clock is ",
            "synchronise the wrong one (NTP)",
        ],
    );
}
