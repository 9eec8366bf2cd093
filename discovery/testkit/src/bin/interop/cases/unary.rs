//! Unary calls: empty, large, and large with gzip.

use anyhow::{Result, ensure};
use tonic::codec::CompressionEncoding;

use crate::{
    messages::{Empty, LARGE_RESPONSE, SimpleResponse, large_request, size},
    target::Target,
};

pub(crate) async fn empty(target: &Target<'_>) -> Result<()> {
    target.client().empty_call(Empty {}).await?;
    Ok(())
}

pub(crate) async fn large(target: &Target<'_>) -> Result<()> {
    let response = target.client().unary_call(large_request()).await?;
    is_large(response.get_ref())
}

/// Our own case: a generated client that compresses and accepts compression.
pub(crate) async fn large_gzip(target: &Target<'_>) -> Result<()> {
    let mut client = target
        .client()
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    is_large(client.unary_call(large_request()).await?.get_ref())
}

/// Checks the size of a large response.
pub(crate) fn is_large(response: &SimpleResponse) -> Result<()> {
    let size = size(response.payload.as_ref());
    let expected = usize::try_from(LARGE_RESPONSE)?;
    ensure!(size == expected, "{size} bytes, expected {expected}");
    Ok(())
}
