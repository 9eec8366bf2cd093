//! The trim server: `GET /trim/TEXT` answers the text without spaces.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use discovery::{
    Instance, Registrar,
    registry::{self, Check, Registration},
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{Common, fault::Fault, stop};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// Port to listen on; 0 chooses a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Fault to inject: latency=300ms,rate=1 or error=unavailable,rate=0.3
    #[arg(long, value_name = "FAULT")]
    fault: Option<Fault>,
}

/// Time without a heartbeat after which Consul's check is critical.
const TTL: Duration = Duration::from_secs(3);
/// New requests are accepted for this long after the deregistration, as clients have to learn of it.
const LEARN: Duration = Duration::from_millis(250);
/// Time for accepted requests after that.
const DRAIN: Duration = Duration::from_millis(750);

pub(crate) async fn serve(args: Args) -> Result<()> {
    let address = SocketAddr::new(args.common.listen, args.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/trim/{text}", get(trim))
        .route("/health", get(async || StatusCode::NO_CONTENT))
        .with_state(args.fault);
    let (end, ended) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ended_or_dropped = ended.await;
    });
    let server = tokio::spawn(async move { serving.await });

    let instance = Instance::named("trim_service", address.ip(), address.port())?;
    let id = instance.id.clone();
    let registry: Arc<dyn registry::Registry> = registry::connect(&args.common.registry())?;
    let registration = Registration::new(instance, Check::ttl(TTL));
    let registrar = Registrar::start(registry.registration(registration)?)?;
    println!("http-services listening http={address} id={id}");

    stop().await?;
    registrar.deregister(Duration::from_secs(2)).await?;
    sleep(LEARN).await;
    let _sent = end.send(());
    // Requests that take longer end with the process.
    if let Ok(served) = timeout(DRAIN, server).await {
        served??;
    }
    Ok(())
}

async fn trim(
    State(fault): State<Option<Fault>>,
    Path(text): Path<String>,
) -> Result<String, StatusCode> {
    if let Some(fault) = fault
        && let Some(status) = fault.inject().await
    {
        return Err(status);
    }
    Ok(text.replace(' ', ""))
}
