//! The client of the trim service, on a channel that finds its instances, balances and retries.

use std::sync::Arc;

use axum::http::HeaderName;
use bootstrap::{CompressionEncoding, ObservedChannel};
use discovery::{Attempt, Channel, Instance, ServedBy};
use proto::{TrimRequest, trim_client::TrimClient};
use tonic::{Request, Status};

use crate::{caller::Caller, error_detail::ErrorDetail};

/// A client on a channel.
macro_rules! client {
    ($channel:expr, $max_message:expr, $compression:expr) => {{
        let client = TrimClient::new($channel).max_decoding_message_size($max_message);
        match $compression {
            Some(encoding) => client.send_compressed(encoding).accept_compressed(encoding),
            None => client,
        }
    }};
}

/// A trimmed text and the instance that trimmed it.
#[derive(Debug)]
pub(crate) struct Trimmed {
    pub(crate) text: String,
    /// The ID of the instance that answered.
    pub(crate) instance: String,
}

/// A call to the trim service, with the attempts that it took.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The trimmed text, or the status of the channel or of the instance.
    pub(crate) result: Result<String, Status>,
    /// The instance that answered, be it with a text or with a status.
    pub(crate) instance: Option<Arc<Instance>>,
    /// The attempts before it.
    pub(crate) earlier: Vec<Attempt>,
}

/// Calls the trim service.
pub(crate) struct RemoteTrim {
    channel: Channel,
    client: TrimClient<Channel>,
    max_message: usize,
    compression: Option<CompressionEncoding>,
    detail: ErrorDetail,
}

impl RemoteTrim {
    pub(crate) fn new(
        channel: Channel,
        max_message: usize,
        compression: Option<CompressionEncoding>,
        detail: ErrorDetail,
    ) -> Self {
        Self {
            client: client!(channel.clone(), max_message, compression),
            channel,
            max_message,
            compression,
            detail,
        }
    }

    /// The header of requests whose value sends them to one instance.
    pub(crate) fn key_header(&self) -> Option<HeaderName> {
        self.channel.request_hash_header()
    }

    /// Trims one text, within the caller's deadline.
    ///
    /// # Errors
    ///
    /// `DEADLINE_EXCEEDED` when the time is up, else UNAVAILABLE: the caller of this service cannot
    /// act on any other status of the service behind it.
    pub(crate) async fn trim(&self, text: String, caller: Caller) -> Result<Trimmed, Status> {
        let response = self.client.clone().trim_space(request(text, caller)).await;
        let response = response.map_err(|status| self.detail.of_call(status))?;
        let instance = response
            .extensions()
            .get::<ServedBy>()
            .map_or_else(String::new, |served| served.0.id.clone());
        Ok(Trimmed {
            text: response.into_inner().s,
            instance,
        })
    }

    /// Trims one text for an operator, who sees all of it.
    pub(crate) async fn trace(&self, text: String, caller: Caller) -> Traced {
        let observed = ObservedChannel::new(self.channel.clone());
        let mut client = client!(observed.clone(), self.max_message, self.compression);
        let result = client.trim_space(request(text, caller)).await;
        let (instance, earlier) = observed.take();
        Traced {
            result: result.map(|response| response.into_inner().s),
            instance,
            earlier,
        }
    }
}

fn request(text: String, caller: Caller) -> Request<TrimRequest> {
    let mut request = Request::new(TrimRequest { s: text });
    if let Some(key) = caller.key {
        request.extensions_mut().insert(key);
    }
    if let Some(deadline) = caller.deadline {
        request.extensions_mut().insert(deadline);
    }
    request
}
