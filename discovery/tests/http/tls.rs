//! TLS: the server chooses the version of HTTP (ALPN).

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use discovery::{
    Instance,
    connection::Tls,
    http::{Channel, Connections},
    registry::StaticRegistry,
};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    answer, get,
    memory::{connected, patient},
    post,
};

/// A server that agrees on one of these protocols. Returns its certificate.
async fn server(protocols: &'static [&'static str]) -> (SocketAddr, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                let service = service_fn(async |request: Request<Incoming>| {
                    let version = format!("{:?}", request.version());
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(
                        version,
                    ))))
                });
                let ended = if is_http2 {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(stream, service).await
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    builder.serve_connection(stream, service).await
                };
                ended.map_err(std::io::Error::other)
            });
        }
    });
    (address, cert.pem())
}

#[tokio::test]
async fn the_server_chooses_http_2_or_http_1_1_and_the_operator_can_exclude_either() {
    let all = &["h2", "http/1.1"][..];
    for (protocols, limit, expected) in [
        (all, "", "HTTP/2.0"),
        (&["http/1.1"], "", "HTTP/1.1"),
        (&[], "", "HTTP/1.1"),
        (all, "http1", "HTTP/1.1"),
        (all, "http2", "HTTP/2.0"),
    ] {
        let (address, certificate) = server(protocols).await;
        let connections = Connections::new()
            .with_tls(Tls::new().with_ca_pem(certificate))
            .unwrap();
        let connections = match limit {
            "http1" => connections.with_http1_only(),
            "http2" => connections.with_http2_only(),
            _ => connections,
        };
        let instance = Instance::new("127.0.0.1", address.port()).unwrap();
        let registry = Arc::new(StaticRegistry::new([instance]));
        let builder = Channel::from_registry(registry, "orders");
        let builder = builder.retry(patient()).factory(connections);
        let channel = connected(builder).await;
        for _ in 0..5 {
            assert_eq!(answer(&channel, get("/")).await, (200, expected.to_owned()));
            assert_eq!(answer(&channel, post("/")).await.0, 200);
        }
    }
}
