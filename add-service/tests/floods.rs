//! The limits of what one client can take of both services: calls that it does not finish, control frames,
//! and connections that it does not begin. The calls of others succeed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

mod support;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use proto::{SumRequest, TrimRequest, add_client::AddClient, trim_client::TrimClient};
use support::{
    Http, LIMIT, add_alone, connect,
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, FLOW_CONTROL_ERROR,
        HEADERS, PING, RST_STREAM, Raw, SETTINGS, frame, post,
    },
    trims,
};
use testkit::{AddService, Process, TrimService, eventually, http_client, service_binary};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinHandle};

/// Resident memory that one connection may cost, in KiB.
const MEMORY: usize = 64 << 10;

/// Both services.
struct Services {
    add: AddService,
    trim: TrimService,
}

/// A port of a service.
struct Port<'a> {
    address: SocketAddr,
    process: &'a Process,
    path: &'static str,
}

impl Services {
    async fn start() -> Self {
        Self {
            add: add_alone(&[]).await,
            trim: trims(1, &[]).await.remove(0),
        }
    }

    fn ports(&self) -> [Port<'_>; 3] {
        let port = |address, process, path| Port {
            address,
            process,
            path,
        };
        [
            port(self.trim.grpc, &self.trim.process, "/pb.Trim/TrimSpace"),
            port(self.add.grpc, &self.add.process, "/pb.Add/Sum"),
            port(self.add.http, &self.add.process, "/sum"),
        ]
    }
}

/// A field of /proc/PID/status, in KiB.
fn memory(process: &Process, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.unwrap().trim_start_matches(':').trim();
    number.split(' ').next().unwrap().parse().unwrap()
}

/// The maximum of a process's resident memory so far, in KiB.
fn peak(process: &Process) -> usize {
    memory(process, "VmHWM")
}

/// Calls of other clients to all three ports until the end, each on a connection that exists.
struct Others {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Duration>>,
}

impl Others {
    async fn start(services: &Services) -> Self {
        let http = Http::new(&services.add);
        let mut add = AddClient::new(connect(services.add.grpc).await);
        let mut trim = TrimClient::new(connect(services.trim.grpc).await);
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&calls));
        let task = tokio::spawn(async move {
            let mut latencies = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = http.post("/sum", r#"{"a":1,"b":2}"#).await;
                latencies.push(begun.elapsed());
                assert_eq!(answer.text, r#"{"v":3}"#, "{answer:?}");
                let begun = Instant::now();
                let sum = add.sum(SumRequest { a: 1, b: 2 }).await.unwrap();
                latencies.push(begun.elapsed());
                assert_eq!(sum.into_inner().v, 3);
                let begun = Instant::now();
                let text = TrimRequest { s: "1 0".into() };
                let trimmed = trim.trim_space(text).await.unwrap();
                latencies.push(begun.elapsed());
                assert_eq!(trimmed.into_inner().s, "10");
                count.fetch_add(1, Ordering::Relaxed);
            }
            latencies
        });
        Self { stop, calls, task }
    }

    /// Waits for further calls.
    async fn more(&self) {
        let goal = self.calls.load(Ordering::Relaxed) + 3;
        let look = async || self.task.is_finished() || self.calls.load(Ordering::Relaxed) >= goal;
        eventually("others' calls go on", LIMIT, look)
            .await
            .unwrap();
        assert!(!self.task.is_finished(), "a call of another client failed");
    }

    /// All of them have succeeded. Their latency is shown, not required: load can stretch it.
    async fn end(self) {
        self.more().await;
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies = self.task.await.unwrap();
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        println!("{} calls of other clients, p99 {p99:?}", latencies.len());
    }
}

/// The IDs of 100 000 streams.
fn streams() -> impl Iterator<Item = u32> {
    (0..100_000).map(|number| 2 * number + 1)
}

#[tokio::test]
async fn calls_without_an_end_are_refused_and_cost_little_memory() {
    let services = Services::start().await;
    let others = Others::start(&services).await;
    for port in services.ports() {
        // Nothing of the body; a part of the message; and more than others may have in memory.
        for (frames, size) in [(0, 0), (1, 100), (4, 16_000)] {
            let before = memory(port.process, "VmRSS");
            let headers = post(port.path);
            // A message of 1 MB that does not arrive.
            let part = [&[0, 0, 0x0f, 0, 0][..], &vec![b'x'; size]].concat();
            let calls = streams().map(|stream| {
                let mut call = frame(HEADERS, END_HEADERS, stream, &headers);
                for _ in 0..frames {
                    call.extend(frame(DATA, 0, stream, &part));
                }
                call
            });
            let end = Raw::begin(port.address).await.send(calls).await;
            // DATA of a refused stream is an error of flow control too, which h2 may see first.
            let calm = end.go_away == Some(ENHANCE_YOUR_CALM);
            let ended = calm || (frames > 0 && end.go_away == Some(FLOW_CONTROL_ERROR));
            assert!(ended, "{}: {end:?}", port.path);
            let cost = peak(port.process).saturating_sub(before);
            assert!(cost < MEMORY, "{}: {cost} KiB", port.path);
            others.more().await;
        }
    }
    others.end().await;
}

