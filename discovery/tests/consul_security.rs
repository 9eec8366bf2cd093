//! Consul with ACLs and TLS: the calls with the right credentials, and the errors without.

#![cfg(feature = "consul")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod sets;

use std::{sync::Arc, time::Duration};

use discovery::{
    chain,
    registry::{
        Check, Instancer, Query, Registry, RegistryError,
        consul::{Config, Consul as Registered},
    },
};
use serde_json::{Value, json};
use testkit::{
    Consul, MASTER_TOKEN,
    fake::{FakeServer, Reply},
};

use crate::sets::{ids, registration, until};

/// A change of the way to connect to the same Consul.
type Change = fn(&mut Config, &Consul);

fn config(address: String) -> Config {
    Config::new(address).with_wait(Duration::from_secs(1))
}

fn watch_of(config: &Config) -> Arc<dyn Instancer> {
    let registry = Registered::new(config).unwrap();
    registry.instancer(&Query::new("trim_service")).unwrap()
}

async fn register(config: &Config) -> Result<(), RegistryError> {
    let registry = Registered::new(config)?;
    let client = registry.registration(registration(8975, Check::None))?;
    client.register().await
}

/// Makes a policy of these rules and a token with it. Returns the IDs of both.
async fn policy_and_token(consul: &Consul, rules: &str) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let policy = json!({"Name": "test", "Rules": rules});
    let policy = consul.put("/v1/acl/policy", &policy).await.unwrap();
    let token = json!({"Policies": [{"ID": policy["ID"]}]});
    let token = consul.put("/v1/acl/token", &token).await.unwrap();
    (text(&policy["ID"]), text(&token["SecretID"]))
}

const READ: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;

#[tokio::test]
async fn without_a_token_all_is_denied_and_said() {
    let consul = Consul::options().acl().start().await.unwrap();
    let wrong_token = config(consul.address()).with_token("00000000-0000-4000-8000-000000000000");
    for config in [config(consul.address()), wrong_token] {
        let error = register(&config).await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
        // Consul itself answers with an empty list, as for a service without instances.
        let instancer = watch_of(&config);
        let set = until(&mut instancer.watch(), |set| set.error.is_some()).await;
        let error = set.error.unwrap();
        assert!(matches!(*error, RegistryError::Denied { .. }), "{error}");
        assert_eq!(set.confirmed, None);
    }
}

