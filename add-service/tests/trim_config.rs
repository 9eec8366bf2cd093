//! The policy of calls to trim instances as a file: read at the start, and again while calls are made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use testkit::{AddService, Process, Signal, TrimService, eventually, service_binary};
use tokio::{task::JoinSet, time::interval};

use crate::support::{Http, LIMIT, add_over, trims};

/// A folder with the file.
struct Config {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Config {
    fn new(json: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trim.json");
        fs::write(&path, json).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn flag(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Replaces the file as a whole, as operators' tools do.
    fn replace(&self, json: &str) {
        let other = self.path.with_extension("new");
        fs::write(&other, json).unwrap();
        fs::rename(other, &self.path).unwrap();
    }
}

/// Waits until the service has logged this line so many times.
async fn logged(add: &AddService, line: &str, times: usize) {
    let look = async || match add.process.stderr().matches(line).count() {
        seen if seen >= times => Ok(()),
        _ => Err(add.process.stderr()),
    };
    eventually(line, LIMIT, look).await.unwrap();
}

/// The local ports of established connections to these instances.
fn connections(trims: &[TrimService]) -> BTreeSet<String> {
    let ports: Vec<String> = trims
        .iter()
        .map(|trim| format!("0100007F:{:04X}", trim.grpc.port()))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| ports.iter().any(|port| port == fields[2]) && fields[3] == "01")
        .map(|fields| fields[1].to_owned())
        .collect()
}

/// Calls without a pause: how many, those that failed, and the instances that answered.
#[derive(Default)]
struct Tally {
    calls: usize,
    failed: Vec<String>,
    served: BTreeSet<String>,
}

fn start_calls(http: &Http) -> (JoinSet<()>, Arc<Mutex<Tally>>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut callers = JoinSet::new();
    for _ in 0..3 {
        let (http, tally) = (http.clone(), Arc::clone(&tally));
        callers.spawn(async move {
            let mut pace = interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                let answer = http.post("/concat", r#"{"a":"1 0","b":"2 0"}"#).await;
                let mut tally = tally.lock().unwrap();
                tally.calls += 1;
                if answer.text != r#"{"v":"1020"}"# {
                    tally.failed.push(answer.text.clone());
                }
                let served = answer.header("x-trim-instance").split(',');
                tally.served.extend(served.map(str::to_owned));
            }
        });
    }
    (callers, tally)
}

/// Waits until so many instances answer the calls: the machine may be slow enough for an ejection.
async fn until_served_by(instances: usize, tally: &Mutex<Tally>) {
    let look = async || {
        let goal = {
            let mut tally = tally.lock().unwrap();
            tally.served.clear();
            tally.calls + 40
        };
        let more = async || match tally.lock().unwrap().calls {
            calls if calls >= goal => Ok(()),
            calls => Err(calls),
        };
        eventually("calls go on", LIMIT, more).await.unwrap();
        match tally.lock().unwrap().served.len() {
            served if served == instances => Ok(()),
            served => Err(served),
        }
    };
    eventually("the instances answer", LIMIT, look)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_policy_is_changed_by_file_under_load_without_losing_a_call_or_a_connection() {
    let trims = trims(3, &[]).await;
    let config = Config::new(r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#);
    let add = add_over(&trims, &["--trim-config", config.flag()]).await;
    let http = Http::new(&add);
    http.until_ready(3).await;
    let before = connections(&trims);
    assert_eq!(before.len(), 3);
    let (mut callers, tally) = start_calls(&http);
    let method = |fields: &str| format!(r#"{{"methodConfig": [{{"name": [{{}}], {fields}}}]}}"#);
    let changes = [
        r#"{"loadBalancingConfig": [{"least_request_experimental": {}}]}"#.to_owned(),
        method(r#""timeout": "5s", "waitForReady": true"#),
        method(
            r#""retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", 13]}"#,
        ),
        r#"{"discovery": {"ejection": {"consecutiveTransport": 9}, "balancer": "random"}}"#
            .to_owned(),
        "{}".to_owned(),
    ];
    for (number, json) in (1..).zip(&changes) {
        config.replace(json);
        logged(&add, "trim.json applied", number).await;
        until_served_by(3, &tally).await;
    }
    assert_eq!(connections(&trims), before, "a connection was made again");

    // A subset shows that the file has an effect.
    let subset = r#"{"discovery": {"subset": 1}}"#;
    config.replace(subset);
    logged(&add, "trim.json applied", changes.len() + 1).await;
    until_served_by(1, &tally).await;

    // A bad file changes nothing.
    config.replace("{\n  \"methodConfig\": [{\"timeout\": \"soon\"}]\n}");
    logged(
        &add,
        "the policy stays as it is: cannot use the trim config",
        1,
    )
    .await;
    let place = "line 2, column 32: methodConfig[0].timeout is \"soon\": expected seconds";
    logged(&add, place, 1).await;
    until_served_by(1, &tally).await;

    callers.shutdown().await;
    let tally = tally.lock().unwrap();
    assert!(
        tally.failed.is_empty(),
        "of {}: {:?}",
        tally.calls,
        tally.failed
    );
}

#[tokio::test]
async fn sighup_reads_the_file_again_and_sigterm_ends_the_service() {
    let trims = trims(1, &[]).await;
    let config = Config::new("{}");
    let mut add = add_over(&trims, &["--trim-config", config.flag(), "--drain", "0s"]).await;
    for times in 1..=2 {
        add.process.signal(Signal::SIGHUP).unwrap();
        logged(&add, "trim.json applied", times).await;
    }
    Http::new(&add).until_ready(1).await;
    add.process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(add.process.exit(LIMIT).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn under_nohup_sighup_reads_the_file_too() {
    let config = Config::new("{}");
    let binary = service_binary("add-service").await.unwrap();
    let command = format!(
        "trap '' HUP; exec {} --listen 127.0.0.1 --http-port 0 --grpc-port 0 --static 127.0.0.1:1 \
         --drain 0s --trim-config {}",
        binary.display(),
        config.flag()
    );
    let mut process = Process::spawn(Path::new("/bin/sh"), ["-c", &command]).unwrap();
    process.stdout_line("listening", LIMIT).await.unwrap();
    process.signal(Signal::SIGHUP).unwrap();
    process
        .stderr_line("trim.json applied", LIMIT)
        .await
        .unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.exit(LIMIT).await.unwrap().code(), Some(0));
}

/// Runs the service to its end.
async fn run(flags: &[&str]) -> (Option<i32>, Process) {
    let binary = service_binary("add-service").await.unwrap();
    let mut process = Process::spawn(Path::new(&binary), flags).unwrap();
    let status = process.exit(LIMIT).await.unwrap();
    (status.code(), process)
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_an_error_that_names_the_place_and_what_is_allowed() {
    let config = Config::new("{\n \"retryThrottling\": {\"maxTokens\": 0, \"tokenRatio\": 1}\n}");
    let (code, process) = run(&["--trim-config", config.flag()]).await;
    assert_eq!(code, Some(1));
    let place = "line 2, column 35: retryThrottling.maxTokens is 0: expected a whole number from 1 to \
                 1000";
    assert!(process.stderr().contains(place), "{}", process.stderr());
    let (code, process) = run(&["--trim-config", "/no/such/file"]).await;
    assert_eq!(code, Some(1));
    assert!(
        process.stderr().contains("the trim config /no/such/file"),
        "{}",
        process.stderr()
    );
}

#[tokio::test]
async fn the_policy_in_effect_is_printed_and_is_a_config_with_the_same_effect() {
    let config = Config::new(
        r#"{"methodConfig": [{"name": [{"service": "pb.Trim"}], "timeout": "0.3s"}],
        "loadBalancingConfig": [{"weighted_round_robin": {}}],
        "discovery": {"retryBudget": {"share": 0.25}}}"#,
    );
    let flags = [
        "--print-config",
        "--retry-max",
        "7",
        "--trim-config",
        config.flag(),
    ];
    let (code, process) = run(&flags).await;
    assert_eq!(code, Some(0));
    let printed = process.stdout();
    let policy: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(policy["discovery"]["balancer"], "weighted-round-robin");
    assert_eq!(policy["discovery"]["retryBudget"]["share"], 0.25);
    let methods = policy["methodConfig"].as_array().unwrap();
    let trim = methods
        .iter()
        .find(|entry| entry["name"][0]["method"] == "TrimSpace");
    assert_eq!(trim.unwrap()["timeout"], "0.3s");
    assert_eq!(trim.unwrap()["discovery"]["maxAttempts"], 7);
    assert_eq!(policy["discovery"]["connections"]["tcpKeepAlive"], "10s");
    assert_eq!(trim.unwrap()["discovery"]["idempotent"], true);
    config.replace(&printed);
    let (code, process) = run(&["--print-config", "--trim-config", config.flag()]).await;
    assert_eq!((code, process.stdout()), (Some(0), printed));
}
