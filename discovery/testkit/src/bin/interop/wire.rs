//! Calls whose messages are framed here, so that a case decides and sees which are compressed.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, Method, Request, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::{Code, Status, body::Body};
use tower_service::Service as _;

use crate::target::Target;

/// The flag and the length before each message.
const PREFIX: usize = 5;

/// A framed message.
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn plain(message: &impl prost::Message) -> Self {
        Self::framed(0, &message.encode_to_vec())
    }

    /// Compressed with gzip, or not.
    pub(crate) fn new(message: &impl prost::Message, compressed: bool) -> Result<Self> {
        if !compressed {
            return Ok(Self::plain(message));
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&message.encode_to_vec())?;
        Ok(Self::framed(1, &encoder.finish()?))
    }

    fn framed(flag: u8, bytes: &[u8]) -> Self {
        // No message here is near this size.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let prefix = [&[flag][..], &length.to_be_bytes()].concat();
        Self([&prefix, bytes].concat())
    }
}

/// A whole response.
pub(crate) struct Response {
    /// Its status.
    pub(crate) code: Code,
    message: String,
    data: Bytes,
}

impl Response {
    /// Its messages, and whether each was compressed. Fails if the status is not OK.
    pub(crate) fn messages<M: prost::Message + Default>(&self) -> Result<Vec<(bool, M)>> {
        ensure!(self.code == Code::Ok, "{}: {}", self.code, self.message);
        let mut data = self.data.clone();
        let mut messages = Vec::new();
        while !data.is_empty() {
            ensure!(data.len() >= PREFIX, "a message without a prefix");
            let (flag, length) = (data.get_u8(), data.get_u32() as usize);
            ensure!(data.len() >= length, "a message of less than {length}");
            let bytes = data.split_to(length);
            messages.push(match flag {
                0 => (false, M::decode(bytes)?),
                1 => {
                    let mut plain = Vec::new();
                    GzDecoder::new(&*bytes).read_to_end(&mut plain)?;
                    (true, M::decode(&*plain)?)
                }
                flag => bail!("the compression flag {flag}"),
            });
        }
        Ok(messages)
    }
}

/// Calls a method with these messages, one frame each, and reads the whole response.
pub(crate) async fn call(
    target: &Target<'_>,
    path: &str,
    messages: impl IntoIterator<Item = Message>,
) -> Result<Response> {
    let frames: Vec<_> = messages
        .into_iter()
        .map(|Message(bytes)| Ok::<_, Status>(Frame::data(Bytes::from(bytes))))
        .collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("grpc-encoding", "gzip")
        .header("grpc-accept-encoding", "gzip")
        .body(Body::new(StreamBody::new(tokio_stream::iter(frames))))?;
    let (parts, body) = target.channel.clone().call(request).await?.into_parts();
    let body = body.collect().await?;
    let status = body
        .trailers()
        .and_then(status)
        .or_else(|| status(&parts.headers))
        .context("no status")?;
    Ok(Response {
        code: status.code(),
        message: status.message().to_owned(),
        data: body.to_bytes(),
    })
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}
