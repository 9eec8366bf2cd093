//! TLS between callers, the add service and trim services, with real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeSet,
    env, fs,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    Channel,
    connection::{Http2, Tls},
};
use futures_util::future::join_all;
use proto::{ConcatRequest, add_client::AddClient};
use testkit::{
    AddService, Process, TestCa, TrimService, add_service, eventually, service_binary, trim_service,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, timeout},
};

use crate::support::LIMIT;

/// The flags of a server with the certificate of this name, which requires one of its clients.
fn server(ca: &TestCa, name: &str) -> Vec<String> {
    let mut flags = without_clients(ca, name);
    flags.extend(["--tls-client-ca".to_owned(), ca.path("ca.pem")]);
    flags
}

/// The flags of a server that does not ask its clients.
fn without_clients(ca: &TestCa, name: &str) -> Vec<String> {
    let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
    let (cert, key) = (ca.path(&certificate), ca.path(&key));
    ["--tls-cert".to_owned(), cert, "--tls-key".to_owned(), key].into()
}

/// The flags of calls to trim services.
fn client(ca: &TestCa, name: &str) -> Vec<String> {
    let file = |ending: &str| ca.path(&format!("{name}.{ending}"));
    let [cert, key] = ["--trim-tls-cert", "--trim-tls-key"].map(str::to_owned);
    let mut flags = trusting(ca);
    flags.extend([cert, file("pem"), key, file("key")]);
    flags
}

/// The flags of calls to trim services without a certificate.
fn trusting(ca: &TestCa) -> Vec<String> {
    let authority = ["--trim-tls-ca".to_owned(), ca.path("ca.pem")];
    let name = ["--trim-tls-server-name".to_owned(), "trim.test".to_owned()];
    [authority, name].concat()
}

async fn trim(flags: &[String]) -> TrimService {
    let mut all = vec!["--consul", "127.0.0.1:1"];
    all.extend(flags.iter().map(String::as_str));
    trim_service(&all).await.unwrap()
}

/// An add service that uses these instances, or one that cannot be reached.
async fn add(trims: &[TrimService], flags: &[String]) -> AddService {
    let mut addresses: Vec<_> = trims.iter().map(|trim| trim.grpc.to_string()).collect();
    if addresses.is_empty() {
        addresses.push("127.0.0.1:1".to_owned());
    }
    let addresses = addresses.join(",");
    let mut all = vec!["--static", &addresses];
    all.extend(flags.iter().map(String::as_str));
    add_service(&all).await.unwrap()
}

/// A client of the add service, with the certificate of this name.
fn caller(add: &AddService, ca: &TestCa, name: Option<&str>) -> AddClient<Channel> {
    let mut tls = Tls::new().with_ca_pem(ca.pem()).with_domain("localhost");
    if let Some(name) = name {
        let read = |ending: &str| fs::read(ca.path(&format!("{name}.{ending}"))).unwrap();
        tls = tls.with_identity_pem(read("pem"), read("key"));
    }
    let channel = Channel::builder(format!("static://{}", add.grpc), "add")
        .factory(Http2::new().with_tls(tls).unwrap())
        .retry_timeout(LIMIT)
        .retry_max(1)
        .build();
    AddClient::new(channel.unwrap())
}

async fn concat(client: &mut AddClient<Channel>) -> Result<String, tonic::Status> {
    let (a, b) = ("1 0".to_owned(), "2 0".to_owned());
    let answer = client.concat(ConcatRequest { a, b }).await?;
    Ok(answer.into_inner().v)
}

/// Established connections to these ports, as local and remote port.
fn connections(ports: &[u16]) -> BTreeSet<(String, String)> {
    let wanted: Vec<String> = ports
        .iter()
        .map(|port| format!("0100007F:{port:04X}"))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| wanted.iter().any(|port| port == fields[2]) && fields[3] == "01")
        .map(|fields| (fields[1].to_owned(), fields[2].to_owned()))
        .collect()
}

