//! The standard health service, `grpc.health.v1.Health`.
//!
//! The service of tonic-health answers `Watch` of an unknown service with `NOT_FOUND`. The protocol
//! has `SERVICE_UNKNOWN` on an open stream for it, followed by the status that the service gets later.

use std::collections::HashMap;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, HealthServer},
};

type Statuses = HashMap<String, ServingStatus>;

/// The health that a server reports of its services. Dropped, it ends all watches.
pub(crate) struct Health(watch::Sender<Statuses>);

impl Health {
    /// The health of a server without services, and the service that answers with it.
    pub(crate) fn new() -> (Self, HealthServer<HealthService>) {
        let statuses = watch::Sender::new(Statuses::new());
        let service = HealthServer::new(HealthService(statuses.subscribe()));
        (Self(statuses), compressed!(service))
    }

    /// Sets the status of these services. The empty name stands for the server as a whole.
    pub(crate) fn set<'a>(&self, names: impl IntoIterator<Item = &'a str>, status: ServingStatus) {
        let names = names.into_iter();
        self.0
            .send_modify(|statuses| statuses.extend(names.map(|name| (name.to_owned(), status))));
    }

    /// Reports all services as not serving.
    pub(crate) fn not_serving(&self) {
        self.0.send_modify(|statuses| {
            for status in statuses.values_mut() {
                *status = ServingStatus::NotServing;
            }
        });
    }
}

/// Answers `Check` and `Watch`.
pub(crate) struct HealthService(watch::Receiver<Statuses>);

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.borrow().get(&request.get_ref().service).copied();
        let status = status.ok_or_else(|| Status::not_found("unknown service"))?;
        Ok(Response::new(response(status)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = Watch {
            statuses: self.0.clone(),
            service: request.into_inner().service,
            sent: None,
        };
        let changes = stream::unfold(watch, |mut watch| async {
            let status = watch.next().await?;
            Some((Ok(response(status)), watch))
        });
        Ok(Response::new(changes.boxed()))
    }
}

/// The watch of one service by one client.
struct Watch {
    statuses: watch::Receiver<Statuses>,
    service: String,
    /// The last status that the client got.
    sent: Option<ServingStatus>,
}

impl Watch {
    /// The current status, then each later one. `None` when the server stops.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let status = self
                .statuses
                .borrow_and_update()
                .get(&self.service)
                .copied();
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if self.sent.replace(status) != Some(status) {
                return Some(status);
            }
            self.statuses.changed().await.ok()?;
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_watch_sends_the_status_that_an_unknown_service_gets_later() {
        let (health, _service) = Health::new();
        health.set([""], ServingStatus::Serving);
        let mut watch = Watch {
            statuses: health.0.subscribe(),
            service: "later".to_owned(),
            sent: None,
        };
        assert_eq!(watch.next().await, Some(ServingStatus::ServiceUnknown));
        // The change of another service is not sent.
        health.set(["other"], ServingStatus::Serving);
        assert!(watch.next().now_or_never().is_none());
        health.set(["later"], ServingStatus::Serving);
        assert_eq!(watch.next().await, Some(ServingStatus::Serving));
        health.not_serving();
        drop(health);
        assert_eq!(watch.next().await, Some(ServingStatus::NotServing));
        assert_eq!(watch.next().await, None);
    }
}
