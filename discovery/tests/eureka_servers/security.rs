//! TLS: a real Eureka that requires client certificates.

use std::{
    fs,
    path::{Path, PathBuf},
};

use discovery::registry::{self, Check, RegistryError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testkit::registries::{CommandLine, Launch, Place, Server};
use tokio::net::TcpStream;

use crate::{
    sets::{ids, registration, until, within},
    support::{ID, LIMIT, client, registered, watch},
};

/// A Eureka with HTTPS only.
struct TlsEureka {
    /// PEM files: the authority, and a certificate and its key that are the server's and the client's.
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Launch for TlsEureka {
    const NAME: &'static str = "eureka";
    const VARIABLE: &'static str = "EUREKA_HOME";

    fn command(&self, place: &Place) -> anyhow::Result<CommandLine> {
        let (classes, jars) = (place.home.join("classes"), place.home.join("lib/*"));
        let setting = |name: &str, file: &Path| format!("--server.ssl.{name}={}", file.display());
        let line = CommandLine::java(&[&classes, &jars], "discovery.EurekaServer", 256);
        Ok(line
            .arg(format!("--server.port={}", place.ports[0]))
            // Its only peer is itself. By default it sends registrations to localhost:8761.
            .arg("--eureka.instance.hostname=127.0.0.1")
            .arg(format!(
                "--eureka.client.service-url.defaultZone=https://{}/eureka/",
                place.address()
            ))
            .arg(setting("certificate", &self.certificate))
            .arg(setting("certificate-private-key", &self.key))
            .arg(setting("trust-certificate", &self.ca))
            .args([
                "--server.ssl.client-auth=need",
                "--server.address=127.0.0.1",
                "--eureka.client.register-with-eureka=false",
                "--eureka.client.fetch-registry=false",
                "--eureka.server.use-read-only-response-cache=false",
                "--eureka.server.response-cache-auto-expiration-in-seconds=2",
            ]))
    }

    fn url(&self, place: &Place) -> String {
        format!("eurekas://{}/eureka", place.address())
    }

    async fn answers(&self, place: &Place) -> bool {
        TcpStream::connect(place.address()).await.is_ok()
    }
}

/// The authority is replaced while the registry is in use, as in a rotation.
async fn certificates_are_read_again(url: &str, dir: &Path, pair: &str) {
    let rotated = dir.join("rotated.pem");
    fs::copy(dir.join("cert.pem"), &rotated).unwrap();
    let url = format!("{url}?ca={}&{pair}", rotated.display());
    let client = client(&url, registration(2, Check::Default));
    let error = client.register().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Unreachable { .. }),
        "{error}"
    );
    fs::copy(dir.join("ca.pem"), &rotated).unwrap();
    client.register().await.unwrap();
    // A file that cannot be used leaves the certificates as they are.
    fs::write(&rotated, "nothing yet").unwrap();
    client.deregister().await.unwrap();
}

#[tokio::test]
async fn a_server_with_tls_is_used_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| dir.path().join(name);
    let (ca, certificate, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key_pair = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key_pair, &authority)
        .unwrap();
    fs::write(&ca, authority.pem()).unwrap();
    fs::write(&certificate, signed.pem()).unwrap();
    fs::write(&key, key_pair.serialize_pem()).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let (ca_file, pair) = (
        shown(&ca),
        format!("cert={}&key={}", shown(&certificate), shown(&key)),
    );
    let other_ca = shown(&certificate);
    let launch = TlsEureka {
        ca,
        certificate,
        key,
    };
    let Some(server) = Server::start(launch).await.unwrap() else {
        return;
    };
    let url = server.url();
    let trusted = format!("{url}?interval=100ms&ca={ca_file}&{pair}");
    let registrar = registered(client(&trusted, registration(8975, Check::Default))).await;
    let (_watch, mut sets) = watch(&trusted);
    until(&mut sets, |set| ids(set) == [ID]).await;
    registrar.deregister(LIMIT).await.unwrap();
    within(LIMIT, sets.wait_for(|set| set.instances.is_empty()))
        .await
        .unwrap();
    // Another authority, and no client certificate.
    for url in [
        format!("{url}?ca={other_ca}&{pair}"),
        format!("{url}?ca={ca_file}"),
    ] {
        let client = client(&url, registration(1, Check::Default));
        let error = client.register().await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Unreachable { .. }),
            "{url}: {error}"
        );
    }
    certificates_are_read_again(&url, dir.path(), &pair).await;
    // Without TLS, the server answers 400.
    let plain = client(
        &url.replace("eurekas", "eureka"),
        registration(1, Check::Default),
    );
    let error = plain.register().await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    let missing = registry::connect("eurekas://localhost?ca=/missing.pem");
    let said = missing.map(drop).unwrap_err().to_string();
    assert!(said.contains("/missing.pem"), "{said}");
}
