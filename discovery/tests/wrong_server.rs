//! Servers that do not have the method: another service behind a registered address, or a web server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use discovery::{BoxError, Channel, ChannelBuilder, connection::TransportBody};
use http::Response;
use http_body_util::{BodyExt as _, Full};
use proto::{TrimRequest, trim_client::TrimClient};
use support::scripted::Scripted;
use testkit::{grpc_message, grpc_status};
use tonic::{Code, Status};

/// Number of instances.
const COUNT: u16 = 3;

/// The answer of a server that does not have the method.
type Wrong = fn() -> Response<TransportBody>;

/// Three servers, the first of which are wrong in the same way.
struct Servers {
    calls: Arc<[AtomicUsize; COUNT as usize]>,
    factory: Scripted,
}

impl Servers {
    fn new(wrong: u16, answer: Wrong) -> Self {
        let calls = Arc::<[AtomicUsize; COUNT as usize]>::default();
        let counted = Arc::clone(&calls);
        let factory = Scripted::new(move |port| {
            counted[usize::from(port) - 1].fetch_add(1, Ordering::SeqCst);
            async move {
                // The clock moves, so that windows of time end.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                Ok(if port <= wrong {
                    answer()
                } else {
                    grpc_message(&[0; 5])
                })
            }
        });
        Self { calls, factory }
    }

    fn builder(&self) -> ChannelBuilder {
        Channel::from_registry(Scripted::registry(COUNT), "trim_service")
            .factory(self.factory.clone())
    }

    async fn channel(&self, builder: ChannelBuilder) -> Channel {
        let channel = builder.build().unwrap();
        let all = |status: &discovery::ChannelStatus| status.ready == usize::from(COUNT);
        channel.wait_for(all).await.unwrap();
        channel
    }

    fn calls(&self) -> [usize; COUNT as usize] {
        [0, 1, 2].map(|index: usize| self.calls[index].load(Ordering::SeqCst))
    }
}

async fn call(channel: &Channel) -> Result<(), Status> {
    let mut client = TrimClient::new(channel.clone());
    client.trim_space(TrimRequest::default()).await.map(drop)
}

fn page(status: u16) -> Response<TransportBody> {
    let body = Full::from("<html>").map_err(BoxError::from).boxed_unsync();
    Response::builder()
        .status(status)
        .header("content-type", "text/html")
        .body(body)
        .unwrap()
}

fn unimplemented() -> Response<TransportBody> {
    grpc_status(12)
}

#[tokio::test(start_paused = true)]
async fn the_wrong_server_is_passed_over_and_ejected() {
    let answers: [Wrong; 4] = [unimplemented, || page(404), || page(502), || page(200)];
    for answer in answers {
        let servers = Servers::new(1, answer);
        // One attempt, and the method is not declared idempotent.
        let channel = servers.channel(servers.builder().retry_max(1)).await;
        for _ in 0..300 {
            call(&channel).await.unwrap();
        }
        let [wrong, ..] = servers.calls();
        assert!(
            (5..=12).contains(&wrong),
            "the wrong server received {wrong}"
        );
        assert!(channel.endpoints()[0].ejected);
    }
}

#[tokio::test(start_paused = true)]
async fn two_wrong_servers_of_three_fail_no_call() {
    let servers = Servers::new(2, unimplemented);
    let channel = servers.channel(servers.builder()).await;
    for _ in 0..100 {
        call(&channel).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_all_say_is_the_callers_answer() {
    for (answer, code) in [
        (unimplemented as Wrong, Code::Unimplemented),
        (|| page(404), Code::Unimplemented),
        (|| page(502), Code::Unavailable),
        (|| page(200), Code::Unknown),
    ] {
        let servers = Servers::new(COUNT, answer);
        let channel = servers.channel(servers.builder()).await;
        for nth in 1..=20 {
            let status = call(&channel).await.unwrap_err();
            assert_eq!(status.code(), code, "{status}");
            assert_eq!(servers.calls(), [nth; COUNT as usize]);
        }
        assert!(channel.endpoints().iter().all(|endpoint| !endpoint.ejected));
    }
}