async fn logged(process: &Process, line: &str, times: usize) {
    let look = async || match process.stderr().matches(line).count() {
        seen if seen >= times => Ok(()),
        _ => Err(process.stderr()),
    };
    eventually(line, LIMIT, look).await.unwrap();
}

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
async fn a_peer_that_is_not_accepted_is_named_with_the_reason_on_both_sides() {
    let (ca, other) = (TestCa::new().unwrap(), TestCa::new().unwrap());
    for name in ["trim", "add"] {
        ca.issue(name).unwrap();
        other.issue(name).unwrap();
    }
    ca.issue_expired("old").unwrap();
    let strange_client = [&trusting(&ca)[..], &client(&other, "add")[4..]].concat();
    let wrong_name = [&trusting(&ca)[..3], &["another.test".to_owned()]].concat();
    let expired = [&trusting(&ca)[..3], &["old.test".to_owned()]].concat();
    let cases = [
        (
            server(&ca, "trim"),
            client(&other, "add"),
            "the server's certificate is not signed by a trusted authority",
            "the client does not accept this server's certificate",
        ),
        (
            server(&ca, "trim"),
            strange_client,
            "the server does not trust the authority of this client's certificate",
            "the client's certificate is not signed by an authority of --tls-client-ca",
        ),
        (
            server(&ca, "trim"),
            trusting(&ca),
            "the server requires a client certificate",
            "the client has no certificate, and --tls-client-auth requires one",
        ),
        (
            without_clients(&ca, "trim"),
            wrong_name,
            "the server's certificate is not for \"another.test\"",
            "TLS handshake failed",
        ),
        (
            without_clients(&ca, "old"),
            expired,
            "the server's certificate has expired",
            "has expired on 2021-01-01T00:00:00Z: peers refuse it",
        ),
        (
            without_clients(&ca, "trim"),
            Vec::new(),
            "the answer is not HTTP/2; does the server expect TLS",
            "the client does not use TLS, which this port expects",
        ),
        (
            Vec::new(),
            trusting(&ca),
            "expect connections without TLS?",
            "the client uses TLS, and this port has none",
        ),
    ];
    join_all(cases.map(async |(of_trim, of_add, at_client, at_server)| {
        let trims = [trim(&of_trim).await];
        let add = add(&trims, &of_add).await;
        logged(&add.process, at_client, 1).await;
        logged(&trims[0].process, at_server, 1).await;
    }))
    .await;
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_where_one_is_optional() {
    let ca = TestCa::new().unwrap();
    for name in ["trim", "add", "caller"] {
        ca.issue(name).unwrap();
    }
    let optional = || {
        [
            server(&ca, "trim"),
            vec!["--tls-client-auth=optional".to_owned()],
        ]
        .concat()
    };
    let trims = [trim(&optional()).await];
    let add = add(&trims, &[optional(), trusting(&ca)].concat()).await;
    for name in [None, Some("caller")] {
        assert_eq!(concat(&mut caller(&add, &ca, name)).await.unwrap(), "1020");
    }
    let other = TestCa::new().unwrap();
    other.issue_into(&ca, "stranger").unwrap();
    let error = concat(&mut caller(&add, &ca, Some("stranger")))
        .await
        .unwrap_err();
    assert!(
        error.message().contains("does not trust the authority"),
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

#[tokio::test]
async fn handshakes_that_are_not_finished_make_room_for_clients() {
    let ca = TestCa::new().unwrap();
    ca.issue("a").unwrap();
    let limit = vec!["--max-connections=5".to_owned()];
    let add = add(&[], &[limit, without_clients(&ca, "a")].concat()).await;
    let mut half = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(add.grpc).await.unwrap();
        // The beginning of a record.
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        half.push(stream);
    }
    let begun = Instant::now();
    let sum = proto::SumRequest { a: 1, b: 2 };
    let answer = caller(&add, &ca, None).sum(sum).await.unwrap();
    assert_eq!(answer.into_inner().v, 3);
    // Far less than the ten seconds of a handshake.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// Runs a program to its end.
async fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("NO_PROXY", "*")
        .env("no_proxy", "*");
    let output = spawn_blocking(move || command.output());
    timeout(LIMIT, output).await.unwrap().unwrap().unwrap()
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}: {out}{err}", output.status)
}

#[tokio::test]
async fn curl_and_grpcurl_trust_the_authority_of_test_ca() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-ca.sh");
    let made = run(script.to_str().unwrap(), &["--name", "add.test", &path("")]).await;
    assert!(made.status.success(), "{}", said(&made));
    let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    let flags = [
        "--static=127.0.0.1:1",
        "--admin-listen=127.0.0.1:0",
        "--tls-cert",
        &cert,
    ];
    let add = add_service(&[&flags[..], &["--tls-key", &key]].concat())
        .await
        .unwrap();

    let url = format!("https://localhost:{}/sum", add.http.port());
    let resolve = format!("localhost:{}:127.0.0.1", add.http.port());
    for version in ["--http1.1", "--http2"] {
        let common = ["-sS", "--cacert", &ca, "--resolve", &resolve, version];
        let call = ["-d", r#"{"a":1,"b":2}"#, "-w", " %{http_version}", &url];
        let answer = run("curl", &[&common[..], &call].concat()).await;
        let number = if version == "--http2" { "2" } else { "1.1" };
        let expected = format!("{{\"v\":3}} {number}");
        assert_eq!(
            String::from_utf8_lossy(&answer.stdout),
            expected,
            "{}",
            said(&answer)
        );
    }
    let untrusted = run("curl", &["-sS", "--resolve", &resolve, &url]).await;
    assert_eq!(untrusted.status.code(), Some(60), "{}", said(&untrusted));
    let plain = run(
        "curl",
        &["-sS", &url.replace("https", "http"), "--resolve", &resolve],
    )
    .await;
    let expected = r#"{"err":"this port expects TLS; use https"}"#;
    assert!(said(&plain).contains(expected), "{}", said(&plain));
    // The port of operators stays plain.
    let health = run("curl", &["-sS", &format!("http://{}/healthz", add.admin)]).await;
    assert_eq!(
        String::from_utf8_lossy(&health.stdout),
        "ok\n",
        "{}",
        said(&health)
    );

    let Some(grpcurl) = env::var("GRPCURL_BIN").ok().filter(|path| !path.is_empty()) else {
        let reason = "GRPCURL_BIN is not set; set it to what scripts/get-grpcurl.sh prints";
        let ci = env::var("CI").is_ok_and(|value| value != "false" && !value.is_empty());
        assert!(!ci, "{reason}");
        eprintln!("SKIPPED: grpcurl: {reason}");
        return;
    };
    let address = format!("localhost:{}", add.grpc.port());
    let call = [
        "-cacert",
        &ca,
        "-d",
        r#"{"a":1,"b":2}"#,
        &address,
        "pb.Add/Sum",
    ];
    let answer = run(&grpcurl, &call).await;
    assert!(said(&answer).contains(r#""v": "3""#), "{}", said(&answer));
    let plain = run(
        &grpcurl,
        &["-plaintext", "-max-time", "2", &address, "list"],
    )
    .await;
    assert!(!plain.status.success(), "{}", said(&plain));
}
