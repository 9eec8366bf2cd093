//! An ejection, as snapshots and events show it.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_ejection_says_why_and_until_when_and_its_end_is_an_event() {
    let memory = Memory::with_servers(3);
    let registry = Written::of(&memory);
    let channel = connected(&memory, &registry, "ejection").await;
    let mut events = channel.events();
    memory.servers()[0].behave(|_| async { Err(Status::unavailable("faulty")) });
    while !of(&channel, 1).ejected {
        call(&channel).await.unwrap();
    }
    let (reason, time) = next(&mut events, |kind| match kind {
        ChannelEventKind::Ejected {
            instance,
            reason,
            time,
        } if instance.port == 1 => Some((reason, time)),
        _ => None,
    })
    .await;
    assert_eq!(reason, "too many bad statuses in a row");
    let ejection = of(&channel, 1).ejection.unwrap();
    assert_eq!(
        (ejection.phase, ejection.reason, ejection.ejections),
        (EjectionPhase::Ejected, reason, 1)
    );
    let left = ejection.until.unwrap() - tokio::time::Instant::now().into_std();
    assert!(
        left <= time && time == EjectionPolicy::default().base_time,
        "{left:?} of {time:?}"
    );
    assert!(of(&channel, 2).ejection.is_none());

    // The probe passes and the trial call fails: the ejection is longer, and says so.
    let calls = async {
        loop {
            call(&channel).await.unwrap();
            sleep(50 * MS).await;
        }
    };
    let longer = next(&mut events, |kind| match kind {
        ChannelEventKind::Ejected { reason, time, .. } => Some((reason, time)),
        _ => None,
    });
    let again = tokio::select! {
        () = calls => unreachable!(),
        again = longer => again,
    };
    let policy = EjectionPolicy::default();
    assert_eq!(
        again,
        ("its probe or trial call failed", 2 * policy.base_time)
    );
    assert_eq!(of(&channel, 1).ejection.unwrap().ejections, 2);

    memory.servers()[0].recover();
    let calls = async {
        loop {
            call(&channel).await.unwrap();
            sleep(50 * MS).await;
        }
    };
    let order = async {
        next(&mut events, |kind| {
            matches!(kind, ChannelEventKind::Probation { .. }).then_some(())
        })
        .await;
        next(&mut events, |kind| {
            matches!(kind, ChannelEventKind::Admitted { .. }).then_some(())
        })
        .await;
    };
    tokio::select! {
        () = calls => unreachable!(),
        () = order => {}
    }
    let back = of(&channel, 1);
    assert!(
        !back.ejected && back.share < 1.0,
        "the slow start: {back:?}"
    );
    sleep(policy.slow_start).await;
    assert!((of(&channel, 1).share - 1.0).abs() < f64::EPSILON);
}
