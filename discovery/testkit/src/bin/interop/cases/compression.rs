//! Compressed messages. A generated client compresses all messages of a call or none, and hides how
//! they came. So these cases frame their messages themselves.

use anyhow::{Result, ensure};
use tonic::Code;

use crate::{
    messages::{
        BoolValue, LARGE_RESPONSE, ResponseParameters, SimpleRequest, SimpleResponse,
        StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
        StreamingOutputCallResponse, large_request, payload, size,
    },
    target::Target,
    wire::{self, Message, Response},
};

const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
const INPUT: &str = "/grpc.testing.TestService/StreamingInputCall";
const OUTPUT: &str = "/grpc.testing.TestService/StreamingOutputCall";

/// The server refuses a message that is not compressed although the message itself says so. Then
/// compressed and uncompressed messages are accepted.
pub(crate) async fn client_unary(target: &Target<'_>) -> Result<()> {
    let request = expecting(true);
    is_refused(&wire::call(target, UNARY, [Message::plain(&request)]).await?)?;
    client_unary_no_probe(target).await
}

pub(crate) async fn client_unary_no_probe(target: &Target<'_>) -> Result<()> {
    for compressed in [true, false] {
        let message = Message::new(&expecting(compressed), compressed)?;
        let response = wire::call(target, UNARY, [message]).await?;
        let answers = response.messages::<SimpleResponse>()?;
        ensure!(answers.len() == 1, "{} messages", answers.len());
        is_of_size(answers[0].1.payload.as_ref(), LARGE_RESPONSE)?;
    }
    Ok(())
}

pub(crate) async fn server_unary(target: &Target<'_>) -> Result<()> {
    for compressed in [true, false] {
        let request = SimpleRequest {
            response_compressed: Some(BoolValue { value: compressed }),
            ..large_request()
        };
        let response = wire::call(target, UNARY, [Message::plain(&request)]).await?;
        let answers = response.messages::<SimpleResponse>()?;
        ensure!(answers.len() == 1, "{} messages", answers.len());
        is_compressed(answers[0].0, compressed)?;
        is_of_size(answers[0].1.payload.as_ref(), LARGE_RESPONSE)?;
    }
    Ok(())
}

pub(crate) async fn client_streaming(target: &Target<'_>) -> Result<()> {
    let request = part(27_182, true);
    is_refused(&wire::call(target, INPUT, [Message::plain(&request)]).await?)?;
    client_streaming_no_probe(target).await
}

pub(crate) async fn client_streaming_no_probe(target: &Target<'_>) -> Result<()> {
    let messages = [
        Message::new(&part(27_182, true), true)?,
        Message::new(&part(45_904, false), false)?,
    ];
    let response = wire::call(target, INPUT, messages).await?;
    let answers = response.messages::<StreamingInputCallResponse>()?;
    ensure!(answers.len() == 1, "{} messages", answers.len());
    let total = answers[0].1.aggregated_payload_size;
    ensure!(total == 73_086, "{total} bytes, expected 73086");
    Ok(())
}

pub(crate) async fn server_streaming(target: &Target<'_>) -> Result<()> {
    let expected = [(true, 31_415), (false, 92_653)];
    let request = StreamingOutputCallRequest {
        response_parameters: expected
            .iter()
            .map(|&(compressed, size)| ResponseParameters {
                size,
                compressed: Some(BoolValue { value: compressed }),
                ..ResponseParameters::default()
            })
            .collect(),
        ..StreamingOutputCallRequest::default()
    };
    let response = wire::call(target, OUTPUT, [Message::plain(&request)]).await?;
    let answers = response.messages::<StreamingOutputCallResponse>()?;
    ensure!(answers.len() == 2, "{} messages", answers.len());
    for ((was_compressed, answer), (compressed, size)) in answers.iter().zip(expected) {
        is_compressed(*was_compressed, compressed)?;
        is_of_size(answer.payload.as_ref(), size)?;
    }
    Ok(())
}

fn expecting(compressed: bool) -> SimpleRequest {
    SimpleRequest {
        expect_compressed: Some(BoolValue { value: compressed }),
        ..large_request()
    }
}

fn part(size: usize, compressed: bool) -> StreamingInputCallRequest {
    StreamingInputCallRequest {
        payload: payload(size),
        expect_compressed: Some(BoolValue { value: compressed }),
    }
}

fn is_refused(response: &Response) -> Result<()> {
    ensure!(
        response.code == Code::InvalidArgument,
        "the probe: got {}, expected INVALID_ARGUMENT",
        response.code
    );
    Ok(())
}

fn is_compressed(compressed: bool, expected: bool) -> Result<()> {
    ensure!(
        compressed == expected,
        "the response's compression flag is {compressed}, expected {expected}"
    );
    Ok(())
}

fn is_of_size(payload: Option<&crate::messages::Payload>, expected: i32) -> Result<()> {
    let size = size(payload);
    ensure!(
        size == usize::try_from(expected)?,
        "{size} bytes, expected {expected}"
    );
    Ok(())
}
