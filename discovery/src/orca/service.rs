//! The service that sends a server's load out of band: `xds.service.orca.v3.OpenRcaService`.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response};
use http_body::Body as HttpBody;
use tokio::time::sleep;
use tonic::{
    Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::{
    proto::{Interval, OrcaLoadReport, OrcaLoadReportRequest, SERVICE, STREAM},
    server::ServerLoad,
};
use crate::{BoxError, future::BoxFuture};

impl ServerLoad {
    /// The service that sends reports out of band.
    #[must_use]
    pub fn service(&self) -> ReportServer {
        ReportServer {
            load: self.clone(),
            min_interval: ReportServer::MIN_INTERVAL,
        }
    }
}

/// Sends a server's load out of band, see [`ServerLoad::service`]. A report is sent at once, then at the
/// interval that the client asks for.
#[derive(Clone, Debug)]
pub struct ReportServer {
    load: ServerLoad,
    min_interval: Duration,
}

impl ReportServer {
    /// The shortest interval that gRPC's servers accept (gRFC A51).
    const MIN_INTERVAL: Duration = Duration::from_secs(30);

    /// The shortest interval between two reports to a client, and the interval for a client that asks
    /// for none. Default: 30 s.
    #[must_use]
    pub fn with_min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }
}

impl NamedService for ReportServer {
    const NAME: &'static str = SERVICE;
}

impl<B> Service<Request<B>> for ReportServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.uri().path() != STREAM {
            let status = Status::unimplemented(format!("{SERVICE} has StreamCoreMetrics only"));
            return ready(Ok(status.into_http())).boxed();
        }
        let reports = Reports(self.clone());
        async move {
            let codec = ProstCodec::<OrcaLoadReport, OrcaLoadReportRequest>::default();
            Ok(Grpc::new(codec).server_streaming(reports, request).await)
        }
        .boxed()
    }
}

/// Answers the one method.
struct Reports(ReportServer);

impl ServerStreamingService<OrcaLoadReportRequest> for Reports {
    type Response = OrcaLoadReport;
    type ResponseStream = stream::BoxStream<'static, Result<OrcaLoadReport, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<OrcaLoadReportRequest>) -> Self::Future {
        let wanted = request.into_inner().report_interval;
        let wanted = wanted.and_then(Interval::time);
        let interval = wanted.unwrap_or_default().max(self.0.min_interval);
        let load = self.0.load.clone();
        let first = stream::once(ready(()));
        let others = stream::repeat(()).then(move |()| sleep(interval));
        let mut ended = load.ended();
        let end = async move {
            // An error means that the load is gone, and the server with it.
            let _ended = ended.wait_for(|ended| *ended).await;
        };
        let reports = first
            .chain(others)
            .take_until(end.boxed())
            .map(move |()| Ok(load.report().into()));
        ready(Ok(tonic::Response::new(reports.boxed())))
    }
}
