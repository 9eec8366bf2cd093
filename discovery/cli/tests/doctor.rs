//! `doctor` on set-ups that are broken in one way each, with real servers: it names the cause and the
//! remedy, and its exit code tells if calls work.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/mod.rs"]
mod support;
#[path = "support/tls.rs"]
mod tls;

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;
use support::{Run, run, run_with, shared_consul};
use tempfile::TempDir;
use testkit::{
    Consul, MASTER_TOKEN, TrimService,
    fake::{FakeServer, Reply},
    free_ports,
    registries::{Etcd, Server},
    trim_service,
};
use tls::Authority;

const FINE: i32 = 0;
const WARNINGS: i32 = 1;
const BROKEN: i32 = 2;

/// The Consul of these tests, which denies what no token allows.
async fn consul() -> Arc<Consul> {
    shared_consul(Consul::options().acl()).await
}

/// Registers an address in Consul, with a check in this state.
async fn register(consul: &Consul, service: &str, address: SocketAddr, check: &str) {
    let body = json!({
        "ID": format!("{service}-{}", address.port()),
        "Name": service,
        "Address": address.ip().to_string(),
        "Port": address.port(),
        "Check": {"TTL": "1h", "Status": check},
    });
    consul
        .put("/v1/agent/service/register", &body)
        .await
        .unwrap();
}

/// Runs doctor with all permissions in Consul.
async fn doctor(consul: &Consul, service: &str, flags: &[&str]) -> Run {
    let url = consul.url();
    let line = [&["doctor", &url, service], flags].concat();
    run_with(&line, &[("CONSUL_HTTP_TOKEN", MASTER_TOKEN)]).await
}

/// A trim service, which registers in a folder of its own.
async fn trim() -> (TrimService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}", folder.path().display());
    let trim = trim_service(&["--registry", &url]).await.unwrap();
    (trim, folder)
}