#[tokio::test]
async fn a_token_opens_what_its_policy_allows() {
    let consul = Consul::options().acl().start().await.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("{MASTER_TOKEN}\n")).unwrap();
    let master = config(consul.address()).with_token_file(file.path());
    register(&master).await.unwrap();

    let (policy, token) = policy_and_token(&consul, READ).await;
    let reader = config(consul.address()).with_token(token);
    let denied = register(&reader).await.unwrap_err();
    assert!(matches!(denied, RegistryError::Denied { .. }), "{denied}");
    let instancer = watch_of(&reader);
    let mut sets = instancer.watch();
    let id = "trim_service-127.0.0.1-8975";
    until(&mut sets, |set| ids(set) == [id]).await;

    // The instances stay when the token loses a right.
    let path = format!("/v1/acl/policy/{policy}");
    let services_only =
        json!({"Name": "test", "Rules": r#"service_prefix "" { policy = "read" }"#});
    consul.put(&path, &services_only).await.unwrap();
    let set = until(&mut sets, |set| set.error.is_some()).await;
    assert_eq!(ids(&set), [id]);
    let said = set.error.unwrap().to_string();
    assert!(said.contains("may not read nodes"), "{said}");
    consul
        .put(&path, &json!({"Name": "test", "Rules": READ}))
        .await
        .unwrap();
    until(&mut sets, |set| set.error.is_none()).await;
}

#[tokio::test]
async fn an_empty_service_is_no_denial_to_one_who_may_read() {
    let consul = Consul::options().acl().start().await.unwrap();
    let (_, token) = policy_and_token(&consul, READ).await;
    let reader = config(consul.address()).with_token(token);
    let instancer = watch_of(&reader);
    let set = until(&mut instancer.watch(), |set| set.confirmed.is_some()).await;
    assert!(set.error.is_none() && set.instances.is_empty());
}

#[tokio::test]
async fn https_with_a_client_certificate() {
    let consul = Consul::options().tls().start().await.unwrap();
    let good = config(consul.tls_address())
        .with_tls(true)
        .with_ca_file(consul.file("ca.pem"))
        .with_client_cert(consul.file("client.pem"), consul.file("client.key"));
    register(&good).await.unwrap();
    let instancer = watch_of(&good);
    until(&mut instancer.watch(), |set| set.instances.len() == 1).await;

    let folder = tempfile::tempdir().unwrap();
    for (file, name) in [("other-ca.pem", "a.pem"), ("ca.pem", "b.pem")] {
        std::fs::copy(consul.file(file), folder.path().join(name)).unwrap();
    }
    let mut by_folder = good.clone();
    by_folder.ca_file = None;
    by_folder.ca_path = Some(folder.path().to_owned());
    register(&by_folder).await.unwrap();

    let works: [Change; 2] = [
        |config, _| config.tls_server_name = Some("server.dc1.consul".to_owned()),
        |config, consul| {
            config.ca_file = Some(consul.file("other-ca.pem"));
            config.tls_verify = false;
        },
    ];
    for change in works {
        let mut config = good.clone();
        change(&mut config, &consul);
        register(&config)
            .await
            .unwrap_or_else(|e| panic!("{config:?}: {}", chain(&e)));
    }
    let fails: [(Change, &str); 4] = [
        (
            |config, _| (config.client_cert, config.client_key) = (None, None),
            "did not answer",
        ),
        (
            |config, consul| config.ca_file = Some(consul.file("other-ca.pem")),
            "certificate",
        ),
        (
            |config, _| config.tls_server_name = Some("other.consul".to_owned()),
            "not valid for name",
        ),
        (|config, _| config.tls = false, "400"),
    ];
    for (change, reason) in fails {
        let mut config = good.clone();
        change(&mut config, &consul);
        let said = chain(&register(&config).await.unwrap_err());
        assert!(said.contains(reason), "{config:?}: {said}");
    }
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_as_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", folder.path().join("consul.sock").display());
    let addresses = format!("addresses {{ http = \"127.0.0.1 {socket}\" }}");
    let _consul = Consul::options().hcl(&addresses).start().await.unwrap();
    let config = config(socket);
    register(&config).await.unwrap();
    let instancer = watch_of(&config);
    until(&mut instancer.watch(), |set| set.instances.len() == 1).await;
}

#[tokio::test]
async fn a_proxy_in_front_is_given_its_password() {
    let entry = json!([{
        "Node": {"Node": "n", "Address": "127.0.0.1"},
        "Service": {"ID": "a", "Service": "trim_service", "Address": "127.0.0.1", "Port": 8975},
    }]);
    let proxy = FakeServer::start(move |request| {
        // "me:a:secret" in base64.
        match request.header("authorization") {
            Some("Basic bWU6YTpzZWNyZXQ=") => Reply::consul(5, entry.to_string()),
            _ => Reply::new(401, &[], ""),
        }
    })
    .await
    .unwrap();
    let config = config(proxy.address().to_string());
    let instancer = watch_of(&config);
    let set = until(&mut instancer.watch(), |set| set.error.is_some()).await;
    let error = set.error.unwrap();
    assert!(matches!(*error, RegistryError::Denied { .. }), "{error}");
    let config = config.with_http_auth("me:a:secret");
    let instancer = watch_of(&config);
    until(&mut instancer.watch(), |set| set.instances.len() == 1).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty_folder = tempfile::tempdir().unwrap();
    let path = || Some(empty.path().to_owned());
    let mut files: [Config; 6] = std::array::from_fn(|_| {
        let mut config = config("localhost:8501".to_owned());
        config.tls = true;
        config
    });
    files[0].ca_file = path();
    files[1].ca_file = Some("/no/such/file".into());
    files[2].token_file = Some("/no/such/file".into());
    (files[3].client_cert, files[3].client_key) = (path(), path());
    files[4].ca_path = Some("/no/such/file".into());
    files[5].ca_path = Some(empty_folder.path().to_owned());
    for config in files {
        let error = Registered::new(&config).unwrap_err();
        assert!(
            matches!(error, RegistryError::InvalidSetting { .. }),
            "{error}"
        );
        let said = error.to_string();
        let named = [empty.path(), empty_folder.path(), "/no/such/file".as_ref()]
            .iter()
            .any(|path| said.contains(&path.display().to_string()));
        assert!(named, "{said}");
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_their_files_change() {
    let consul = Consul::options().tls().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(consul.file(from), folder.path().join(to)).unwrap();
    };
    copy("ca.pem", "ca.pem");
    copy("client.pem", "cert.pem");
    copy("client.key", "key.pem");
    let in_folder = |name: &str| folder.path().join(name);
    let config = config(consul.tls_address())
        .with_tls(true)
        .with_ca_file(in_folder("ca.pem"))
        .with_client_cert(in_folder("cert.pem"), in_folder("key.pem"));
    register(&config).await.unwrap();
    let instancer = watch_of(&config);
    let mut sets = instancer.watch();
    until(&mut sets, |set| set.confirmed.is_some()).await;
    // Another authority is trusted from now on.
    copy("other-ca.pem", "ca.pem");
    until(&mut sets, |set| set.error.is_some()).await;
    // A file that cannot be used leaves the certificates as they are.
    std::fs::write(in_folder("ca.pem"), "not a certificate").unwrap();
    copy("ca.pem", "ca.pem");
    until(&mut sets, |set| set.error.is_none()).await;
}
