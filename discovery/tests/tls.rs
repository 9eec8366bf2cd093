//! TLS between a channel and its instances: which servers are trusted, under which name, and the
//! errors when they are not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use discovery::{
    Channel, Instance,
    connection::{Http2, RotatingTls, Tls, TlsError},
    registry::StaticRegistry,
};
use proto::{TrimRequest, trim_client::TrimClient, trim_server::TrimServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use testkit::Trimmer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Code, Status, transport::Server};

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Issued {
    certificate: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key,
        }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority and has no certificate.
    fn client(&self) -> Tls {
        Tls::new().with_ca_pem(self.0.pem())
    }

    /// One that has a certificate.
    fn client_as(&self, issued: &Issued) -> Tls {
        self.client()
            .with_identity_pem(&issued.certificate, issued.key.serialize_pem())
    }

    /// The same as [`client`](Self::client), by rustls's own types.
    fn client_config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }
}

/// The server's side of TLS, with this certificate. It requires client certificates of the
/// authority `clients`, if given.
fn acceptor(issued: &Issued, clients: Option<&Authority>) -> TlsAcceptor {
    // tonic's own TLS settings panic in a build with two crypto providers.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let roots = Arc::new(authority.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A trim server with this certificate.
async fn serve(issued: &Issued, clients: Option<&Authority>) -> SocketAddr {
    let acceptor = acceptor(issued, clients);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpListenerStream::new(listener).then(move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream?).await }
    });
    tokio::spawn(
        Server::builder()
            .add_service(TrimServer::new(Trimmer))
            .serve_with_incoming(incoming.filter(Result::is_ok)),
    );
    address
}

fn channel(addresses: &[SocketAddr], http2: Http2) -> Channel {
    let instances = addresses
        .iter()
        .map(|address| Instance::new(address.ip().to_string(), address.port()).unwrap());
    Channel::from_registry(Arc::new(StaticRegistry::new(instances)), "trim_service")
        .factory(http2)
        // Room for the handshakes of a busy machine.
        .retry_timeout(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

async fn call(channel: &Channel) -> Result<String, Status> {
    let request = TrimRequest { s: "x".to_owned() };
    let response = TrimClient::new(channel.clone()).trim_space(request).await?;
    Ok(response.into_inner().s)
}

/// TLS that verifies the name of the service.
fn as_service(tls: Tls) -> Http2 {
    Http2::new().with_tls(tls.with_domain("trim.test")).unwrap()
}

/// TLS that verifies the address of each instance.
fn as_instance(tls: Tls) -> Http2 {
    Http2::new().with_tls(tls).unwrap()
}

#[tokio::test]
async fn instances_are_trusted_under_the_service_s_name() {
    let authority = Authority::new();
    let issued = authority.issue("trim.test");
    let addresses = [serve(&issued, None).await, serve(&issued, None).await];
    let channel = channel(&addresses, as_service(authority.client()));
    support::eventually(|| channel.status().ready == 2).await;
    for _ in 0..10 {
        assert_eq!(call(&channel).await.unwrap(), "x");
    }
}

#[tokio::test]
async fn a_rustls_configuration_of_one_s_own_does_as_well() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), None).await;
    let tls = Tls::new().with_config(authority.client_config());
    let channel = channel(&[address], as_service(tls));
    assert_eq!(call(&channel).await.unwrap(), "x");
}

#[tokio::test]
async fn the_authority_and_the_verified_name_are_set_apart() {
    let authority = Authority::new();
    let address = name_server(&authority.issue("trim.test")).await;
    let origin = http::Uri::from_static("https://other.test");
    let http2 = as_service(authority.client()).with_origin(origin);
    let status = call(&channel(&[address], http2)).await.unwrap_err();
    assert_eq!(status.message(), "SNI trim.test, authority other.test");
}

#[tokio::test]
async fn tls_runs_on_the_byte_streams_of_a_connector() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), None).await;
    let http2 = as_service(authority.client()).with_connector(move |_| TcpStream::connect(address));
    // Nothing listens at the instance's own address.
    let instance = SocketAddr::from(([127, 0, 0, 1], support::refused_port()));
    assert_eq!(call(&channel(&[instance], http2)).await.unwrap(), "x");
}

/// A server whose answer to every call is a status with the names that the client sent.
async fn name_server(issued: &Issued) -> SocketAddr {
    let acceptor = acceptor(issued, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let sni = stream.get_ref().1.server_name().unwrap().to_owned();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let authority = request.uri().authority().unwrap();
            let message = format!("SNI {sni}, authority {authority}");
            let response = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", Code::NotFound as i32)
                .header("grpc-message", message);
            let response = response.body(()).unwrap();
            respond.send_response(response, true).unwrap();
        }
    });
    address
}