/// `static://` with this address.
fn list(address: impl std::fmt::Display) -> String {
    format!("static://{address}")
}

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
async fn tls_to_a_plain_port_is_recognized_at_the_registry_and_at_an_instance() {
    let consul = consul().await;
    let url = consul.url().replace("consul://", "consuls://");
    run(&["doctor", &url, "trim_service"]).await.says(
        BROKEN,
        &[
            "is an HTTP/1 server without TLS, and the URL asks for TLS",
            "use consul://",
        ],
    );
    let (trim, _folder) = trim().await;
    let authority = Authority::named("CA");
    let file = authority.file().display().to_string();
    let url = list(trim.grpc);
    run(&["doctor", &url, "trim", "--tls-ca", &file])
        .await
        .says(
            BROKEN,
            &[
                "TLS to a plain port",
                "leave out --tls",
                "turn on TLS in the server",
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
async fn a_service_whose_checks_all_fail_is_not_called() {
    let consul = consul().await;
    let (trim, _folder) = trim().await;
    register(&consul, "critical_service", trim.grpc, "critical").await;
    let found = doctor(&consul, "critical_service", &[]).await;
    found.says(
        BROKEN,
        &[
            "the registry's health checks fail for every instance (1)",
            "its check in the registry is critical: a channel does not call it",
            "the check's output in the registry",
            // The instance itself works, which the check does not see.
            "its health service says SERVING",
            "none of the instances (1) can be called",
        ],
    );
}

#[tokio::test]
async fn an_instance_that_refuses_is_broken_alone_and_a_warning_beside_others() {
    let consul = consul().await;
    let [port] = free_ports().unwrap();
    let refused = SocketAddr::from(([127, 0, 0, 1], port));
    register(&consul, "refused_service", refused, "passing").await;
    let cause = [
        &*format!("nothing listens at {refused} (connection refused), and the registry lists it"),
        "start the instance, or deregister it",
    ];
    doctor(&consul, "refused_service", &[])
        .await
        .says(BROKEN, &cause);
    let (trim, _folder) = trim().await;
    register(&consul, "refused_service", trim.grpc, "passing").await;
    let found = doctor(&consul, "refused_service", &[]).await;
    found.says(WARNINGS, &cause);
    found.says(
        WARNINGS,
        &[
            "connected to 1 of 2 instances",
            "warnings: calls can use 1 instance;",
        ],
    );
}

#[tokio::test]
async fn an_http_1_server_is_recognized() {
    let consul = consul().await;
    let web = FakeServer::start(|_| Reply::new(200, &[], "hello"))
        .await
        .unwrap();
    register(&consul, "web_service", web.address(), "passing").await;
    doctor(&consul, "web_service", &[]).await.says(
        BROKEN,
        &[
            &format!(
                "{} is an HTTP/1 server without TLS; gRPC needs HTTP/2",
                web.address()
            ),
            "register the server's gRPC port instead of its HTTP port",
        ],
    );
}

#[tokio::test]
async fn a_wrong_service_behind_the_address_is_named_by_what_it_offers() {
    let consul = consul().await;
    let (trim, _folder) = trim().await;
    register(&consul, "add_service", trim.grpc, "passing").await;
    doctor(&consul, "add_service", &["--grpc-service", "pb.Add"])
        .await
        .says(
            BROKEN,
            &[
                "it offers pb.Trim, and not pb.Add",
                "another service is behind the address",
            ],
        );
    let right = doctor(&consul, "add_service", &["--grpc-service", "pb.Trim"]).await;
    right.says(
        FINE,
        &["it offers pb.Trim", "fine: calls can use 1 instance"],
    );
}

#[tokio::test]
async fn a_certificate_of_the_future_points_at_the_clocks() {
    let authority = Authority::named("CA");
    let file = authority.file().display().to_string();
    let address = authority.serve("127.0.0.1", 3, 48).await;
    let consul = consul().await;
    register(&consul, "skewed_service", address, "passing").await;
    let found = doctor(&consul, "skewed_service", &["--tls-ca", &file]).await;
    found.says(
        BROKEN,
        &[
            "the certificate is not yet valid: it begins at ",
            "and this machine's clock says ",
            "the registry's clock agrees with this machine's",
            "compare the clocks of this machine and of the issuer with `date -u`",
        ],
    );
    // 3 hours, less the time since the certificate was issued.
    assert!(found.stdout.contains(", 2h 59m"), "{found:#?}");
}

#[tokio::test]
async fn other_certificates_that_are_refused_have_their_own_cause() {
    let [authority, other, named] = ["CA", "CA", "Other CA"].map(Authority::named);
    let file = authority.file().display().to_string();
    let issuer = "issuer is not trusted";
    for (server, name, [begin, end], cause, remedy) in [
        (
            &authority,
            "127.0.0.1",
            [-48, -3],
            "the certificate expired at ",
            "renew the certificate",
        ),
        (&other, "127.0.0.1", [-1, 48], issuer, "--tls-ca"),
        (&named, "127.0.0.1", [-1, 48], issuer, "CN=Other CA"),
        (
            &authority,
            "trim.test",
            [-1, 48],
            "the certificate is for trim.test",
            "--tls-domain",
        ),
    ] {
        let url = list(server.serve(name, begin, end).await);
        let found = run(&["doctor", &url, "trim", "--tls-ca", &file]).await;
        found.says(BROKEN, &[cause, remedy]);
    }
    let url = list(authority.serve("127.0.0.1", -1, 3).await);
    let found = run(&["doctor", &url, "trim", "--tls-ca", &file]).await;
    found.says(
        WARNINGS,
        &[
            "HTTP/2 over TLS",
            "for another 2h 59m",
            "renew the certificate",
        ],
    );
    // Without TLS, the same server is the opposite mistake.
    let found = run(&["doctor", &url, "trim"]).await;
    found.says(
        BROKEN,
        &[
            "is an HTTP/2 server with TLS, and the channel uses none",
            "give --tls",
        ],
    );
}

#[tokio::test]
async fn a_healthy_service_is_fine_in_every_registry() {
    let consul = consul().await;
    let folder = tempfile::tempdir().unwrap();
    let embedded = format!("embedded://{}", folder.path().display());
    let trim = trim_service(&["--registry", &embedded, "--ip", "127.0.0.1"])
        .await
        .unwrap();
    register(&consul, "good_service", trim.grpc, "passing").await;
    let found = doctor(&consul, "good_service", &["--json"]).await;
    let report = found.json();
    assert_eq!(report["outcome"], "fine", "{report:#}");
    assert_eq!(report["usable"], 1);
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.iter().all(|finding| finding["result"] == "ok"),
        "{report:#}"
    );
    let steps: Vec<_> = findings
        .iter()
        .map(|finding| finding["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "registry",
            "service",
            "health",
            "connection",
            "grpc",
            "reflection",
            "latency",
            "channel"
        ]
    );
    assert_eq!(found.code, FINE);

    let id = trim.id.clone();
    for url in [embedded, list(trim.grpc)] {
        let found = run(&["doctor", &url, "trim_service", "--grpc-service", "pb.Trim"]).await;
        found.says(FINE, &["fine: calls can use 1 instance", "a call takes "]);
        assert!(
            url.starts_with("static") || found.stdout.contains(&id),
            "{found:#?}"
        );
    }
    if let Some(etcd) = Server::start(Etcd).await.unwrap() {
        let key = format!("/services/trim_service/{}", trim.grpc);
        etcd.put(&key, trim.grpc.to_string()).await.unwrap();
        run(&["doctor", &etcd.url(), "trim_service"])
            .await
            .says(FINE, &["fine: "]);
        let found = run(&["doctor", &etcd.url(), "trim_servise"]).await;
        found.says(
            BROKEN,
            &["knows no service", "did you mean \"trim_service\"?"],
        );
    }
}

#[tokio::test]
async fn a_tag_that_no_instance_has_is_said_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded://{}", folder.path().display());
    let flags = ["--registry", &url, "--ip", "127.0.0.1", "--tag", "blue"];
    let _trim = trim_service(&flags).await.unwrap();
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
