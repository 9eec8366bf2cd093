//! TLS between a channel and its instances: who is trusted, under which name, and what is said when
//! somebody is not.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use discovery::{Channel, Instance, connection::Http2, registry::StaticRegistry};
use proto::{
    TrimRequest, TrimResponse,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

struct Echo;

#[tonic::async_trait]
impl Trim for Echo {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let s = request.into_inner().s;
        Ok(Response::new(TrimResponse { s }))
    }
}

/// Signs what its name is trusted for.
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

    /// A client that trusts this authority and shows no certificate.
    fn client(&self) -> ClientConfig {
        builder()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// One that shows a certificate too.
    fn client_as(&self, issued: &Issued) -> ClientConfig {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
        let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::try_from(issued.key.serialize_der()).unwrap();
        builder()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .unwrap()
    }
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

/// A trim server with this certificate; it asks clients for one that the authority has signed.
async fn serve(issued: &Issued, clients: Option<&Authority>) -> SocketAddr {
    let identity = Identity::from_pem(&issued.certificate, issued.key.serialize_pem());
    let mut config = ServerTlsConfig::new().identity(identity);
    if let Some(authority) = clients {
        config = config.client_ca_root(Certificate::from_pem(authority.0.pem()));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder().tls_config(config).unwrap();
    tokio::spawn(
        server
            .add_service(TrimServer::new(Echo))
            .serve_with_incoming(TcpListenerStream::new(listener)),
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

/// TLS under the service's name, whichever instance it is.
fn as_service(config: ClientConfig) -> Http2 {
    Http2::default().tls(config, Some(ServerName::try_from("trim.test").unwrap()))
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
async fn without_a_name_each_instance_answers_for_its_own_address() {
    let authority = Authority::new();
    let own = serve(&authority.issue("127.0.0.1"), None).await;
    let another_s = serve(&authority.issue("127.0.0.9"), None).await;
    let channel = channel(
        &[own, another_s],
        Http2::default().tls(authority.client(), None),
    );
    for _ in 0..10 {
        assert_eq!(call(&channel).await.unwrap(), "x");
    }
    assert_eq!(channel.status().ready, 1);
}

#[tokio::test]
async fn a_server_that_nobody_trusts_is_named_with_the_reason() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), None).await;
    let stranger = Authority::new();
    for (http2, reason) in [
        (as_service(stranger.client()), "invalid peer certificate"),
        (
            Http2::default().tls(authority.client(), None),
            "not valid for name",
        ),
        // To a client without TLS the server's answer is noise.
        (Http2::default(), "HTTP/2"),
    ] {
        let error = call(&channel(&[address], http2)).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(error.message().contains(reason), "{reason} in: {error}");
        assert!(error.message().contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_no_server_to_a_client_with_it() {
    let servers = support::TrimServer::start_many(1).await;
    let authority = Authority::new();
    let fixed = support::fixed(&servers);
    let channel = Channel::from_registry(Arc::new(fixed), "trim_service")
        .factory(as_service(authority.client()))
        .build()
        .unwrap();
    let error = call(&channel).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn a_server_can_ask_for_the_client_s_certificate() {
    let authority = Authority::new();
    let address = serve(&authority.issue("trim.test"), Some(&authority)).await;
    let welcome = authority.client_as(&authority.issue("client"));
    let welcome = channel(&[address], as_service(welcome));
    assert_eq!(call(&welcome).await.unwrap(), "x");

    let nobody = channel(&[address], as_service(authority.client()));
    let error = call(&nobody).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    // With TLS 1.3 the refusal comes after the handshake: it must not count as connected.
    assert_eq!(nobody.status().ready, 0);
    assert!(error.message().contains("ertificate"), "{error}");
}
