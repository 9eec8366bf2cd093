//! `discovery call`: one unary call through a channel, with a request in JSON.
//!
//! `method` reads the method's name and finds its description, `header` reads `-H`, `codec` passes
//! messages as bytes, `details` decodes the details of an error, `outcome` prints.

mod codec;
mod details;
mod header;
mod method;
mod outcome;

use std::{num::NonZeroU32, time::Duration};

use anyhow::Context as _;
use bootstrap::{
    ObservedChannel,
    values::{positive_duration, positive_number},
};
use bytes::Bytes;
use clap::Args;
use discovery::{CallOptions, Channel};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor, prost::Message as _};
use tokio::{io::AsyncReadExt as _, time::Instant};
use tonic::{Request, Response, Status, client::Grpc, codec::CompressionEncoding};

use self::{
    codec::BytesCodec,
    header::Header,
    method::{MethodName, find},
    outcome::Outcome,
};
use crate::{
    exit,
    target::{ConnectionArgs, Filters, Target},
};

#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    #[command(flatten)]
    target: Target,
    /// The method, for example pb.Trim/TrimSpace
    #[arg(value_name = "METHOD")]
    method: MethodName,
    /// The request in protobuf's JSON form; - reads it from standard input
    #[arg(value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    json: String,
    /// Header of the request; repeatable. The value of a name that ends with -bin is in base64
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// Time for the call with all its attempts
    #[arg(long, value_name = "DURATION", env = "DISCOVERY_DEADLINE", default_value = "5s", value_parser = positive_duration)]
    deadline: Duration,
    /// Maximum number of attempts
    #[arg(long, value_name = "N", env = "DISCOVERY_ATTEMPTS", default_value = "3", value_parser = positive_number)]
    attempts: NonZeroU32,
    /// The call may be executed twice [default: as the method's description says]
    #[arg(long)]
    idempotent: bool,
    /// Print each attempt with its instance, code and time, and the headers, on standard error
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Makes the call and prints its answer.
///
/// # Errors
///
/// When the call cannot be made: the registry, the reflection, the method or the JSON.
pub(crate) async fn run(args: CallArgs) -> anyhow::Result<u8> {
    let json = args.json().await?;
    let channel = args.channel()?;
    let method = find(&channel, &args.method, args.deadline).await?;
    let request = args.request(&method, &json)?;
    let observed = ObservedChannel::new(channel);
    let begun = Instant::now();
    let answer = send(observed.clone(), &args.method, request).await;
    let (served_by, earlier) = observed.take();
    let outcome = Outcome {
        answer,
        served_by,
        earlier,
        elapsed: begun.elapsed(),
    };
    if args.verbose {
        outcome.explain(&args.method);
    }
    match &outcome.answer {
        Ok(response) => {
            outcome::print_message(&method, response.get_ref())?;
            Ok(exit::FINE)
        }
        Err(status) => {
            outcome::print_status(status, method.parent_pool());
            // A gRPC code is at most 16.
            let code = u8::try_from(i32::from(status.code())).unwrap_or_default();
            Ok(exit::USAGE + code)
        }
    }
}

impl CallArgs {
    async fn json(&self) -> anyhow::Result<String> {
        if self.json != "-" {
            return Ok(self.json.clone());
        }
        let mut text = String::new();
        tokio::io::stdin()
            .read_to_string(&mut text)
            .await
            .context("cannot read the request from standard input")?;
        Ok(text)
    }

    fn channel(&self) -> anyhow::Result<Channel> {
        let builder = self
            .filters
            .channel(self.target.open()?, &self.target)
            .factory(self.connection.factory()?)
            .retry_max(self.attempts.get())
            .retry_timeout(self.deadline);
        Ok(builder.build()?)
    }

    /// The request with its message, headers and options.
    fn request(&self, method: &MethodDescriptor, json: &str) -> anyhow::Result<Request<Bytes>> {
        let input = method.input();
        let name = input.full_name().to_owned();
        let mut text = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(input, &mut text)
            .and_then(|message| text.end().map(|()| message))
            .with_context(|| format!("the request is not a {name} in JSON"))?;
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        request.set_timeout(self.deadline);
        for header in &self.headers {
            header.add_to(request.metadata_mut());
        }
        let options = CallOptions::new()
            .with_timeout(self.deadline)
            .with_idempotent(self.idempotent || method::is_idempotent(method));
        request.extensions_mut().insert(options);
        Ok(request)
    }
}

async fn send(
    observed: ObservedChannel,
    method: &MethodName,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Status> {
    let path = PathAndQuery::try_from(method.path())
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut client = Grpc::new(observed)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(usize::MAX);
    client.ready().await?;
    client.unary(request, path, BytesCodec).await
}
