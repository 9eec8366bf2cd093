//! The certificates of `scripts/test-ca.sh` with curl and grpcurl.

use super::*;

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
