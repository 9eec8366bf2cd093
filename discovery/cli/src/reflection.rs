//! The reflection of a server: its services, and the descriptions of their methods.
//!
//! Version v1 of the protocol is tried first, then v1alpha, which older servers have.

use std::{collections::BTreeMap, time::Duration};

use discovery::{CallOptions, Channel};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use tonic_reflection::pb;

/// One question about a server.
#[derive(Clone, Debug)]
enum Question {
    Services,
    /// The file that has the symbol, and all files that it needs.
    Files(String),
}

/// The answer to one question.
#[derive(Debug)]
enum Answer {
    Services(Vec<String>),
    Files(Files),
}

/// The names of the services, sorted. The reflection itself is left out.
///
/// # Errors
///
/// `UNIMPLEMENTED` if no instance has the reflection; any other status of the server.
pub(crate) async fn services(channel: &Channel, limit: Duration) -> Result<Vec<String>, Status> {
    let Answer::Services(mut names) = ask(channel, &Question::Services, limit).await? else {
        return Err(unexpected());
    };
    names.retain(|name| !name.starts_with("grpc.reflection."));
    names.sort_unstable();
    Ok(names)
}

/// The descriptions that the symbol needs, such as those of a service and its messages.
///
/// # Errors
///
/// `NOT_FOUND` if the server has no such symbol; otherwise as [`services`].
pub(crate) async fn descriptors(
    channel: &Channel,
    symbol: &str,
    limit: Duration,
) -> Result<DescriptorPool, Status> {
    let question = Question::Files(symbol.to_owned());
    let Answer::Files(files) = ask(channel, &question, limit).await? else {
        return Err(unexpected());
    };
    let mut pool = DescriptorPool::new();
    let added = pool.add_file_descriptor_protos(files.read.into_values());
    added.map_err(|error| {
        Status::internal(format!("the server's descriptors are unusable: {error}"))
    })?;
    Ok(pool)
}

async fn ask(channel: &Channel, question: &Question, limit: Duration) -> Result<Answer, Status> {
    match v1(channel, question, limit).await {
        Err(status) if status.code() == Code::Unimplemented => {
            v1alpha(channel, question, limit).await
        }
        answer => answer,
    }
}

fn unexpected() -> Status {
    Status::internal("the server's reflection answered another question than the one asked")
}

/// The files read so far, by name.
#[derive(Debug, Default)]
struct Files {
    read: BTreeMap<String, FileDescriptorProto>,
}

impl Files {
    fn add(&mut self, encoded: Vec<Vec<u8>>) -> Result<(), Status> {
        for file in encoded {
            let file = FileDescriptorProto::decode(&*file)
                .map_err(|error| Status::internal(format!("a malformed descriptor: {error}")))?;
            self.read.insert(file.name().to_owned(), file);
        }
        Ok(())
    }

    /// A file that another one needs and that is not there yet.
    fn missing(&self) -> Option<&String> {
        let needed = self.read.values().flat_map(|file| &file.dependency);
        needed
            .into_iter()
            .find(|name| !self.read.contains_key(*name))
    }
}

/// A stream of requests in one version of the protocol: the messages have the same form in both.
macro_rules! conversation {
    ($version:ident) => {
        async fn $version(
            channel: &Channel,
            question: &Question,
            limit: Duration,
        ) -> Result<Answer, Status> {
            use pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };
            let ask = |message| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            };
            let first = match question {
                Question::Services => MessageRequest::ListServices(String::new()),
                Question::Files(symbol) => MessageRequest::FileContainingSymbol(symbol.clone()),
            };
            // One request at a time: the queue always has room.
            let (questions, receiver) = mpsc::channel(1);
            let _sent = questions.try_send(ask(first));
            let mut request = Request::new(ReceiverStream::new(receiver));
            request.set_timeout(limit);
            let options = CallOptions::new().with_timeout(limit);
            request.extensions_mut().insert(options);
            let mut client = ServerReflectionClient::new(channel.clone());
            client = client.max_decoding_message_size(usize::MAX);
            let mut answers = client.server_reflection_info(request).await?.into_inner();
            let mut files = Files::default();
            loop {
                let answer = answers.message().await?.ok_or_else(unexpected)?;
                match answer.message_response {
                    Some(MessageResponse::ListServicesResponse(services)) => {
                        let names = services.service.into_iter().map(|service| service.name);
                        return Ok(Answer::Services(names.collect()));
                    }
                    Some(MessageResponse::FileDescriptorResponse(found)) => {
                        files.add(found.file_descriptor_proto)?;
                    }
                    Some(MessageResponse::ErrorResponse(error)) => {
                        let code = Code::from_i32(error.error_code);
                        return Err(Status::new(code, error.error_message));
                    }
                    _ => return Err(unexpected()),
                }
                let Some(name) = files.missing() else {
                    return Ok(Answer::Files(files));
                };
                let _sent = questions.try_send(ask(MessageRequest::FileByFilename(name.clone())));
            }
        }
    };
}

conversation!(v1);
conversation!(v1alpha);
