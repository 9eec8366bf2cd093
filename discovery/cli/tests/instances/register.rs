//! `register` with real registries, commands and signals.

use super::*;

fn register(arguments: &[&str], command: &[&str]) -> Process {
    let line = [
        &["register"],
        arguments,
        &["--ip", "127.0.0.1", "--"],
        command,
    ]
    .concat();
    Process::spawn(binary(), line).unwrap()
}

/// A trim service that listens at this port and registers itself nowhere.
fn trim_at<'a>(trim: &'a str, port: &'a str) -> [&'a str; 9] {
    [
        trim,
        "--listen",
        "127.0.0.1",
        "--port",
        port,
        "--consul",
        "127.0.0.1:1",
        "--drain",
        "200ms",
    ]
}

#[tokio::test]
async fn a_command_is_registered_once_it_listens_until_a_signal() {
    let (url, _folder) = folder();
    let [port] = free_ports().unwrap();
    let port = port.to_string();
    let trim = service_binary("trim-service")
        .await
        .unwrap()
        .display()
        .to_string();
    let command = trim_at(&trim, &port);
    let flags = [
        &*url, "--name", "wrapped", "--port", &port, "--tag", "a,b", "--zone", "z1",
    ];
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let mut process = register(&flags, &command);
        let list = until_listed(&url, "wrapped", 1).await;
        assert_eq!(list[0]["id"], format!("wrapped-127.0.0.1-{port}"));
        assert_eq!(list[0]["tags"], json!(["a", "b"]));
        assert_eq!(list[0]["zone"], "z1");
        process.signal(signal).unwrap();
        // The command drains, and ends with its own code.
        ended(&mut process).await.says(
            0,
            &["discovery: registered wrapped-", "discovery: deregistered"],
        );
        until_listed(&url, "wrapped", 0).await;
    }
}

#[tokio::test]
async fn consul_does_not_list_an_instance_before_it_listens() {
    let consul = shared_consul(Consul::options()).await;
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let trim = service_binary("trim-service").await.unwrap();
    let [port] = free_ports().unwrap();
    let port = port.to_string();
    let script = format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo \"waits $i\"; sleep 0.05; done; \
         exec {} --listen 127.0.0.1 --port {port} --consul 127.0.0.1:1 --drain 200ms",
        starts.display(),
        trim.display()
    );
    for check in ["grpc", "default"] {
        let name = format!("late-{check}");
        let flags = [
            &*consul.url(),
            "--name",
            &name,
            "--port",
            &port,
            "--check",
            check,
        ];
        let mut process = register(&flags, &["sh", "-c", &script]);
        process.stdout_line("waits 20", LIMIT).await.unwrap();
        assert!(!process.stderr().contains("registered"), "{check}");
        std::fs::write(&starts, "").unwrap();
        until_listed(&consul.url(), &name, 1).await;
        process.signal(Signal::SIGTERM).unwrap();
        ended(&mut process)
            .await
            .says(0, &["discovery: deregistered"]);
        std::fs::remove_file(&starts).unwrap();
    }
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_command() {
    let (url, _folder) = folder();
    let flags = [&*url, "--name", "brief", "--port", "1", "--check", "none"];
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["/no/such/program"], 127),
    ] {
        assert_eq!(
            ended(&mut register(&flags, command)).await.code,
            code,
            "{command:?}"
        );
        until_listed(&url, "brief", 0).await;
    }
    let unregistrable = ["static://127.0.0.1:1", "--name", "x", "--port", "1"];
    let mut process = register(&unregistrable, &["true"]);
    ended(&mut process)
        .await
        .says(125, &["error: the static list cannot register"]);
}

#[tokio::test]
async fn an_http_check_that_fails_takes_the_instance_out_until_it_passes() {
    let (url, folder) = folder();
    let healthy = folder.path().join("healthy");
    let file = healthy.clone();
    let web = FakeServer::start(move |request| match &*request.path {
        "/health" if file.exists() => Reply::new(200, &[], ""),
        _ => Reply::new(503, &[], ""),
    });
    let port = web.await.map(|web| (web.address().port().to_string(), web));
    let (port, _web) = port.unwrap();
    let mut process = register(
        &[
            &*url,
            "--name",
            "web",
            "--port",
            &port,
            "--check",
            "http",
            "--check-path",
            "/health",
            "--check-interval",
            "50ms",
            "--check-failures",
            "2",
        ],
        &["sleep", "600"],
    );
    until_listed(&url, "web", 0).await;
    std::fs::write(&healthy, "").unwrap();
    until_listed(&url, "web", 1).await;
    std::fs::remove_file(&healthy).unwrap();
    until_listed(&url, "web", 0).await;
    process
        .stderr_line("the check fails: HTTP status 503", LIMIT)
        .await
        .unwrap();
    std::fs::write(&healthy, "").unwrap();
    until_listed(&url, "web", 1).await;
    process.signal(Signal::SIGTERM).unwrap();
    ended(&mut process)
        .await
        .says(143, &["discovery: deregistered"]);
}

#[tokio::test]
async fn consul_and_etcd_learn_of_the_registration_too() {
    let consul = shared_consul(Consul::options()).await;
    let trim = service_binary("trim-service")
        .await
        .unwrap()
        .display()
        .to_string();
    let [port] = free_ports().unwrap();
    let port = port.to_string();
    let command = trim_at(&trim, &port);
    let mut urls = vec![(consul.url(), "grpc")];
    let etcd = Server::start(Etcd).await.unwrap();
    urls.extend(etcd.as_ref().map(|etcd| (etcd.url(), "tcp")));
    for (url, check) in urls {
        let flags = [
            &*url,
            "--name",
            "wrapped",
            "--port",
            &port,
            "--check",
            check,
            "--check-interval",
            "1s",
        ];
        let mut process = register(&flags, &command);
        until_listed(&url, "wrapped", 1).await;
        process.signal(Signal::SIGTERM).unwrap();
        ended(&mut process)
            .await
            .says(0, &["discovery: deregistered"]);
        until_listed(&url, "wrapped", 0).await;
    }
    if let Some(etcd) = &etcd {
        let flags = [
            &*etcd.url(),
            "--name",
            "x",
            "--port",
            &port,
            "--check",
            "grpc",
        ];
        let found = ended(&mut register(&flags, &["true"])).await;
        found.says(125, &["error: ", "etcd does not call instances"]);
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_the_registry() {
    // The registry takes the registration and never answers the deregistration.
    let consul = FakeServer::start(|request| match &*request.path {
        path if path.contains("/deregister/") => Reply::hang(),
        path if path.contains("/register") => Reply::consul(5, ""),
        _ => Reply::hang(),
    });
    let consul = consul.await.unwrap();
    let url = format!("consul://{}", consul.address());
    let flags = [
        &*url,
        "--name",
        "x",
        "--port",
        "1",
        "--check",
        "none",
        "--deregister-timeout",
        "120s",
    ];
    let command = [
        "sh",
        "-c",
        "trap 'echo got it; exit 3' TERM; echo up; while :; do sleep 0.05; done",
    ];
    let process = register(&flags, &command);
    process.stdout_line("up", LIMIT).await.unwrap();
    process.stderr_line("registered x-", LIMIT).await.unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    let asked = async || {
        consul
            .requests()
            .iter()
            .any(|one| one.path.contains("/deregister/"))
    };
    eventually("the deregistration", LIMIT, asked)
        .await
        .unwrap();
    assert!(!process.stdout().contains("got it"));
    process.signal(Signal::SIGTERM).unwrap();
    process
        .stdout_line("got it", Duration::from_secs(20))
        .await
        .unwrap();
}
