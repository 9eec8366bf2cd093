//! Statuses: the server's own with their messages, and unimplemented methods and services.

use anyhow::{Context as _, Result, ensure};
use http::uri::PathAndQuery;
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    messages::{EchoStatus, Empty, SimpleRequest, StreamingOutputCallRequest},
    target::Target,
};

const MESSAGE: &str = "test status message";
const SPECIAL_MESSAGE: &str =
    "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n";

pub(crate) async fn code_and_message(target: &Target<'_>) -> Result<()> {
    is_echoed_by_unary(target, MESSAGE).await?;
    let requests = tokio_stream::once(StreamingOutputCallRequest {
        response_status: echo(MESSAGE),
        ..StreamingOutputCallRequest::default()
    });
    let status = match target.client().full_duplex_call(requests).await {
        Err(status) => status,
        Ok(response) => {
            let message = response.into_inner().message().await;
            message.err().context("the stream has no status")?
        }
    };
    is_echo(&status, MESSAGE)
}

pub(crate) async fn special_message(target: &Target<'_>) -> Result<()> {
    is_echoed_by_unary(target, SPECIAL_MESSAGE).await
}

pub(crate) async fn unimplemented_method(target: &Target<'_>) -> Result<()> {
    is_unimplemented(target, "/grpc.testing.TestService/UnimplementedCall").await
}

pub(crate) async fn unimplemented_service(target: &Target<'_>) -> Result<()> {
    is_unimplemented(
        target,
        "/grpc.testing.UnimplementedService/UnimplementedCall",
    )
    .await
}

#[allow(clippy::unnecessary_wraps, reason = "the type of the field")]
fn echo(message: &str) -> Option<EchoStatus> {
    Some(EchoStatus {
        code: Code::Unknown.into(),
        message: message.to_owned(),
    })
}

async fn is_echoed_by_unary(target: &Target<'_>, message: &str) -> Result<()> {
    let request = SimpleRequest {
        response_status: echo(message),
        ..SimpleRequest::default()
    };
    let answer = target.client().unary_call(request).await;
    let status = answer.err().context("the unary call has no status")?;
    is_echo(&status, message)
}

fn is_echo(status: &Status, message: &str) -> Result<()> {
    ensure!(
        status.code() == Code::Unknown && status.message() == message,
        "got {status:?}, expected UNKNOWN with {message:?}"
    );
    Ok(())
}

async fn is_unimplemented(target: &Target<'_>, path: &'static str) -> Result<()> {
    let mut client = Grpc::new(target.channel.clone());
    client.ready().await?;
    let codec = ProstCodec::<Empty, Empty>::default();
    let path = PathAndQuery::from_static(path);
    let answer = client.unary(Request::new(Empty {}), path, codec).await;
    let status = answer.err().context("an answer")?;
    ensure!(
        status.code() == Code::Unimplemented,
        "got {status:?}, expected UNIMPLEMENTED"
    );
    Ok(())
}
