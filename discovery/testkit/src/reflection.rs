//! The reflection of a server, in both versions of the protocol.

use anyhow::{Context as _, Result, bail};
use tonic::transport::Channel;
use tonic_reflection::pb;

macro_rules! listed {
    ($version:ident, $channel:expr) => {{
        use pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answers = ServerReflectionClient::new($channel)
            .server_reflection_info(tokio_stream::once(request))
            .await?;
        let answer = answers.into_inner().message().await?;
        let answer = answer.context("reflection gave no answer")?;
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(services)) => {
                services.service.into_iter().map(|s| s.name).collect()
            }
            other => bail!("reflection answered {other:?}"),
        }
    }};
}

/// The services in the lists of v1 and v1alpha.
///
/// # Errors
///
/// When the server has no reflection, or does not answer.
pub async fn reflected_services(channel: Channel) -> Result<[Vec<String>; 2]> {
    Ok([listed!(v1, channel.clone()), listed!(v1alpha, channel)])
}
