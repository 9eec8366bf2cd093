//! Credentials, access rights and TLS.

use std::{fmt::Write as _, fs, path::PathBuf};

use discovery::registry::{self, Check, RegistryError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::registries::{CommandLine, Launch, Place, Server};
use tokio::net::TcpStream;

use crate::{
    LIMIT, SERVICE, client, nodes, registered,
    sets::{ids, registration, until},
    start, watch,
};

const ID: &str = "trim_service-127.0.0.1-8975";

fn with_credentials(url: &str) -> String {
    url.replace("zookeeper://", "zookeeper://trim:s%40cret@")
}

#[tokio::test]
async fn nodes_made_with_credentials_are_for_the_same_credentials_only() {
    let Some(server) = start().await else { return };
    let url = with_credentials(&server.url());
    let registrar = registered(client(&url, registration(8975, Check::Default))).await;
    let mut stranger = server.client().await.unwrap();
    assert!(stranger.get(&format!("{SERVICE}/{ID}")).await.is_err());
    assert!(stranger.delete(&format!("{SERVICE}/{ID}")).await.is_err());
    let mut friend = server.client().await.unwrap();
    friend.authenticate("trim:s@cret").await.unwrap();
    friend.get(&format!("{SERVICE}/{ID}")).await.unwrap();
    let (_watch, mut sets) = watch(&url);
    until(&mut sets, |set| ids(set) == [ID]).await;
    // Without credentials, or with others, it is a denial and not an empty set.
    for url in [server.url(), url.replace("s%40cret", "wrong")] {
        let (_watch, mut sets) = watch(&url);
        let set = until(&mut sets, |set| set.error.is_some()).await;
        assert!(set.confirmed.is_none());
        let error = set.error.unwrap();
        assert!(matches!(*error, RegistryError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("NoAuth"), "{error}");
        let client = client(&url, registration(1, Check::Default));
        let error = client.register().await.unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    }
    registrar.deregister(LIMIT).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
}

#[tokio::test]
async fn others_may_read_nodes_if_they_are_meant_to() {
    let Some(server) = start().await else { return };
    let url = format!("{}?acl=others-read", with_credentials(&server.url()));
    let _registrar = registered(client(&url, registration(8975, Check::Default))).await;
    let (_watch, mut sets) = watch(&server.url());
    until(&mut sets, |set| ids(set) == [ID]).await;
    let stranger = client(&server.url(), registration(8975, Check::Default));
    let error = stranger.register().await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn a_node_that_may_not_be_read_hides_no_other() {
    let Some(server) = start().await else { return };
    let _registrar = registered(client(&server.url(), registration(8975, Check::Default))).await;
    let mut owner = server.client().await.unwrap();
    owner.authenticate("owner:pw").await.unwrap();
    owner
        .create_private(&format!("{SERVICE}/private"))
        .await
        .unwrap();
    assert_eq!(nodes(&server).await.len(), 2);
    let (_watch, mut sets) = watch(&server.url());
    let set = until(&mut sets, |set| set.confirmed.is_some()).await;
    assert_eq!(ids(&set), [ID]);
    assert!(set.error.is_none());
}

/// A ZooKeeper with TLS only, which requires client certificates.
struct TlsZooKeeper {
    /// PEM files: the authority, and a certificate with its key that is the server's and the client's.
    ca: PathBuf,
    both: PathBuf,
}

impl Launch for TlsZooKeeper {
    const NAME: &'static str = "zookeeper";
    const VARIABLE: &'static str = "ZOOKEEPER_HOME";

    fn command(&self, place: &Place) -> anyhow::Result<CommandLine> {
        let mut configuration = String::new();
        for (name, value) in [
            ("secureClientPort", place.ports[0].to_string()),
            ("secureClientPortAddress", "127.0.0.1".to_owned()),
            ("dataDir", place.data.join("zk").display().to_string()),
            ("admin.enableServer", "false".to_owned()),
            (
                "serverCnxnFactory",
                "org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
            ),
            ("ssl.keyStore.location", self.both.display().to_string()),
            ("ssl.keyStore.type", "PEM".to_owned()),
            ("ssl.trustStore.location", self.ca.display().to_string()),
            ("ssl.trustStore.type", "PEM".to_owned()),
        ] {
            writeln!(configuration, "{name}={value}")?;
        }
        let file = place.data.join("zoo.cfg");
        fs::write(&file, configuration)?;
        let jars = place.home.join("lib/*");
        let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
        Ok(CommandLine::java(&[&jars], main, 128).arg(file))
    }

    fn url(&self, place: &Place) -> String {
        format!("zookeepers://{}", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        TcpStream::connect(place.address()).await.is_ok()
    }
}

#[tokio::test]
async fn a_server_with_tls_is_used_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, both) = (dir.path().join("ca.pem"), dir.path().join("both.pem"));
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    fs::write(&ca, authority.pem()).unwrap();
    fs::write(&both, certificate.pem() + &key.serialize_pem()).unwrap();
    let (ca_file, both_file) = (ca.display().to_string(), both.display().to_string());
    let Some(server) = Server::start(TlsZooKeeper { ca, both }).await.unwrap() else {
        return;
    };
    let url = server.url();
    let trusted = format!("{url}?ca={ca_file}&cert={both_file}&key={both_file}");
    let registrar = registered(client(&trusted, registration(8975, Check::Default))).await;
    let (_watch, mut sets) = watch(&trusted);
    until(&mut sets, |set| ids(set) == [ID]).await;
    registrar.deregister(LIMIT).await.unwrap();
    until(&mut sets, |set| set.instances.is_empty()).await;
    // Another authority, no client certificate, and no TLS.
    for url in [
        format!("{url}?ca={both_file}&cert={both_file}&key={both_file}"),
        format!("{url}?ca={ca_file}"),
        url.replace("zookeepers", "zookeeper"),
    ] {
        let client = client(&url, registration(1, Check::Default));
        let error = client.register().await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Unreachable { .. }),
            "{url}: {error}"
        );
    }
    let missing = registry::connect("zookeepers://localhost?ca=/missing.pem");
    let said = missing.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("/missing.pem"), "{said}");
}
