//! The client of the trim service, on a channel that finds its instances, balances and retries.

use std::sync::Arc;

use bootstrap::CompressionEncoding;
use discovery::{Attempt, Channel, EarlierAttempts, Instance, ServedBy};
use proto::{TrimRequest, TrimResponse, trim_client::TrimClient};
use tonic::{Request, Response, Status};

use crate::{caller::Caller, error_detail::ErrorDetail};

/// A trimmed text and the instance that trimmed it.
#[derive(Debug)]
pub(crate) struct Trimmed {
    pub(crate) text: String,
    /// The ID of the instance that answered.
    pub(crate) instance: String,
}

/// A trimmed text and the attempts that it took.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) text: String,
    /// The instance that answered.
    pub(crate) instance: Option<Arc<Instance>>,
    /// The attempts before it.
    pub(crate) earlier: Vec<Attempt>,
}

/// Calls the trim service.
pub(crate) struct RemoteTrim {
    client: TrimClient<Channel>,
    detail: ErrorDetail,
}

impl RemoteTrim {
    pub(crate) fn new(
        channel: Channel,
        max_message: usize,
        compression: Option<CompressionEncoding>,
        detail: ErrorDetail,
    ) -> Self {
        let mut client = TrimClient::new(channel).max_decoding_message_size(max_message);
        if let Some(encoding) = compression {
            client = client.send_compressed(encoding).accept_compressed(encoding);
        }
        Self { client, detail }
    }

    /// Trims one text, within the caller's deadline.
    ///
    /// # Errors
    ///
    /// `DEADLINE_EXCEEDED` when the time is up, else UNAVAILABLE: the caller of this service cannot
    /// act on any other status of the service behind it.
    pub(crate) async fn trim(&self, text: String, caller: Caller) -> Result<Trimmed, Status> {
        let response = self.send(text, caller).await;
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
    ///
    /// # Errors
    ///
    /// The status of the channel, with each attempt.
    pub(crate) async fn trace(&self, text: String, caller: Caller) -> Result<Traced, Status> {
        let mut response = self.send(text, caller).await?;
        let extensions = response.extensions_mut();
        Ok(Traced {
            instance: extensions.remove::<ServedBy>().map(|served| served.0),
            earlier: extensions
                .remove::<EarlierAttempts>()
                .map_or_else(Vec::new, |earlier| earlier.0),
            text: response.into_inner().s,
        })
    }

    async fn send(&self, text: String, caller: Caller) -> Result<Response<TrimResponse>, Status> {
        let mut request = Request::new(TrimRequest { s: text });
        if let Some(key) = caller.key {
            request.extensions_mut().insert(key);
        }
        if let Some(deadline) = caller.deadline {
            request.extensions_mut().insert(deadline);
        }
        self.client.clone().trim_space(request).await
    }
}
