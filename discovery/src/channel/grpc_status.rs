//! Conversions between a [`CallError`] and a [`tonic::Status`]. A generated client returns the status;
//! the error is its source.

use std::{error::Error as _, sync::Arc};

use bytes::Bytes;
use tonic::Status;

use crate::{code::Code, retry::CallError};

impl CallError {
    /// The error behind a status that a call through a [`Channel`](crate::Channel) ended with; `None`
    /// if a server sent the status.
    ///
    /// ```
    /// # async fn example(mut client: proto::trim_client::TrimClient<discovery::Channel>) {
    /// use discovery::retry::{CallError, CallErrorKind};
    ///
    /// if let Err(status) = client.trim_space(proto::TrimRequest::default()).await
    ///     && let Some(error) = CallError::of(&status)
    ///     && error.kind == CallErrorKind::NoInstances
    /// {
    ///     eprintln!("start an instance first: {error}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }
}

impl From<CallError> for Status {
    /// Keeps the details and the metadata of the server's last status.
    fn from(error: CallError) -> Self {
        let server = error.trailers().and_then(Self::from_header_map);
        let (details, metadata) = server
            .map(|status| {
                let details = Bytes::copy_from_slice(status.details());
                (details, status.metadata().clone())
            })
            .unwrap_or_default();
        let (code, message) = (error.code.into(), error.to_string());
        let mut status = Self::with_details_and_metadata(code, message, details, metadata);
        status.set_source(Arc::new(error));
        status
    }
}

impl From<Code> for tonic::Code {
    fn from(code: Code) -> Self {
        // Both count as the protocol does.
        Self::from_i32(code as i32)
    }
}
