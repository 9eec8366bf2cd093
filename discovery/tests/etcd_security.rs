//! etcd with authentication and TLS: the calls with the right credentials, and the errors without.

#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod etcd_servers;
mod sets;

use std::{fs, path::Path, sync::Arc, time::Duration};

use discovery::{
    Registrar, chain,
    registry::{
        Check, Instancer, Query, Registry as _, RegistryError,
        etcd::{Config, Etcd},
    },
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use testkit::registries::{ETCD_PASSWORD, Etcd as Launched, Server};

use crate::{
    etcd_servers::TlsEtcd,
    sets::{ids, registration, until, within},
};

const ID: &str = "trim_service-127.0.0.1-8975";

fn watch_of(config: &Config) -> Arc<dyn Instancer> {
    let etcd = Etcd::new(config).unwrap();
    etcd.instancer(&Query::new("trim_service")).unwrap()
}

async fn register(config: &Config) -> Result<(), RegistryError> {
    let client = Etcd::new(config)?.registration(registration(8975, Check::Default))?;
    client.register().await
}

#[tokio::test]
async fn calls_without_the_right_password_are_denied_and_said() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.enable_auth().await.unwrap();
    let plain = Config::new([etcd.address()]);
    for config in [
        plain.clone(),
        plain.clone().with_user("root", "wrong"),
        plain.clone().with_token("nonsense"),
    ] {
        let error = register(&config).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
        let set = until(&mut watch_of(&config).watch(), |set| set.error.is_some()).await;
        let error = set.error.unwrap();
        assert!(matches!(*error, RegistryError::Denied { .. }), "{error}");
        assert_eq!(set.confirmed, None);
    }
}

#[tokio::test]
async fn a_token_that_ended_with_its_server_is_replaced() {
    let Some(mut etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    etcd.enable_auth().await.unwrap();
    let config = Config::new([etcd.address()]).with_user("root", ETCD_PASSWORD);
    let registry = Etcd::new(&config).unwrap();
    let client = registry
        .registration(registration(8975, Check::Default))
        .unwrap();
    let registrar = Registrar::start(client).unwrap();
    let instancer = registry.instancer(&Query::new("trim_service")).unwrap();
    let mut sets = instancer.watch();
    until(&mut sets, |set| ids(set) == [ID]).await;
    // Simple tokens live in the server's memory.
    etcd.kill().await.unwrap();
    until(&mut sets, |set| set.error.is_some()).await;
    etcd.restart().await.unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
    let mut state = registrar.state();
    let again = state.wait_for(discovery::RegistrationState::is_registered);
    within(Duration::from_secs(30), again).await.unwrap();
    registrar.deregister(Duration::from_secs(10)).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn credentials_for_a_server_without_authentication_are_no_error() {
    let Some(etcd) = Server::start(Launched).await.unwrap() else {
        return;
    };
    let config = Config::new([etcd.address()]).with_user("root", ETCD_PASSWORD);
    let registry = Etcd::new(&config).unwrap();
    let client = registry
        .registration(registration(8975, Check::Default))
        .unwrap();
    client.register().await.unwrap();
    // Once it is turned on, the same client authenticates.
    etcd.enable_auth().await.unwrap();
    let instancer = registry.instancer(&Query::new("trim_service")).unwrap();
    until(&mut instancer.watch(), |set| ids(set) == [ID]).await;
    client.deregister().await.unwrap();
}

/// A certificate authority with a server's and a client's certificate, in PEM files.
fn certificates(folder: &Path, name: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let write =
        |file: &str, text: String| fs::write(folder.join(format!("{name}{file}")), text).unwrap();
    write("ca.pem", ca.pem());
    for (file, host) in [("server", "127.0.0.1"), ("client", "client.example")] {
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        write(
            &format!("{file}.pem"),
            params.signed_by(&key, &issuer).unwrap().pem(),
        );
        write(&format!("{file}.key"), key.serialize_pem());
    }
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    certificates(folder.path(), "");
    certificates(folder.path(), "other-");
    let launch = TlsEtcd {
        certificate: file("server.pem"),
        key: file("server.key"),
        client_ca: Some(file("ca.pem")),
    };
    let Some(etcd) = Server::start(launch).await.unwrap() else {
        return;
    };
    let good = Config::new([etcd.address()])
        .with_tls(true)
        .with_ca_file(file("ca.pem"))
        .with_client_cert(file("client.pem"), file("client.key"));
    register(&good).await.unwrap();
    until(&mut watch_of(&good).watch(), |set| ids(set) == [ID]).await;
    let unverified = good.clone().with_ca_file(file("other-ca.pem"));
    register(&unverified.clone().with_tls_verify(false))
        .await
        .unwrap();

    let mut anonymous = good.clone();
    (anonymous.client_cert, anonymous.client_key) = (None, None);
    for (config, reason) in [
        (unverified, "certificate"),
        (
            good.clone().with_tls_server_name("other.example"),
            "not valid for name",
        ),
        (anonymous, "did not answer"),
        (good.clone().with_tls(false), "did not answer"),
    ] {
        let said = chain(&register(&config).await.unwrap_err());
        assert!(said.contains(reason), "{config:?}: {said}");
    }
    for missing in [
        good.clone().with_ca_file("/no/such/file"),
        good.with_client_cert("/no/such/file", file("client.key")),
    ] {
        let error = Etcd::new(&missing).unwrap_err();
        assert!(
            matches!(error, RegistryError::InvalidSetting { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_that_was_renewed_is_used_by_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    certificates(folder.path(), "");
    let launch = TlsEtcd {
        certificate: file("server.pem"),
        key: file("server.key"),
        client_ca: None,
    };
    let Some(mut etcd) = Server::start(launch).await.unwrap() else {
        return;
    };
    let config = Config::new([etcd.address()])
        .with_tls(true)
        .with_ca_file(file("ca.pem"));
    let client = Etcd::new(&config)
        .unwrap()
        .registration(registration(8975, Check::Default))
        .unwrap();
    client.register().await.unwrap();
    etcd.kill().await.unwrap();
    certificates(folder.path(), "");
    etcd.restart().await.unwrap();
    client.register().await.unwrap();
    client.deregister().await.unwrap();
}
