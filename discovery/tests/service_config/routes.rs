//! Routes: the instances that a call may use.

use super::*;

/// Three servers, of which the third has the tag `canary` and the version 2.
fn with_canary(memory: &Memory) -> StaticRegistry {
    let numbered = memory.servers().iter().enumerate();
    StaticRegistry::new(numbered.map(|(number, server)| {
        let is_canary = number == 2;
        server
            .instance()
            .with_id(number.to_string())
            .with_tags(is_canary.then_some("canary"))
            .with_meta([("version", if is_canary { "2" } else { "1" })])
    }))
}

#[tokio::test(start_paused = true)]
async fn a_split_of_95_to_5_is_kept_over_20_000_calls() {
    let memory = Memory::with_servers(3);
    let split = r#"{"discovery": {"routes": [{"name": [{"service": "pb.Trim"}], "split": [
        {"weight": 95, "metadata": {"version": "1"}}, {"weight": 5, "metadata": {"version": "2"}}]}]}}"#;
    let builder = Channel::from_registry(Arc::new(with_canary(&memory)), "trim_service")
        .factory(memory.clone())
        .service_config(config(split));
    let (_, mut client) = built(builder).await;
    for _ in 0..20_000 {
        call(&mut client).await.unwrap();
    }
    let canary = memory.servers()[2].calls();
    assert!(canary.abs_diff(1_000) <= 100, "{canary} of 20000 calls");
}

#[tokio::test(start_paused = true)]
async fn a_header_sends_a_call_to_the_canary_and_elsewhere_while_it_cannot_take_it() {
    let memory = Memory::with_servers(3);
    let registry = with_canary(&memory);
    let routes = r#"{"discovery": {"routes": [
        {"metadata": {"x-canary": "strict"}, "split": [{"tags": ["canary"], "fallback": false}]},
        {"metadata": {"x-canary": null}, "split": [{"tags": ["canary"]}]},
        {"split": [{"metadata": {"version": "1"}}]}
    ]}}"#;
    let builder = Channel::from_registry(Arc::new(registry.clone()), "trim_service")
        .factory(memory.clone())
        .service_config(config(routes));
    let (channel, client) = built(builder).await;
    let call = async |canary: Option<&'static str>| {
        let mut request = Request::new(TrimRequest::default());
        if let Some(canary) = canary {
            request
                .metadata_mut()
                .insert("x-canary", canary.parse().unwrap());
        }
        let response = client.clone().trim_space(request).await?;
        let served = response.extensions().get::<ServedBy>().unwrap();
        Ok::<_, Status>(served.0.id.clone())
    };
    for _ in 0..20 {
        assert_eq!(call(Some("yes")).await.unwrap(), "2");
        assert_eq!(call(Some("strict")).await.unwrap(), "2");
        assert_ne!(call(None).await.unwrap(), "2");
    }
    memory.servers()[2].behave(|_| async { Err(Status::unavailable("as set")) });
    assert_ne!(call(Some("yes")).await.unwrap(), "2");
    assert!(call(Some("strict")).await.is_err());
    registry.set(memory.servers()[..2].iter().map(MemoryServer::instance));
    support::eventually(|| channel.endpoints().len() == 2).await;
    call(Some("yes")).await.unwrap();
    let error = call(Some("strict")).await.unwrap_err();
    assert!(
        error.message().contains("is one that the call requires"),
        "{error}"
    );
}
