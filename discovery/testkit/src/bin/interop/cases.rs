//! The cases, by group, and those that a server does not support.
//!
//! Their names and contents are those of gRPC's interop-test-descriptions.md. The cases with credentials
//! are left out, and those of ORCA and of picking the first address.

mod cancellation;
mod compression;
pub(crate) mod metadata;
mod soak;
mod status;
mod streaming;
mod unary;

use anyhow::Result;
use futures_util::future::LocalBoxFuture;

use crate::target::Target;

/// One case.
pub(crate) struct Case {
    /// Its name, by which `--only` selects it.
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a Target<'a>) -> LocalBoxFuture<'a, Result<()>>,
}

macro_rules! cases {
    ($($name:literal => $run:path,)*) => {
        &[$(Case { name: $name, run: |target| Box::pin($run(target)) }),*]
    };
}

/// All cases, in the order in which they run.
pub(crate) const CASES: &[Case] = cases! {
    "empty_unary" => unary::empty,
    "large_unary" => unary::large,
    "large_unary_gzip" => unary::large_gzip,
    "client_compressed_unary" => compression::client_unary,
    "client_compressed_unary_noprobe" => compression::client_unary_no_probe,
    "server_compressed_unary" => compression::server_unary,
    "client_streaming" => streaming::client_streaming,
    "client_compressed_streaming" => compression::client_streaming,
    "client_compressed_streaming_noprobe" => compression::client_streaming_no_probe,
    "server_streaming" => streaming::server_streaming,
    "server_compressed_streaming" => compression::server_streaming,
    "ping_pong" => streaming::ping_pong,
    "empty_stream" => streaming::empty_stream,
    "custom_metadata" => metadata::custom,
    "status_code_and_message" => status::code_and_message,
    "special_status_message" => status::special_message,
    "unimplemented_method" => status::unimplemented_method,
    "unimplemented_service" => status::unimplemented_service,
    "cancel_after_begin" => cancellation::after_begin,
    "cancel_after_begin_by_drop" => cancellation::after_begin_by_drop,
    "cancel_after_first_response" => cancellation::after_first_response,
    "cancel_after_first_response_by_drop" => cancellation::after_first_response_by_drop,
    "timeout_on_sleeping_server" => cancellation::timeout_on_sleeping_server,
    "rpc_soak" => soak::rpc,
    "channel_soak" => soak::channel,
};

/// The reason why a peer cannot pass a case: its server lacks what the case asks for.
pub(crate) fn unsupported(peer: &str, case: &str) -> Option<&'static str> {
    Some(match (peer, case) {
        ("grpc-go" | "grpc-java", "client_compressed_unary" | "client_compressed_streaming") => {
            "the server does not read expect_compressed"
        }
        ("grpc-go", "server_compressed_unary" | "server_compressed_streaming") => {
            "the server does not read response_compressed"
        }
        ("tonic" | "bootstrap", "server_compressed_streaming") => {
            "tonic's server compresses all messages of a stream or none"
        }
        _ => return None,
    })
}
