//! The requirements of the gRPC protocol on both servers: health watches, one message per unary request,
//! compression.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{future::pending, net::SocketAddr, time::Duration};

use bootstrap::{Server, Services, compressed};
use proto::{
    ConcatRequest, SumRequest, TrimRequest, TrimResponse,
    add_client::AddClient,
    trim_client::TrimClient,
    trim_server::{Trim, TrimServer},
};
use testkit::{Signal, add_service};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding, metadata::MetadataMap};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{Http, LIMIT, RawCall, add_alone, add_over, connect, trims};

#[tokio::test]
async fn a_health_watch_of_an_unknown_service_stays_open() {
    let mut add = add_alone(&["--drain", "4s"]).await;
    let mut trim = trims(1, &["--drain", "4s"]).await.remove(0);
    for (address, process) in [(add.grpc, &mut add.process), (trim.grpc, &mut trim.process)] {
        let mut client = HealthClient::new(connect(address).await);
        let unknown = HealthCheckRequest {
            service: "no.such.Service".to_owned(),
        };
        let check = client.check(unknown.clone()).await.unwrap_err();
        assert_eq!(check.code(), Code::NotFound, "{check:?}");
        let mut watch = client.watch(unknown).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        let more = timeout(Duration::from_millis(200), watch.message()).await;
        assert!(more.is_err(), "{more:?}");
        process.signal(Signal::SIGTERM).unwrap();
        assert_eq!(watch.message().await.unwrap(), None);
        assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_unary_request_with_two_messages_is_refused() {
    let empty = b"\0\0\0\0\0";
    let add = add_alone(&[]).await;
    let trim = trims(1, &[]).await.remove(0);
    for (address, path) in [
        (add.grpc, "/pb.Add/Sum"),
        (add.grpc, "/pb.Add/Concat"),
        (add.grpc, "/grpc.health.v1.Health/Check"),
        (trim.grpc, "/pb.Trim/TrimSpace"),
        (trim.grpc, "/grpc.health.v1.Health/Check"),
        (trim.grpc, "/grpc.health.v1.Health/Watch"),
    ] {
        let in_one_frame = RawCall::begin(address, path, &[]).await;
        let in_one_frame = in_one_frame.part(&[*empty, *empty].concat());
        let in_two_frames = RawCall::begin(address, path, &[]).await;
        let in_two_frames = in_two_frames.part(empty).part(empty).end();
        for call in [in_one_frame, in_two_frames] {
            let status = call.status().await;
            assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
            assert_eq!(status.message(), "the request has more than one message");
        }
    }
    let one = RawCall::begin(trim.grpc, "/pb.Trim/TrimSpace", &[]).await;
    let status = one.part(empty).end().status().await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
}

fn encoding(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get("grpc-encoding")?;
    Some(value.to_str().unwrap())
}

#[tokio::test]
async fn both_services_accept_compressed_requests_and_answer_in_kind() {
    let trims = trims(1, &[]).await;
    let add = add_over(&trims, &[]).await;
    Http::new(&add).until_ready(1).await;
    let (add, trim) = (connect(add.grpc).await, connect(trims[0].grpc).await);
    for (name, kind) in [
        ("gzip", CompressionEncoding::Gzip),
        ("zstd", CompressionEncoding::Zstd),
    ] {
        let client = AddClient::new(add.clone()).send_compressed(kind);
        let mut client = client.accept_compressed(kind);
        let request = ConcatRequest {
            a: "1 0".to_owned(),
            b: " x".repeat(1_000),
        };
        let answer = client.concat(request).await.unwrap();
        assert_eq!(encoding(answer.metadata()), Some(name));
        assert_eq!(answer.into_inner().v, format!("10{}", "x".repeat(1_000)));

        let client = TrimClient::new(trim.clone()).send_compressed(kind);
        let mut client = client.accept_compressed(kind);
        let request = TrimRequest {
            s: "1 0".to_owned(),
        };
        let answer = client.trim_space(request).await.unwrap();
        assert_eq!(encoding(answer.metadata()), Some(name));
        assert_eq!(answer.into_inner().s, "10");
        // A small message that becomes one above the limit.
        let request = TrimRequest {
            s: "x".repeat(5_000_000),
        };
        let status = client.trim_space(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");

        for channel in [&add, &trim] {
            let client = HealthClient::new(channel.clone()).send_compressed(kind);
            let mut client = client.accept_compressed(kind);
            let request = HealthCheckRequest::default();
            let answer = client.check(request).await.unwrap();
            assert_eq!(encoding(answer.metadata()), Some(name));
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        }
    }
    // A client that does not offer to read it gets no compressed answer.
    let answer = AddClient::new(add).sum(SumRequest { a: 1, b: 2 }).await;
    let answer = answer.unwrap();
    assert_eq!(encoding(answer.metadata()), None);
    assert_eq!(answer.into_inner().v, 3);
}

#[tokio::test]
async fn another_compression_is_unimplemented_and_the_answer_lists_the_supported_ones() {
    let add = add_alone(&[]).await;
    let trim = trims(1, &[]).await.remove(0);
    for (address, path) in [(add.grpc, "/pb.Add/Sum"), (trim.grpc, "/pb.Trim/TrimSpace")] {
        let headers = [("grpc-encoding", "deflate")];
        let call = RawCall::begin(address, path, &headers).await;
        let status = call.part(b"\x01\0\0\0\0").end().status().await;
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        let supported = status.metadata().get("grpc-accept-encoding").unwrap();
        assert_eq!(supported, "gzip,zstd,identity");
    }
}

/// A trim service that passes on how each request was compressed.
struct Recorder(mpsc::UnboundedSender<Option<String>>);

#[tonic::async_trait]
impl Trim for Recorder {
    async fn trim_space(
        &self,
        request: Request<TrimRequest>,
    ) -> Result<Response<TrimResponse>, Status> {
        let seen = encoding(request.metadata()).map(str::to_owned);
        self.0.send(seen).unwrap();
        let s = request.into_inner().s.replace(' ', "");
        Ok(Response::new(TrimResponse { s }))
    }
}

#[tokio::test]
async fn the_add_service_compresses_its_calls_as_its_flag_says() {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let (serving, mut addresses) = mpsc::unbounded_channel::<SocketAddr>();
    let trim = compressed!(TrimServer::new(Recorder(seen)));
    let server = Server::new()
        .grpc(
            ([127, 0, 0, 1], 0),
            Services::new(proto::FILE_DESCRIPTOR_SET).add(trim),
        )
        .on_serving(move |server| Ok(serving.send(server.addresses[0])?));
    tokio::spawn(server.run_until(pending()));
    let address = addresses.recv().await.unwrap().to_string();
    for (flags, expected) in [
        (&[][..], None),
        (&["--trim-compression=off"], None),
        (&["--trim-compression=gzip"], Some("gzip")),
        (&["--trim-compression=zstd"], Some("zstd")),
    ] {
        let flags = [&["--static", &address], flags].concat();
        let add = add_service(&flags).await.unwrap();
        let http = Http::new(&add);
        http.until_ready(1).await;
        let answer = http.post("/concat", r#"{"a":"1 0","b":"2 0"}"#).await;
        assert_eq!(answer.text, r#"{"v":"1020"}"#, "{flags:?}");
        for _ in 0..2 {
            let seen = requests.recv().await.unwrap();
            assert_eq!(seen.as_deref(), expected, "{flags:?}");
        }
    }
}
