//! Faults of peers that are none of the project's programs: servers that violate HTTP/2 or hang, foreign
//! servers, servers that end their connections, and callers with deadlines that are too short.

use anyhow::{Context as _, Result};
use testkit::{
    add_service,
    faulty::{Fault as Wire, FaultyServer},
};

use crate::{
    clock::Clock,
    env::Env,
    faults::{FAULT, Story},
    load::{Callers, Load},
};

const ID: &str = "trim_service-faulty";

/// An instance that violates HTTP/2, or refuses as HTTP/2 allows.
pub(crate) async fn wire(env: &mut Env, clock: Clock, fault: Wire) -> Result<Story> {
    clock.until(FAULT).await;
    let server = FaultyServer::start(fault).await?;
    let began = clock.now();
    env.register(ID, "127.0.0.1", server.address().port())
        .await?;
    clock.until(1.0).await;
    Ok(Story {
        began,
        counted: Some(server.calls()),
        ..Story::default()
    })
}

/// The same, with an instance that has to be ejected.
pub(crate) async fn useless(env: &mut Env, clock: Clock, fault: Wire) -> Result<Story> {
    let story = wire(env, clock, fault).await?;
    Ok(Story {
        faulty: vec![ID.to_owned()],
        joins: true,
        ..story
    })
}

/// A gRPC server of another service (`pb.Add`), whose health service answers SERVING.
pub(crate) async fn foreign(env: &mut Env, clock: Clock) -> Result<Story> {
    let server = add_service(&["--static", "127.0.0.1:1"]).await?;
    clock.until(FAULT).await;
    let began = clock.now();
    env.register(ID, "127.0.0.1", server.grpc.port()).await?;
    clock.until(1.0).await;
    Ok(Story {
        began,
        faulty: vec![ID.to_owned()],
        joins: true,
        ..Story::default()
    })
}

/// Connections end in order all through the row.
pub(crate) async fn ending_connections(env: &mut Env, clock: Clock) -> Result<Story> {
    clock.until(1.0).await;
    let fronts = env.fronts.as_ref().context("a row without such servers")?;
    Ok(Story {
        renewed: Some(fronts.renewed()?),
        ..Story::default()
    })
}

/// Half as many calls again, whose deadline is shorter than any instance takes.
pub(crate) async fn short_deadline(env: &mut Env, clock: Clock, rate: u32) -> Result<Story> {
    clock.until(FAULT).await;
    let began = clock.now();
    let callers = Callers {
        rate: rate / 2,
        deadline: "5m",
    };
    let rest = clock.length.saturating_sub(began);
    let load = Load::start(env.add.http(), callers, rest.mul_f64(0.9))?;
    Ok(Story {
        began,
        short_deadline: load.end().await?,
        ..Story::default()
    })
}
