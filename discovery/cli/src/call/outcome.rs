//! The outcome of a call: the answer on standard output, everything else on standard error.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use discovery::{Attempt, CallError, CallErrorKind, Code, Instance};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use tonic::{
    Response, Status,
    metadata::{KeyAndValueRef, MetadataMap},
};

use super::{details, method::MethodName};
use crate::output;

/// An answer, and the attempts that led to it.
pub(super) struct Outcome {
    pub(super) answer: Result<Response<Bytes>, Status>,
    /// The instance that answered.
    pub(super) served_by: Option<Arc<Instance>>,
    /// The attempts before the answer.
    pub(super) earlier: Vec<Attempt>,
    /// The time of the whole call.
    pub(super) elapsed: Duration,
}

impl Outcome {
    /// Prints the attempts and the headers.
    pub(super) fn explain(&self, method: &MethodName) {
        output::note(&format!("{} in {:.1?}", method.path(), self.elapsed));
        let (code, metadata) = match &self.answer {
            Ok(response) => (Code::Ok, response.metadata()),
            Err(status) => (code(status), status.metadata()),
        };
        let error = self.answer.as_ref().err().and_then(CallError::of);
        let failed = error.map_or(&*self.earlier, |error| &*error.attempts);
        for (nth, attempt) in failed.iter().enumerate() {
            let Attempt {
                instance,
                elapsed,
                code,
                reason,
                ..
            } = attempt;
            let nth = nth + 1;
            output::note(&format!(
                "  {nth}. {instance}  {code}  {elapsed:.1?}  {reason}"
            ));
        }
        if let Some(instance) = &self.served_by {
            let nth = failed.len() + 1;
            // The channel does not say when this attempt began.
            let elapsed = self.elapsed;
            output::note(&format!("  {nth}. {instance}  {code}  after {elapsed:.1?}"));
        }
        for (name, value) in headers(metadata) {
            output::note(&format!("  {name}: {value}"));
        }
    }
}

fn headers(metadata: &MetadataMap) -> impl Iterator<Item = (String, String)> + '_ {
    metadata.iter().map(|header| match header {
        KeyAndValueRef::Ascii(name, value) => {
            let value = value.to_str().unwrap_or("(not printable)");
            (name.to_string(), value.to_owned())
        }
        KeyAndValueRef::Binary(name, value) => {
            let encoded = String::from_utf8_lossy(value.as_encoded_bytes());
            (name.to_string(), encoded.into_owned())
        }
    })
}

/// gRPC's code in the library's type, which has its name.
fn code(status: &Status) -> Code {
    let number = i32::from(status.code());
    let found = Code::ALL.iter().find(|code| **code as i32 == number);
    found.copied().unwrap_or(Code::Unknown)
}

/// Prints the answer as JSON, with a value for every field.
///
/// # Errors
///
/// When the answer is not the method's message.
pub(super) fn print_message(method: &MethodDescriptor, bytes: &Bytes) -> anyhow::Result<()> {
    let output = method.output();
    let name = output.full_name().to_owned();
    let message = DynamicMessage::decode(output, bytes.clone())
        .with_context(|| format!("the answer is not a {name}"))?;
    let options = SerializeOptions::new().skip_default_fields(false);
    let mut text = Vec::new();
    let mut json = serde_json::Serializer::pretty(&mut text);
    message.serialize_with_options(&mut json, &options)?;
    output::print(&format!("{}\n", String::from_utf8_lossy(&text)))?;
    Ok(())
}

/// Prints an error with its details.
pub(super) fn print_status(status: &Status, pool: &DescriptorPool) {
    output::note(&format!("error: {}: {}", code(status), status.message()));
    for detail in details::decode(status.details(), pool) {
        output::note(&format!("detail: {detail:#}"));
    }
    let error = CallError::of(status);
    if error.is_some_and(|error| {
        matches!(
            error.kind,
            CallErrorKind::NoInstances
                | CallErrorKind::AllUnreachable
                | CallErrorKind::RegistrySilent
        )
    }) {
        output::note("`discovery doctor` looks for the cause");
    }
}
