//! The test service.

use std::{pin::Pin, time::Duration};

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status, Streaming};

use super::flags::MessageFlags;
use crate::messages::{
    BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse, test_service_server,
};

/// Answers as gRPC's description of the interop tests says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestService;

type Responses = Pin<Box<dyn Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send>>;

#[tonic::async_trait]
impl test_service_server::TestService for TestService {
    type StreamingOutputCallStream = Responses;
    type FullDuplexCallStream = Responses;

    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let flags = MessageFlags::of(request.extensions());
        let request = request.into_inner();
        check(request.expect_compressed, &flags)?;
        refuse(request.response_status)?;
        let payload = payload(request.response_size)?;
        let mut response = Response::new(SimpleResponse { payload });
        if request.response_compressed == Some(BoolValue { value: false }) {
            response.disable_compression();
        }
        Ok(response)
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Responses>, Status> {
        let request = request.into_inner();
        refuse(request.response_status)?;
        Ok(Response::new(responses(request.response_parameters)))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let flags = MessageFlags::of(request.extensions());
        let mut requests = request.into_inner();
        let mut total = 0_usize;
        while let Some(request) = requests.message().await? {
            check(request.expect_compressed, &flags)?;
            total += request.payload.map_or(0, |payload| payload.body.len());
        }
        let too_large = || Status::out_of_range(format!("{total} bytes do not fit the response"));
        let aggregated_payload_size = total.try_into().map_err(|_| too_large())?;
        Ok(Response::new(StreamingInputCallResponse {
            aggregated_payload_size,
        }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let answers = request.into_inner().map(|request| {
            let request = request?;
            refuse(request.response_status)?;
            Ok::<_, Status>(responses(request.response_parameters))
        });
        Ok(Response::new(Box::pin(answers.try_flatten())))
    }
}

/// Refuses a request whose message was not compressed, or was, against its own word.
fn check(expected: Option<BoolValue>, flags: &anyhow::Result<MessageFlags>) -> Result<(), Status> {
    let flags = flags
        .as_ref()
        .map_err(|error| Status::internal(error.to_string()))?;
    let compressed = flags.next().context("a message without a flag");
    let compressed = compressed.map_err(|error| Status::internal(error.to_string()))?;
    match expected {
        Some(BoolValue { value }) if value != compressed => Err(Status::invalid_argument(format!(
            "expect_compressed is {value}, the message's flag is {compressed}"
        ))),
        _ => Ok(()),
    }
}

/// The status that the request asks for.
fn refuse(echo: Option<EchoStatus>) -> Result<(), Status> {
    match echo {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from_i32(code), message))
        }
        _ => Ok(()),
    }
}

fn payload(size: i32) -> Result<Option<Payload>, Status> {
    let size = usize::try_from(size)
        .map_err(|_| Status::invalid_argument(format!("the size {size} is negative")))?;
    Ok(Some(Payload {
        body: vec![0; size],
    }))
}

fn responses(parameters: Vec<ResponseParameters>) -> Responses {
    Box::pin(stream::iter(parameters).then(|parameters| async move {
        let pause = u64::try_from(parameters.interval_us).unwrap_or(0);
        if pause > 0 {
            sleep(Duration::from_micros(pause)).await;
        }
        let payload = payload(parameters.size)?;
        Ok(StreamingOutputCallResponse { payload })
    }))
}
