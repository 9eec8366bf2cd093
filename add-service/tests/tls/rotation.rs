//! Certificates that change while the services run.

use super::*;

#[tokio::test]
async fn certificates_are_renewed_under_load_without_a_failed_call_or_a_lost_connection() {
    let ca = TestCa::new().unwrap();
    for name in ["trim", "add", "caller"] {
        ca.issue(name).unwrap();
    }
    let trims = [
        trim(&server(&ca, "trim")).await,
        trim(&server(&ca, "trim")).await,
    ];
    let add = add(&trims, &[server(&ca, "add"), client(&ca, "add")].concat()).await;
    let client = caller(&add, &ca, Some("caller"));
    eventually("the first answer", LIMIT, async || {
        concat(&mut client.clone()).await.map(drop)
    })
    .await
    .unwrap();
    let ports = [trims[0].grpc.port(), trims[1].grpc.port(), add.grpc.port()];
    let connected = async || match connections(&ports) {
        all if all.len() == 3 => Ok(all),
        other => Err(other),
    };
    let (before, _) = eventually("connections", LIMIT, connected).await.unwrap();

    let tally = Arc::new(Mutex::new((0, Vec::new())));
    let mut callers = JoinSet::new();
    for _ in 0..3 {
        let (mut client, tally) = (client.clone(), Arc::clone(&tally));
        callers.spawn(async move {
            let mut pace = interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                let answer = concat(&mut client).await;
                let mut tally = tally.lock().unwrap();
                tally.0 += 1;
                if !matches!(&answer, Ok(text) if text == "1020") {
                    tally.1.push(format!("{answer:?}"));
                }
            }
        });
    }

    // Certificates of the same authority, then of another one, after all trust both.
    let next = TestCa::new().unwrap();
    let changed = "has changed: the new files are used for new connections";
    let renew: [fn(&TestCa, &TestCa); 3] = [
        |ca, _| {
            for name in ["trim", "add"] {
                ca.issue(name).unwrap();
            }
        },
        |ca, next| ca.write("ca.pem", &(ca.pem() + &next.pem())).unwrap(),
        |ca, next| {
            for name in ["trim", "add"] {
                next.issue_into(ca, name).unwrap();
            }
        },
    ];
    for (number, renew) in (1..).zip(renew) {
        renew(&ca, &next);
        for trim in &trims {
            logged(&trim.process, changed, number).await;
        }
        // Of its own ports, and of its calls.
        logged(&add.process, changed, 2 * number).await;
    }
    let goal = tally.lock().unwrap().0 + 50;
    let more = async || match tally.lock().unwrap().0 {
        calls if calls >= goal => Ok(()),
        calls => Err(calls),
    };
    eventually("calls go on", LIMIT, more).await.unwrap();
    callers.shutdown().await;
    let (calls, failed) = std::mem::take(&mut *tally.lock().unwrap());
    assert!(failed.is_empty(), "of {calls}: {failed:?}");
    assert_eq!(connections(&ports), before, "a connection was made again");

    // New connections have the new certificates, and those of the old authority are no longer shown.
    next.issue("caller").unwrap();
    let mut new = caller(&add, &next, Some("caller"));
    assert_eq!(concat(&mut new).await.unwrap(), "1020");
    let error = concat(&mut caller(&add, &ca, Some("caller"))).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("not signed by a trusted authority"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bad_file_ends_the_start_and_later_leaves_the_old_certificate_in_use() {
    let ca = TestCa::new().unwrap();
    ca.issue("a").unwrap();
    ca.issue("b").unwrap();
    ca.write("empty.pem", "").unwrap();
    let binary = service_binary("trim-service").await.unwrap();
    for (cert, key, reason) in [
        ("a.pem", "none.key", "cannot read the TLS key "),
        ("a.pem", "a.pem", "has no usable private key"),
        (
            "empty.pem",
            "a.key",
            "has no certificate (BEGIN CERTIFICATE)",
        ),
        ("a.pem", "b.key", "cannot be used together"),
    ] {
        let flags = ["--tls-cert", &ca.path(cert), "--tls-key", &ca.path(key)].map(str::to_owned);
        let mut process = Process::spawn(&binary, &flags).unwrap();
        assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(1));
        let said = process.stderr();
        assert!(
            said.contains(reason) && said.contains(&ca.path("")),
            "{said}"
        );
    }

    let add = add(&[], &without_clients(&ca, "a")).await;
    let sums = async || {
        caller(&add, &ca, None)
            .sum(proto::SumRequest { a: 1, b: 2 })
            .await
    };
    assert_eq!(sums().await.unwrap().into_inner().v, 3);
    ca.write("a.pem", "nonsense").unwrap();
    let bad = "has changed and cannot be used: the old one stays: the TLS certificate";
    logged(&add.process, bad, 1).await;
    assert_eq!(sums().await.unwrap().into_inner().v, 3);
    ca.issue("a").unwrap();
    logged(&add.process, "has changed: the new files are used", 1).await;
    assert_eq!(sums().await.unwrap().into_inner().v, 3);
    assert_eq!(
        add.process.stderr().matches(bad).count(),
        1,
        "{}",
        add.process.stderr()
    );
}
