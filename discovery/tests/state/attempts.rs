//! The attempts before an answer.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_answer_has_the_attempts_before_it() {
    let memory = Memory::with_servers(2);
    let registry = Written::of(&memory);
    let channel = connected(&memory, &registry, "attempts").await;
    let send = async |s: &str| {
        let mut client = TrimClient::new(channel.clone());
        let request = TrimRequest { s: s.into() };
        client.trim_space(request).await.unwrap()
    };
    memory.servers()[0].behave(|_| async { Err(Status::unavailable("busy")) });
    let mut retried = 0;
    for _ in 0..2 {
        let response = send("x").await;
        let served = &response.extensions().get::<ServedBy>().unwrap().0;
        assert_eq!(served.port, 2);
        if let Some(EarlierAttempts(earlier)) = response.extensions().get() {
            retried += 1;
            assert_eq!(earlier.len(), 1);
            assert_eq!(earlier[0].instance.port, 1);
            assert_eq!(earlier[0].code, Code::Unavailable);
            assert_eq!(earlier[0].reason, "UNAVAILABLE: busy");
        }
    }
    assert_eq!(retried, 1, "round robin begins with the faulty one once");

    // A status that is not repeated is the answer, and the attempt before it is listed.
    memory.servers()[1].behave(|_| async { Err(Status::not_found("none")) });
    let mut listed = 0;
    for _ in 0..2 {
        let request = http::Request::post("http://any/pb.Trim/TrimSpace").body(
            http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])),
        );
        let mut channel = channel.clone();
        let response = tower::Service::call(&mut channel, request.unwrap())
            .await
            .unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(response.extensions().get::<ServedBy>().unwrap().0.port, 2);
        if let Some(EarlierAttempts(earlier)) = response.extensions().get() {
            listed += 1;
            assert_eq!((earlier.len(), earlier[0].instance.port), (1, 1));
        }
    }
    assert_eq!(listed, 1);
    memory.servers()[1].recover();

    // One that hangs is overtaken, and listed as cancelled.
    memory.servers()[0].fall_silent();
    let mut overtaken = 0;
    for _ in 0..2 {
        let response = send("x").await;
        if let Some(EarlierAttempts(earlier)) = response.extensions().get() {
            overtaken += 1;
            assert_eq!(earlier[0].code, Code::Cancelled, "{earlier:?}");
        }
    }
    assert_eq!(overtaken, 1);
}
