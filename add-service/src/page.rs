//! The live page at `/`, and the state of the channel as JSON, for operators.
//!
//! It shows, and changes nothing: only the box to try a method makes calls, as any caller may. It is
//! built on [`Channel::snapshot`] and [`Channel::events`] alone.
//!
//! | path | answer |
//! |---|---|
//! | `GET /` | the page; its style, script, icon and texts are under `/page/` |
//! | `GET /debug/channel` | the snapshot as JSON |
//! | `GET /debug/live` | server-sent events: a [`frame`] every half second, and the channel's events |
//! | `POST /debug/try/sum`, `/debug/try/concat` | a call, with the attempts that it took |
//!
//! [`access`] decides who may see it. [`feed`] computes once for all viewers, and only while there is
//! one.

mod access;
mod assets;
mod feed;
mod frame;
mod try_call;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bootstrap::Stage;
use discovery::{Channel, ChannelSnapshot};
use tokio::sync::watch;

pub(crate) use self::access::{Access, Show};
use self::feed::Feed;
use crate::{failure::Failure, service::AddService};

pub(crate) const PAGE: &str = "/";
pub(crate) const ASSET: &str = "/page/{file}";
pub(crate) const CHANNEL: &str = "/debug/channel";
pub(crate) const LIVE: &str = "/debug/live";
pub(crate) const TRY_SUM: &str = "/debug/try/sum";
pub(crate) const TRY_CONCAT: &str = "/debug/try/concat";

/// The state of the handlers.
#[derive(Clone)]
struct Page {
    channel: Channel,
    feed: Arc<Feed>,
    stage: watch::Receiver<Stage>,
}

/// All routes of the page. Must be called inside a tokio runtime.
pub(crate) fn routes(
    service: Arc<AddService>,
    channel: Channel,
    stage: watch::Receiver<Stage>,
    max_body: usize,
    access: Access,
) -> Router {
    let page = Page {
        feed: Arc::new(Feed::start(&channel)),
        channel,
        stage,
    };
    Router::new()
        .route(CHANNEL, get(snapshot))
        .route(LIVE, get(live))
        .with_state(page)
        .merge(
            Router::new()
                .route(TRY_SUM, post(try_call::sum))
                .route(TRY_CONCAT, post(try_call::concat))
                .with_state(try_call::Tries { service, max_body }),
        )
        .route(PAGE, get(assets::page))
        .route(ASSET, get(assets::asset))
        .route_layer(middleware::from_fn(no_store))
        .route_layer(middleware::from_fn_with_state(access, access::guard))
}

/// Browsers must not cache the page: its answers change between two requests, and a new version of the
/// service has new files.
async fn no_store(request: axum::extract::Request, next: middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

async fn snapshot(State(page): State<Page>) -> Json<ChannelSnapshot> {
    Json(page.channel.snapshot())
}

async fn live(State(page): State<Page>) -> Response {
    let Some(viewer) = page.feed.viewer() else {
        let failure = Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many viewers of the page; close one",
        );
        return failure.into_response();
    };
    let content_type = [(header::CONTENT_TYPE, "text/event-stream")];
    let body = Body::from_stream(viewer.stream(page.stage));
    let mut response = (content_type, body).into_response();
    // It has no end of its own, so it is not a request that a shutdown must finish.
    response.extensions_mut().insert(bootstrap::Endless);
    response
}