#[tokio::test]
async fn large_messages_in_part_wait_for_one_another_and_all_are_answered() {
    let services = Services::start().await;
    let before = memory(&services.trim.process, "VmRSS");
    let channel = connect(services.trim.grpc).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut client = TrimClient::new(channel.clone());
        calls.spawn(async move {
            let s = format!("{number} ").repeat(200_000);
            let answer = client.trim_space(TrimRequest { s: s.clone() }).await;
            assert_eq!(answer.unwrap().into_inner().s, s.replace(' ', ""));
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    let cost = peak(&services.trim.process).saturating_sub(before);
    assert!(cost < MEMORY * 2, "{cost} KiB");
}

/// Chunks of frames, without an end.
fn forever(frames: impl Fn(u32) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    (0_u32..).map(move |chunk| {
        let stream = |number| 2 * (chunk * 50 + number) + 1;
        (0..50).flat_map(|number| frames(stream(number))).collect()
    })
}

async fn flood(port: &Port<'_>, kind: &str) -> End {
    let raw = Raw::begin(port.address).await;
    let headers = post(port.path);
    let request = |stream, flags| frame(HEADERS, flags, stream, &headers);
    match kind {
        "ping" => raw.send(forever(|_| frame(PING, 0, 0, b"PINGPING"))).await,
        "settings" => raw.send(forever(|_| frame(SETTINGS, 0, 0, &[]))).await,
        "rapid reset" => {
            let call = |stream| {
                let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
                [request(stream, END_HEADERS | END_STREAM), reset].concat()
            };
            raw.send(forever(call)).await
        }
        "empty data" => {
            let first = std::iter::once(request(1, END_HEADERS));
            let data = forever(|_| frame(DATA, 0, 1, &[]));
            raw.send(first.chain(data)).await
        }
        "continuation" => {
            let first = std::iter::once(request(1, 0));
            let more = forever(|_| frame(CONTINUATION, 0, 1, &[]));
            raw.send(first.chain(more)).await
        }
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn a_flood_of_control_frames_ends_its_connection() {
    let services = Services::start().await;
    let others = Others::start(&services).await;
    for port in services.ports() {
        let before = memory(port.process, "VmRSS");
        for kind in [
            "ping",
            "settings",
            "rapid reset",
            "empty data",
            "continuation",
        ] {
            let end = flood(&port, kind).await;
            assert_eq!(end.go_away, Some(ENHANCE_YOUR_CALM), "{kind}: {end:?}");
            others.more().await;
        }
        let cost = peak(port.process).saturating_sub(before);
        assert!(cost < MEMORY, "{}: {cost} KiB", port.path);
    }
    let log = services.add.process.stderr();
    assert!(log.contains("connection ended: a flood of"), "{log}");
    // Ten floods, within the time of a few lines.
    let lines = log.matches("connection ended: a flood of").count();
    assert!(lines < 8, "{log}");
    others.end().await;
}

/// A service with few file descriptors.
async fn with_few_files(name: &str, ports: &str) -> (Process, Vec<SocketAddr>) {
    let binary = service_binary(name).await.unwrap();
    let binary = binary.display();
    let command =
        format!("ulimit -n 200 && exec {binary} --listen 127.0.0.1 --consul 127.0.0.1:1 {ports}");
    let process = Process::spawn(Path::new("/bin/sh"), ["-c", &command]).unwrap();
    let line = process.stdout_line("listening", LIMIT).await.unwrap();
    let fields = line.split(' ').filter_map(|field| field.split_once('='));
    let addresses = fields.filter_map(|(_, value)| value.parse().ok()).collect();
    (process, addresses)
}

/// More connections than the service may open, from the address of the good callers too.
#[tokio::test]
async fn half_said_connections_shut_nobody_out() {
    bootstrap::raise_open_files();
    let (add, addresses) = with_few_files("add-service", "--http-port 0 --grpc-port 0").await;
    let (http, grpc) = (addresses[0], addresses[1]);
    let (trim_process, addresses) = with_few_files("trim-service", "--port 0").await;
    let trim = addresses[0];
    let mut held = Vec::new();
    for address in [http, grpc, trim] {
        for _ in 0..600 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The service may have closed it for the next one.
            let _closed = stream.write_all(b"P").await;
            held.push(stream);
        }
        // Each call on a new connection.
        for _ in 0..20 {
            if address == http {
                let client = http_client().unwrap();
                let call = client.post(format!("http://{http}/sum")).body("{}");
                assert_eq!(call.send().await.unwrap().status(), 200);
            } else if address == grpc {
                let mut client = AddClient::new(connect(grpc).await);
                client.sum(SumRequest { a: 1, b: 2 }).await.unwrap();
            } else {
                let mut client = TrimClient::new(connect(trim).await);
                client.trim_space(TrimRequest::default()).await.unwrap();
            }
        }
    }
    for process in [&add, &trim_process] {
        let files = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
        assert!(files.count() < 200);
        let log = process.stderr();
        assert!(!log.contains("cannot accept a connection"), "{log}");
    }
}
