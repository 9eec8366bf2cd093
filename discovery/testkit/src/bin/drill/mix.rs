//! The Go kit pair and the project's services through one Consul: both add services call the trim
//! services of both kinds, while one of each is ended.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use testkit::{Signal, Table, eventually};

use crate::{
    client::Client,
    env::{Env, Instances},
    faults::Story,
    gokit::{GoAdd, GoTrim},
    judge::{Demand, Evidence, Outcome},
    load::{Callers, Load, send},
    protocol::Protocol,
    registry::{Kind, Registry},
};

/// Trim services of each kind.
const EACH: usize = 2;
const ALL: usize = 2 * EACH;
/// Calls of which each instance serves an equal share. A call trims two texts.
const ROTATION: usize = 40;
/// Times that the rotation is looked at, until it is exact.
const ROTATION_TRIES: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);

/// The processes of the mix.
struct Mix<'a> {
    binary: &'a Path,
    env: Env,
    go_trims: Vec<GoTrim>,
    go_add: GoAdd,
}

/// The events of the trim services under load.
#[derive(Clone, Copy, Debug)]
enum Event {
    Rust(Signal),
    Go(Signal),
    /// Connections to the Go services end at an age (grpc-go's `MaxConnectionAge`).
    GoAge(&'static str),
}

const EVENTS: [(&str, Event); 5] = [
    ("SIGTERM of a Rust trim", Event::Rust(Signal::SIGTERM)),
    ("SIGTERM of a Go trim", Event::Go(Signal::SIGTERM)),
    ("SIGKILL of a Rust trim", Event::Rust(Signal::SIGKILL)),
    ("SIGKILL of a Go trim", Event::Go(Signal::SIGKILL)),
    ("Go connections of 700 ms", Event::GoAge("700ms")),
];

/// Runs the mix and prints a table. Returns true if every requirement was met: the exact rotation of
/// both add services, and no failed call of the Rust one.
pub(crate) async fn run(binary: &Path, length: Duration, rate: u32) -> Result<bool> {
    let mut mix = Mix::start(binary).await?;
    let mut table = Table::new(["event", "add", "calls", "failed", "p50 ms", "p99 ms", ""]);
    let mut complaints = mix.rotation().await?;
    for (name, event) in EVENTS {
        eprintln!("     {name}");
        let (mut rust, mut go) = mix.event(event, length, rate).await?;
        // Go kit's own failures are reported only.
        go.complaints.clear();
        complaints.append(&mut rust.complaints);
        for (add, outcome) in [("Rust", rust), ("Go", go)] {
            table.row(cells(name, add, &outcome));
        }
    }
    complaints.extend(mix.rotation().await?);
    for complaint in &complaints {
        eprintln!("     FAILED: {complaint}");
    }
    println!("{table}");
    Ok(complaints.is_empty())
}

impl<'a> Mix<'a> {
    async fn start(binary: &'a Path) -> Result<Self> {
        let registry = Registry::start(Kind::Consul, None).await?;
        let env = Env::start(
            Instances::Trims(EACH, &[]),
            registry,
            Client::Discovery,
            Protocol::Grpc,
            &[],
        )
        .await?;
        let consul = env.registry.consul()?.address();
        let mut go_trims = Vec::new();
        for _ in 0..EACH {
            go_trims.push(GoTrim::start(binary, &consul, &[]).await?);
        }
        let mix = Self {
            binary,
            go_add: GoAdd::start(binary, "add", &consul).await?,
            env,
            go_trims,
        };
        mix.ready().await?;
        Ok(mix)
    }

