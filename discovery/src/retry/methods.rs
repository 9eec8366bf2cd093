//! The methods that protobuf descriptors declare: their paths, and the `idempotency_level` that allows
//! to execute a method twice.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{FileDescriptorSet, method_options::IdempotencyLevel};

use crate::error::InvalidSetting;

/// All methods by their paths.
#[derive(Debug, Default)]
pub(crate) struct Methods(HashMap<String, Method>);

/// The declarations of one method.
#[derive(Clone, Copy, Debug)]
struct Method {
    idempotent: bool,
    streaming: bool,
}

impl Methods {
    /// Reads an encoded `FileDescriptorSet`, as `protoc --descriptor_set_out` writes it.
    pub(crate) fn read(encoded: &[u8]) -> Result<Self, InvalidSetting> {
        let set = FileDescriptorSet::decode(encoded).map_err(|error| {
            let expected = "expected an encoded google.protobuf.FileDescriptorSet";
            InvalidSetting::new("file_descriptor_set", error.to_string(), expected)
        })?;
        let mut methods = HashMap::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let declared = Method {
                        idempotent: method.options.as_ref().is_some_and(|options| {
                            options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown
                        }),
                        streaming: method.client_streaming() || method.server_streaming(),
                    };
                    let dot = if file.package().is_empty() { "" } else { "." };
                    let (package, service) = (file.package(), service.name());
                    let path = format!("/{package}{dot}{service}/{}", method.name());
                    methods.insert(path, declared);
                }
            }
        }
        Ok(Self(methods))
    }

    /// The paths that are declared idempotent.
    pub(crate) fn idempotent(&self) -> impl Iterator<Item = &String> {
        self.with(|method| method.idempotent)
    }

    /// The paths whose request or response is declared to be a stream.
    pub(crate) fn streaming(&self) -> impl Iterator<Item = &String> {
        self.with(|method| method.streaming)
    }

    fn with(&self, has: impl Fn(&Method) -> bool) -> impl Iterator<Item = &String> {
        self.0
            .iter()
            .filter(move |(_, method)| has(method))
            .map(|(path, _)| path)
    }

    /// Fails for a path that no service has.
    pub(crate) fn check<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), InvalidSetting> {
        match paths.into_iter().find(|path| !self.0.contains_key(*path)) {
            None => Ok(()),
            Some(path) => {
                let expected = "no service of the file descriptor set has this method";
                Err(InvalidSetting::new(
                    "idempotent",
                    format!("{path:?}"),
                    expected,
                ))
            }
        }
    }
}
