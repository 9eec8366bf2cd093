//! Servers that are not ours: nginx, and the one of Python's library.

use std::{env, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use discovery::{
    Instance,
    http::{Channel, Connections},
    registry::StaticRegistry,
};
use http::{Method, header};
use testkit::{Process, eventually as wait, free_ports, registries};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    answer, get,
    memory::{connected, patient},
    post, request, send,
};

const LIMIT: Duration = Duration::from_secs(30);

async fn listens(port: u16, process: &Process) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let connects = async || TcpStream::connect(address).await.is_ok();
    let waited = wait("the server to listen", LIMIT, connects).await;
    waited.unwrap_or_else(|error| panic!("{error}: {}", process.stderr()));
}

async fn channel(port: u16, connections: Connections) -> Channel {
    let instance = Instance::new("127.0.0.1", port).unwrap();
    let registry = StaticRegistry::new([instance]);
    let builder = Channel::from_registry(Arc::new(registry), "files");
    connected(builder.retry(patient()).factory(connections)).await
}

/// The program in the variable, or on `PATH`.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let given = env::var_os(variable).filter(|path| !path.is_empty());
    given.map(PathBuf::from).or_else(|| {
        let paths = env::var_os("PATH")?;
        let mut all = env::split_paths(&paths).map(|folder| folder.join(name));
        all.find(|path| path.is_file())
    })
}

#[tokio::test]
async fn pythons_http_server_serves_over_http_1_0_and_1_1() {
    let Some(python) = program("PYTHON_BIN", "python3") else {
        return registries::skip("Python's http.server", "python3 is not on PATH").unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file.txt"), "contents").unwrap();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let [port] = free_ports().unwrap();
        let process = Process::spawn(
            &python,
            [
                "-m",
                "http.server",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--protocol",
                version,
                "--directory",
                folder.path().to_str().unwrap(),
            ],
        )
        .unwrap();
        listens(port, &process).await;
        let channel = channel(port, Connections::new()).await;
        for _ in 0..10 {
            let (status, text) = answer(&channel, get("/file.txt")).await;
            assert_eq!((status, text.as_str()), (200, "contents"), "{version}");
            let head = send(&channel, request(Method::HEAD, "/file.txt", "")).await;
            assert_eq!(head.unwrap().headers()[header::CONTENT_LENGTH], "8");
            assert_eq!(answer(&channel, get("/none")).await.0, 404);
            // It has no POST.
            assert_eq!(answer(&channel, post("/file.txt")).await.0, 501);
        }
        assert_eq!(channel.endpoints()[0].calls.failed, 0, "{version}");
    }
}

const NGINX: &str = "daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log connections.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 10;
    server {
        listen 127.0.0.1:PORT_OF_HTTP_1;
        listen 127.0.0.1:PORT_OF_HTTP_2 http2;
        location / { return 200 \"by nginx\"; }
        location /busy { add_header Retry-After 2 always; return 503 \"busy\"; }
        location /moved { return 301 /; }
        location /dead { proxy_pass http://127.0.0.1:1; }
    }
}
";

#[tokio::test]
async fn nginx_serves_over_both_versions_and_ends_connections_after_ten_requests() {
    let Some(nginx) = program("NGINX_BIN", "nginx") else {
        return registries::skip(
            "nginx",
            "NGINX_BIN is not set; scripts/get-nginx.sh fetches one",
        )
        .unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = free_ports().unwrap();
    let text = NGINX
        .replace("PORT_OF_HTTP_1", &one.to_string())
        .replace("PORT_OF_HTTP_2", &two.to_string());
    let file = folder.path().join("nginx.conf");
    fs::write(&file, text).unwrap();
    let folder = folder.path().to_str().unwrap();
    let process = Process::spawn(&nginx, ["-p", folder, "-c", file.to_str().unwrap()]).unwrap();
    listens(one, &process).await;
    for (port, connections) in [
        (one, Connections::new()),
        (two, Connections::new().with_http2_only()),
    ] {
        let channel = channel(port, connections).await;
        for _ in 0..50 {
            assert_eq!(
                answer(&channel, get("/")).await,
                (200, "by nginx".to_owned())
            );
            assert_eq!(answer(&channel, post("/")).await.0, 200);
        }
        assert_eq!(channel.endpoints()[0].calls.failed, 0, "{port}");
        assert_eq!(answer(&channel, get("/moved")).await.0, 301);
        // The only instance: its answer is the caller's, without another request.
        let begun = Instant::now();
        let (status, text) = answer(&channel, get("/busy")).await;
        assert_eq!((status, text.as_str()), (503, "busy"));
        assert!(begun.elapsed() < Duration::from_secs(2));
        let (status, text) = answer(&channel, get("/dead")).await;
        assert_eq!(status, 502);
        assert!(text.contains("nginx"), "{text}");
    }
}