    /// Waits until both add services use all trim services.
    async fn ready(&self) -> Result<()> {
        self.env.ready(ALL).await?;
        for http in [self.env.add.http(), self.go_add.http] {
            eventually(
                "a rotation over all trim services",
                LIMIT,
                async || match self.served(http, ALL).await {
                    Ok(served) if served.len() == ALL => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Makes calls one after another. Returns how many texts each instance has trimmed.
    async fn served(&self, http: SocketAddr, calls: usize) -> Result<BTreeMap<String, usize>> {
        let url = format!("http://{http}/concat");
        let mut served = BTreeMap::new();
        for _ in 0..calls {
            let instances = send(&self.env.client, &url, "1S").await;
            for id in instances.map_err(anyhow::Error::msg)?.split(',') {
                *served.entry(id.to_owned()).or_default() += 1;
            }
        }
        Ok(served)
    }

    /// The complaint about each add service whose rotation is not exact.
    async fn rotation(&self) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        for (add, http) in [("Rust", self.env.add.http()), ("Go", self.go_add.http)] {
            let mut served = BTreeMap::new();
            let mut exact = false;
            // A busy machine may delay an answer so long that a second attempt begins elsewhere.
            for _ in 0..ROTATION_TRIES {
                served = self.served(http, ROTATION).await?;
                eprintln!("     rotation of the {add} add: {served:?}");
                exact = served.len() == ALL && served.values().all(|n| *n == 2 * ROTATION / ALL);
                if exact {
                    break;
                }
            }
            if !exact {
                complaints.push(format!(
                    "the rotation of the {add} add is not exact: {served:?}"
                ));
            }
        }
        Ok(complaints)
    }

    /// Restarts the trim services in Go, on their ports and with these flags.
    async fn restart_go(&mut self, flags: &[&str]) -> Result<()> {
        let consul = self.env.registry.consul()?.address();
        for trim in &mut self.go_trims {
            trim.process.signal(Signal::SIGTERM)?;
            let status = trim.process.exit(LIMIT).await?;
            ensure!(status.success(), "a Go trim service ended with {status}");
            *trim = start_again(trim.port, self.binary, &consul, flags).await?;
        }
        Ok(())
    }

    /// Loads both add services while the event takes place, and restores what it has ended. Returns the
    /// results of the Rust add and of the Go one.
    async fn event(
        &mut self,
        event: Event,
        length: Duration,
        rate: u32,
    ) -> Result<(Outcome, Outcome)> {
        let consul = self.env.registry.consul()?.address();
        if let Event::GoAge(age) = event {
            self.restart_go(&["--max-age", age]).await?;
            self.ready().await?;
        }
        let before = self.env.counted().await?;
        let callers = Callers::with_one_second(rate);
        let rust = Load::start(self.env.add.http(), callers, length)?;
        let go = Load::start(self.go_add.http, callers, length)?;
        tokio::time::sleep_until(rust.begun + length.mul_f64(0.2)).await;
        match event {
            Event::Rust(signal) => self.env.trims[0].process.signal(signal)?,
            Event::Go(signal) => self.go_trims[0].process.signal(signal)?,
            Event::GoAge(_) => {}
        }
        let (rust, go) = (rust.end().await?, go.end().await?);
        let story = Story::default();
        let judge = |calls| {
            let evidence = Evidence {
                calls,
                story: &story,
                before: &before,
                seen: &[],
                poll: Duration::ZERO,
            };
            evidence.judge(Demand::None)
        };
        let (mut rust, go) = (judge(&rust), judge(&go));
        match event {
            Event::Rust(_) => {
                self.env.trims[0].process.exit(LIMIT).await?;
                self.env.revive(0).await?;
            }
            Event::Go(_) => {
                self.go_trims[0].process.exit(LIMIT).await?;
                let trim = &mut self.go_trims[0];
                *trim = start_again(trim.port, self.binary, &consul, &[]).await?;
            }
            Event::GoAge(_) => {
                let after = self.env.counted().await?;
                self.restart_go(&[]).await?;
                let blamed = after.broken_attempts() - before.broken_attempts();
                if blamed > 0 {
                    rust.complaints.push(format!(
                        "{blamed} attempts counted against an instance whose connections end in order"
                    ));
                }
            }
        }
        self.ready().await?;
        Ok((rust, go))
    }
}

/// Starts a trim service in Go on the port of one that has ended.
async fn start_again(port: u16, binary: &Path, consul: &str, flags: &[&str]) -> Result<GoTrim> {
    let port = port.to_string();
    GoTrim::start(binary, consul, &[&["--port", &port], flags].concat()).await
}

fn cells(event: &str, add: &str, outcome: &Outcome) -> Vec<String> {
    let millis = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let held = match add {
        "Go" => "reported",
        _ if outcome.failed == 0 => "held",
        _ => "FAILED",
    };
    vec![
        event.to_owned(),
        add.to_owned(),
        outcome.calls.to_string(),
        outcome.failed.to_string(),
        millis(outcome.p50),
        millis(outcome.p99),
        held.to_owned(),
    ]
}
