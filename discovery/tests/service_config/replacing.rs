//! A config that replaces another one while the channel is in use.

use super::*;

#[tokio::test(start_paused = true)]
async fn another_config_holds_for_new_calls_and_loses_no_call_and_no_connection() {
    let memory = Memory::with_servers(3);
    for server in memory.servers() {
        server.behave(|_| async {
            sleep(200 * MS).await;
            Ok(())
        });
    }
    let slow = method(r#""timeout": "1s""#);
    let (channel, mut client) = built(builder(&memory).service_config(slow)).await;
    let mut under_way = client.clone();
    let under_way = tokio::spawn(async move { call(&mut under_way).await });
    sleep(50 * MS).await;
    channel
        .set_service_config(method(r#""timeout": "0.1s""#))
        .unwrap();
    let error = call(&mut client).await.unwrap_err();
    assert!(error.message().contains("within 100ms"), "{error}");
    under_way.await.unwrap().unwrap();

    memory.servers().iter().for_each(MemoryServer::recover);
    for json in [
        r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#,
        r#"{"discovery": {"balancer": "least-request", "retryBudget": {"reserve": 1}}}"#,
        r#"{"discovery": {"locality": {"zone": "a"}, "ejection": {"slowStart": "1s"}}}"#,
        r#"{"loadBalancingConfig": [{"ring_hash_experimental": {}}]}"#,
        "{}",
    ] {
        channel.set_service_config(config(json)).unwrap();
        let mut served = HashSet::new();
        for _ in 0..60 {
            served.insert(call(&mut client).await.unwrap());
        }
        assert_eq!(served.len(), 3, "{json}");
    }
    for server in memory.servers() {
        assert_eq!(server.connections_made(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_subset_connects_to_its_instances_only() {
    let memory = Memory::with_servers(8);
    let subset = |size: u32| {
        let child = r#""childPolicy": [{"round_robin": {}}]"#;
        config(&format!(
            r#"{{"loadBalancingConfig": [{{"random_subsetting": {{"subsetSize": {size}, {child}}}}}]}}"#
        ))
    };
    let (channel, mut client) = built(builder(&memory).service_config(subset(3))).await;
    assert_eq!(channel.endpoints().len(), 3);
    for size in [6, 2] {
        let before: Vec<_> = channel
            .endpoints()
            .iter()
            .map(|e| e.instance.id.clone())
            .collect();
        channel.set_service_config(subset(size)).unwrap();
        let size = size as usize;
        support::eventually(|| channel.status().ready == size && channel.endpoints().len() == size)
            .await;
        let after: Vec<_> = channel
            .endpoints()
            .iter()
            .map(|e| e.instance.id.clone())
            .collect();
        let same = after.iter().filter(|id| before.contains(id)).count();
        assert_eq!(same, size.min(before.len()), "{before:?} became {after:?}");
        let mut served = HashSet::new();
        for _ in 0..20 {
            served.insert(call(&mut client).await.unwrap());
        }
        assert_eq!(served.len(), size);
    }
}

#[tokio::test(start_paused = true)]
async fn ejection_that_is_turned_off_brings_ejected_instances_back() {
    let memory = Memory::with_servers(2);
    let ejecting = r#"{"discovery": {"ejection": {"enabled": true, "consecutiveStatus": 2, "baseTime": "60s"}}}"#;
    let (channel, mut client) = built(builder(&memory).service_config(config(ejecting))).await;
    let faulty = &memory.servers()[0];
    faulty.behave(|_| async { Err(Status::unavailable("faulty")) });
    for _ in 0..8 {
        call(&mut client).await.unwrap();
    }
    let ejected = || channel.endpoints().iter().filter(|it| it.ejected).count();
    support::eventually(|| ejected() == 1).await;
    faulty.recover();
    let before = faulty.calls();
    channel.set_service_config(config("{}")).unwrap();
    support::eventually(|| ejected() == 0).await;
    for _ in 0..10 {
        call(&mut client).await.unwrap();
    }
    assert_eq!(faulty.calls() - before, 5);
}

#[tokio::test(start_paused = true)]
async fn a_config_that_cannot_work_with_the_builders_settings_is_refused_and_the_old_one_stays() {
    let memory = Memory::with_servers(1);
    let hour = r#"{"discovery": {"ejection": {"baseTime": "3600s"}}}"#;
    let error = builder(&memory)
        .service_config(config(hour))
        .build()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("ejection base_time is 3600s: must be at most"),
        "{error}"
    );
    let (channel, _) = built(builder(&memory).balancer(Policy::Random)).await;
    let before = channel.effective_config();
    assert!(channel.set_service_config(config(hour)).is_err());
    assert_eq!(channel.effective_config(), before);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_config_is_an_event_and_one_that_is_equal_or_refused_is_not() {
    let memory = Memory::with_servers(1);
    let (channel, _) = built(builder(&memory)).await;
    let mut events = channel.events();
    let changed = method(r#""timeout": "0.1s""#);
    channel.set_service_config(changed.clone()).unwrap();
    channel.set_service_config(changed).unwrap();
    let refused = config(r#"{"discovery": {"ejection": {"baseTime": "3600s"}}}"#);
    assert!(channel.set_service_config(refused).is_err());
    channel.set_service_config(config("{}")).unwrap();
    drop(channel);
    let mut seen = Vec::new();
    while let Ok(event) = events.next().await {
        assert!(event.kind.instance().is_none());
        seen.push(format!("{:?}", event.kind));
    }
    assert_eq!(seen, ["ConfigChanged", "ConfigChanged"]);
}
