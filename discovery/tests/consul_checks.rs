//! The health checks of a registered instance, in a real Consul and in the registrar's state.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod sets;

use std::{future, net::SocketAddr, time::Duration};

use discovery::{
    Registrar, RegistrationState,
    registry::{self, Check, CheckState, GrpcCheck},
};
use serde_json::Value;
use testkit::Consul;
use tokio::{net::TcpListener, task::AbortHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::sets::{eventually, registration, within};

const LIMIT: Duration = Duration::from_secs(15);

/// A server with the standard health service only.
struct HealthServer {
    address: SocketAddr,
    reporter: HealthReporter,
    task: AbortHandle,
}

impl HealthServer {
    async fn start(tls: Option<Identity>) -> Self {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::builder();
        if let Some(identity) = tls {
            // tonic needs one where several are compiled in; it may be installed already.
            let _installed = rustls::crypto::ring::default_provider().install_default();
            let tls = ServerTlsConfig::new().identity(identity);
            server = server.tls_config(tls).unwrap();
        }
        let incoming = TcpListenerStream::new(listener);
        let serving = server.add_service(service).serve_with_incoming(incoming);
        let task = tokio::spawn(async { serving.await.unwrap() }).abort_handle();
        Self {
            address,
            reporter,
            task,
        }
    }

    async fn report(&self, service: &str, status: ServingStatus) {
        self.reporter.set_service_status(service, status).await;
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A check at Consul's shortest interval.
fn check() -> GrpcCheck {
    Check::grpc().with_interval(Duration::from_secs(1))
}

fn register(consul: &Consul, port: u16, check: impl Into<Check>) -> Registrar {
    let registry = registry::connect(&consul.url()).unwrap();
    let client = registry.registration(registration(port, check)).unwrap();
    Registrar::start(client).unwrap()
}

/// The text of the check, once it is critical in the registrar's state.
async fn until_critical(registrar: &Registrar) -> String {
    let mut state = registrar.state();
    let critical = |state: &RegistrationState| {
        matches!(
            state,
            RegistrationState::Registered {
                check: CheckState::Critical { .. },
                ..
            }
        )
    };
    let state = within(LIMIT, state.wait_for(critical))
        .await
        .unwrap()
        .clone();
    match state {
        RegistrationState::Registered {
            check: CheckState::Critical { output, .. },
            ..
        } => output.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn until_passing(registrar: &Registrar) {
    let mut state = registrar.state();
    let passing = state.wait_for(RegistrationState::is_passing);
    within(LIMIT, passing).await.unwrap();
}

/// The check of the instance at this port, as the agent shows it after it has run.
async fn shown(consul: &Consul, port: u16) -> (String, String) {
    let id = format!("service:trim_service-127.0.0.1-{port}");
    eventually("the check has run", async || {
        let checks = consul.get("/v1/agent/checks").await.unwrap();
        let text = |key: &str| checks[&id][key].as_str().unwrap_or_default().to_owned();
        (!text("Output").is_empty()).then(|| (text("Status"), text("Output")))
    })
    .await
}

#[tokio::test]
async fn a_named_service_is_checked_apart_from_the_overall_health() {
    let consul = Consul::start().await.unwrap();
    let server = HealthServer::start(None).await;
    let port = server.address.port();
    server.report("", ServingStatus::Serving).await;
    server.report("pb.Trim", ServingStatus::NotServing).await;

    let overall = register(&consul, port, check());
    let (status, output) = shown(&consul, port).await;
    assert_eq!(status, "passing", "{output}");
    overall.deregister(LIMIT).await.unwrap();

    let named = register(&consul, port, check().with_service("pb.Trim"));
    let output = until_critical(&named).await;
    assert!(output.contains("didn't report service healthy"), "{output}");
    server.report("pb.Trim", ServingStatus::Serving).await;
    until_passing(&named).await;
    assert_eq!(shown(&consul, port).await.0, "passing");
}

#[tokio::test]
async fn a_check_with_tls_reaches_a_server_with_tls() {
    // Checks verify against the agent's certificate authorities, for this name.
    let consul = Consul::options()
        .tls()
        .hcl("enable_agent_tls_for_checks = true server_name = \"localhost\"")
        .start()
        .await
        .unwrap();
    let pem = |name: &str| std::fs::read(consul.file(name)).unwrap();
    let identity = Identity::from_pem(pem("server.pem"), pem("server.key"));
    let server = HealthServer::start(Some(identity)).await;
    let port = server.address.port();

    let with_tls = register(&consul, port, check().with_tls());
    let (status, output) = shown(&consul, port).await;
    assert_eq!(status, "passing", "{output}");
    with_tls.deregister(LIMIT).await.unwrap();

    let without = register(&consul, port, check());
    until_critical(&without).await;
}

#[tokio::test]
async fn a_critical_check_is_in_the_state_with_consul_s_text() {
    let consul = Consul::start().await.unwrap();
    // Nothing listens on port 1.
    let registrar = register(&consul, 1, check());
    let output = until_critical(&registrar).await;
    assert!(output.contains("connection refused"), "{output}");
    // The instance is still registered, and maintained.
    assert!(registrar.state().borrow().is_registered());
    registrar.deregister(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_ttl_check_that_another_client_fails_is_in_the_state_until_the_next_heartbeat() {
    let consul = Consul::start().await.unwrap();
    let registrar = register(&consul, 8975, Check::ttl(Duration::from_secs(6)));
    until_passing(&registrar).await;
    let path = "/v1/agent/check/fail/service:trim_service-127.0.0.1-8975?note=by%20hand";
    let fail_often = async {
        loop {
            // A heartbeat may come before the registrar reads the check.
            consul.put(path, &Value::Null).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let output = tokio::select! {
        output = until_critical(&registrar) => output,
        () = fail_often => future::pending().await,
    };
    assert_eq!(output, "by hand");
    until_passing(&registrar).await;
}
