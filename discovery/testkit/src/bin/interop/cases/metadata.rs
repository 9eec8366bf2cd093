//! Custom metadata, echoed by the server in its headers and trailers.

use anyhow::{Context as _, Result, ensure};
use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
};

use super::streaming::has_size;
use crate::{
    messages::{SimpleRequest, payload, stream_request},
    target::Target,
};

/// Echoed in the headers.
pub(crate) const INITIAL: &str = "x-grpc-test-echo-initial";
/// Echoed in the trailers.
pub(crate) const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

const INITIAL_VALUE: &str = "test_initial_metadata_value";
const TRAILING_VALUE: [u8; 3] = [0xab, 0xab, 0xab];

pub(crate) async fn custom(target: &Target<'_>) -> Result<()> {
    let mut client = target.client();
    let request = SimpleRequest {
        response_size: 1,
        payload: payload(1),
        ..SimpleRequest::default()
    };
    let response = client.unary_call(with_metadata(request)).await?;
    // A unary response has its headers and its trailers in one map.
    has_initial(response.metadata()).context("unary")?;
    has_trailing(response.metadata()).context("unary")?;

    let requests = tokio_stream::once(stream_request(&[1], 1));
    let response = client.full_duplex_call(with_metadata(requests)).await?;
    has_initial(response.metadata()).context("stream")?;
    let mut responses = response.into_inner();
    has_size(responses.message().await?, 1)?;
    ensure!(responses.message().await?.is_none(), "a response too many");
    let trailers = responses.trailers().await?.context("no trailers")?;
    has_trailing(&trailers).context("stream")
}

fn with_metadata<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert(INITIAL, MetadataValue::from_static(INITIAL_VALUE));
    metadata.insert_bin(TRAILING, MetadataValue::from_bytes(&TRAILING_VALUE));
    request
}

fn has_initial(metadata: &MetadataMap) -> Result<()> {
    let values: Vec<_> = metadata.get_all(INITIAL).iter().collect();
    ensure!(values == [INITIAL_VALUE], "{INITIAL} is {values:?}");
    Ok(())
}

fn has_trailing(metadata: &MetadataMap) -> Result<()> {
    let values = metadata.get_all_bin(TRAILING).iter();
    let values = values
        .map(|value| Ok(value.to_bytes()?.to_vec()))
        .collect::<Result<Vec<_>>>()?;
    ensure!(values == [TRAILING_VALUE], "{TRAILING} is {values:?}");
    Ok(())
}
