//! Set-ups that are broken at the instances.

use std::net::SocketAddr;

use testkit::{
    fake::{FakeServer, Reply},
    free_ports,
};

use crate::{
    BROKEN, FINE, WARNINGS, consul, doctor, list, register, support::run, tls::Authority, trim,
};

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
