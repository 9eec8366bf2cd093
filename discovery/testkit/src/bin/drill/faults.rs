//! The faults of processes, of hosts and of the registry, each a function of the environment and the length
//! of the row. They return when the fault began and ended, and the faulty instances.

use std::time::Duration;

use anyhow::Result;
use testkit::Signal;
use tokio::time::sleep;

use crate::{clock::Clock, env::Env, load::Call, network::Host, registry::Fault};

/// The course of a fault. Times count from the start of the load.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// When it began.
    pub(crate) began: Duration,
    /// When the faulty instances were healthy again, if they were.
    pub(crate) ended: Option<Duration>,
    /// IDs of the faulty instances.
    pub(crate) faulty: Vec<String>,
    /// True if the faulty instance was added to the others.
    pub(crate) joins: bool,
    /// Attempts that the drill's own faulty server has counted.
    pub(crate) counted: Option<usize>,
    /// Connections that replaced others, which had ended in order.
    pub(crate) renewed: Option<usize>,
    /// Calls whose deadline no instance can keep.
    pub(crate) short_deadline: Vec<Call>,
}

pub(crate) const FAULT: f64 = 0.2;
const CURE: f64 = 0.6;

pub(crate) async fn rolling_restart(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(0.1).await;
    let began = clock.now();
    for index in 0..env.trims.len() {
        env.terminate(index).await?;
        env.revive(index).await?;
    }
    Ok(Story {
        began,
        ..Story::default()
    })
}

pub(crate) async fn kill(env: &mut Env, clock: Clock, count: usize) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    for trim in &env.trims[..count] {
        trim.process.signal(Signal::SIGKILL)?;
    }
    let faulty = env.ids(count);
    clock.until(CURE).await;
    for index in 0..count {
        env.revive(index).await?;
    }
    let ended = Some(clock.now());
    Ok(Story {
        began,
        ended,
        faulty,
        ..Story::default()
    })
}

pub(crate) async fn hang(env: &mut Env, clock: Clock, count: usize) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    let hung = &env.trims[..count];
    for trim in hung {
        trim.process.signal(Signal::SIGSTOP)?;
    }
    clock.until(CURE).await;
    for trim in hung {
        trim.process.signal(Signal::SIGCONT)?;
    }
    let ended = Some(clock.now());
    Ok(Story {
        began,
        ended,
        faulty: env.ids(count),
        ..Story::default()
    })
}

/// A faulty instance that is registered and that Consul reports as healthy.
pub(crate) async fn faulty(env: &mut Env, clock: Clock, fault: &str) -> Result<Story> {
    clock.until(FAULT).await;
    let trim = env.trim(0, &["--fault", fault]).await?;
    let began = clock.now();
    let faulty = vec![env.id(&trim)];
    env.trims.push(trim);
    clock.until(1.0).await;
    Ok(Story {
        began,
        faulty,
        joins: true,
        ..Story::default()
    })
}

pub(crate) async fn flap(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(0.1).await;
    let began = clock.now();
    while clock.now() + Duration::from_secs(2) < clock.length {
        env.kill(0).await?;
        sleep(Duration::from_secs(1)).await;
        env.revive(0).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(Story {
        began,
        ..Story::default()
    })
}

pub(crate) async fn registry_hangs(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    env.registry.pause()?;
    clock.until(CURE).await;
    env.registry.resume()?;
    Ok(Story {
        began,
        ..Story::default()
    })
}

/// The registry is killed and restarted.
pub(crate) async fn registry_restarts(env: &mut Env, clock: Clock, fault: Fault) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    env.registry.kill().await?;
    sleep(clock.length.mul_f64(0.1)).await;
    env.registry.restart(fault).await?;
    Ok(Story {
        began,
        ..Story::default()
    })
}

/// A host whose packets are dropped while calls are in flight to it. One that `crashes` meanwhile
/// restarts without its connections, which its peers still hold open.
pub(crate) async fn vanish(env: &Env, clock: Clock, crashes: bool) -> Result<Story> {
    let mut host = Host::start().await?;
    let faulty = vec![host.join(env).await?];
    clock.until(FAULT).await;
    let began = clock.now();
    host.drop_packets()?;
    if crashes {
        host.crash().await?;
    }
    clock.until(CURE).await;
    if crashes {
        host.reboot().await?;
    }
    host.heal()?;
    let ended = Some(clock.now());
    // The host is removed when this function ends.
    clock.until(1.0).await;
    Ok(Story {
        began,
        ended,
        faulty,
        joins: true,
        ..Story::default()
    })
}

pub(crate) async fn all_dead(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    for trim in &env.trims {
        trim.process.signal(Signal::SIGKILL)?;
    }
    clock.until(CURE).await;
    env.revive(0).await?;
    let ended = Some(clock.now());
    Ok(Story {
        began,
        ended,
        ..Story::default()
    })
}

/// Every instance fails its calls, from the start of the row until all are restarted.
pub(crate) async fn all_failing(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(0.5).await;
    for trim in &env.trims {
        trim.process.signal(Signal::SIGTERM)?;
    }
    for index in 0..env.trims.len() {
        env.trims[index]
            .process
            .exit(Duration::from_secs(30))
            .await?;
        env.revive(index).await?;
    }
    Ok(Story {
        ended: Some(clock.now()),
        ..Story::default()
    })
}

pub(crate) async fn scale(env: &mut Env, clock: Clock) -> Result<Story> {
    const MANY: usize = 50;
    const FEW: usize = 3;
    clock.until(0.1).await;
    let began = clock.now();
    while env.trims.len() < MANY && clock.now() < clock.length.mul_f64(0.5) {
        let trim = env.trim(0, &[]).await?;
        env.trims.push(trim);
    }
    clock.until(0.6).await;
    for trim in &env.trims[FEW..] {
        trim.process.signal(Signal::SIGTERM)?;
    }
    for trim in &mut env.trims[FEW..] {
        trim.process.exit(Duration::from_secs(30)).await?;
    }
    Ok(Story {
        began,
        ..Story::default()
    })
}
