//! Load reports (ORCA, gRFC A51): servers report how loaded they are, and
//! [weighted round robin](crate::balance::weighted_round_robin) makes weights of it (gRFC A58).
//!
//! # A server that reports
//!
//! [`ServerLoad`] holds what a server reports: its CPU share and rates, which it measures, and whatever
//! else the application sets. Reports go out in two ways:
//!
//! - per call, in the trailing metadata `endpoint-load-metrics-bin`: [`ServerLoad::layer`] around a tonic
//!   server, or [`ServerLoad::around`] one of its services. A handler adds figures of its own call
//!   with the [`CallLoad`] in the request's extensions.
//! - out of band, by `xds.service.orca.v3.OpenRcaService`: [`ServerLoad::service`].
//!
//! ```no_run
//! use discovery::orca::{CallLoad, ServerLoad};
//! # use proto::{TrimRequest, TrimResponse, trim_server::{Trim, TrimServer}};
//! # use tonic::{Request, Response, Status};
//!
//! struct MyTrim;
//!
//! #[tonic::async_trait]
//! impl Trim for MyTrim {
//!     async fn trim_space(&self, request: Request<TrimRequest>) -> Result<Response<TrimResponse>, Status> {
//!         let text = &request.get_ref().s;
//!         if let Some(call) = request.extensions().get::<CallLoad>() {
//!             call.update(|report| {
//!                 report.request_cost.insert("bytes".to_owned(), text.len() as f64);
//!             });
//!         }
//!         Ok(Response::new(TrimResponse { s: text.replace(' ', "") }))
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let load = ServerLoad::of_process();
//! tonic::transport::Server::builder()
//!     .add_service(load.around(TrimServer::new(MyTrim)))
//!     .add_service(load.service())
//!     .serve(([127, 0, 0, 1], 8975).into())
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A channel that reads reports
//!
//! With the balancer `weighted-round-robin`, an instance's weight is its rate of calls divided by its
//! utilization, as [`LoadReports`] says. As long as fewer than two instances have such a weight, the
//! registry's weights are in use; after that, an instance without one has the registry's weight relative
//! to the others'. No other balancer reads reports, and calls through them cost nothing for it.
//! The metrics [`grpc_lb_wrr_*`](crate::metrics) show the weights, and how many endpoints have none.
//!
//! ```
//! use discovery::{Channel, balance::Policy, orca::LoadReports};
//! use std::time::Duration;
//!
//! let builder = Channel::builder("consul://localhost:8500", "trim_service")
//!     .balancer(Policy::WeightedRoundRobin)
//!     .load_reports(LoadReports::default().with_out_of_band(Duration::from_secs(10)));
//! ```

mod body;
mod call;
mod cpu;
mod figures;
mod layer;
mod policy;
mod proto;
mod rates;
mod record;
mod report;
mod server;
mod service;
mod watch;

pub use self::{
    body::ReportingBody,
    call::CallLoad,
    layer::{ReportLayer, Reporting, ReportingFuture},
    policy::LoadReports,
    report::{InvalidReport, LoadReport},
    server::ServerLoad,
    service::ReportServer,
};
pub(crate) use self::{
    figures::ReportedWeight,
    record::{Follow, LoadRecord},
};