/// Settings, the error they give, and what it names.
type Case = (Tls, fn(&TlsError) -> bool, &'static str);

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let issued = authority.issue("client");
    let key = issued.key.serialize_pem();
    let other = authority.issue("other");
    let tls = || authority.client();
    let with_key = |key: &str| tls().with_identity_pem(&issued.certificate, key);
    let cases: [Case; 9] = [
        (
            Tls::new(),
            |e| matches!(e, TlsError::NoAuthority),
            "with_ca_pem",
        ),
        (
            Tls::new().with_ca_pem("x"),
            |e| matches!(e, TlsError::CaPem(_)),
            "CA",
        ),
        // A key where a certificate is expected.
        (
            tls().with_ca_pem(&key),
            |e| matches!(e, TlsError::CaPem(_)),
            "CA",
        ),
        (
            tls().with_identity_pem("x", &key),
            |e| matches!(e, TlsError::ClientCertificate(_)),
            "client certificate",
        ),
        (
            with_key("x"),
            |e| matches!(e, TlsError::ClientKey(_)),
            "private key",
        ),
        (
            with_key(&other.key.serialize_pem()),
            |e| matches!(e, TlsError::Identity(_)),
            "private key",
        ),
        (
            tls().with_domain("a b"),
            |e| matches!(e, TlsError::Domain { .. }),
            "a b",
        ),
        (
            tls().with_config(authority.client_config()),
            |e| matches!(e, TlsError::Conflict),
            "with_config",
        ),
        (
            Tls::new()
                .with_ca_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            |e| matches!(e, TlsError::Ca(_)),
            "CA",
        ),
    ];
    for (tls, expected, named) in cases {
        let described = format!("{tls:?}");
        assert!(!described.contains("PRIVATE"), "{described}");
        let error = Http2::new().with_tls(tls).unwrap_err();
        assert!(expected(&error), "{described}: {error:?}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn without_a_name_each_instance_answers_for_its_own_address() {
    let authority = Authority::new();
    let own = serve(&authority.issue("127.0.0.1"), None).await;
    let another_s = serve(&authority.issue("127.0.0.9"), None).await;
    let channel = channel(&[own, another_s], as_instance(authority.client()));
    for _ in 0..10 {
        assert_eq!(call(&channel).await.unwrap(), "x");
    }
    assert_eq!(channel.status().ready, 1);
}

#[tokio::test]
async fn an_untrusted_server_is_named_with_the_reason() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), None).await;
    let stranger = Authority::new();
    for (http2, reason) in [
        (as_service(stranger.client()), "invalid peer certificate"),
        (as_instance(authority.client()), "not valid for name"),
        // A client without TLS cannot read the server's answer.
        (Http2::default(), "HTTP/2"),
    ] {
        let error = call(&channel(&[address], http2)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains(reason), "{reason} in: {error}");
        assert!(error.message().contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_client_with_tls_does_not_connect_to_a_server_without() {
    let servers = support::TrimServer::start_many(1).await;
    let authority = Authority::new();
    let fixed = support::fixed(&servers);
    let channel = Channel::from_registry(Arc::new(fixed), "trim_service")
        .factory(as_service(authority.client()))
        .build()
        .unwrap();
    let error = call(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("without TLS?"), "{error}");
}

#[tokio::test]
async fn settings_are_replaced_for_new_connections_and_the_others_stay() {
    let (old, new) = (Authority::new(), Authority::new());
    let before = serve(&old.issue("trim.test"), None).await;
    let after = serve(&new.issue("trim.test"), None).await;
    let tls = RotatingTls::new(old.client().with_domain("trim.test")).unwrap();
    let http2 = Http2::new().with_rotating_tls(&tls);
    let first = channel(&[before], http2.clone());
    assert_eq!(call(&first).await.unwrap(), "x");

    let bad = Tls::new().with_ca_pem("no PEM");
    assert!(matches!(tls.replace(bad), Err(TlsError::CaPem(_))));
    assert_eq!(call(&channel(&[before], http2.clone())).await.unwrap(), "x");

    tls.replace(new.client().with_domain("trim.test")).unwrap();
    assert_eq!(call(&channel(&[after], http2.clone())).await.unwrap(), "x");
    let error = call(&channel(&[before], http2)).await.unwrap_err();
    let reason = "the server's certificate is not signed by a trusted authority";
    assert!(error.message().contains(reason), "{error}");
    assert_eq!(call(&first).await.unwrap(), "x");
}

#[tokio::test]
async fn a_server_can_ask_for_the_client_s_certificate() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), Some(&authority)).await;
    let welcome = authority.client_as(&authority.issue("client"));
    let welcome = channel(&[address], as_service(welcome));
    assert_eq!(call(&welcome).await.unwrap(), "x");

    let anonymous = channel(&[address], as_service(authority.client()));
    let error = call(&anonymous).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    // TLS 1.3 rejects after the handshake: the instance must not count as connected.
    assert_eq!(anonymous.status().ready, 0);
    let reason = "the server requires a client certificate";
    assert!(error.message().contains(reason), "{error}");
}
