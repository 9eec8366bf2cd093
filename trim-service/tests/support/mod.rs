//! Shared by the tests of the trim service's binary.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::{net::SocketAddr, time::Duration};

use proto::{TrimRequest, trim_client::TrimClient};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Far above the time that any step takes on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.unwrap()
}

pub(crate) async fn trim(channel: Channel, text: &str) -> Result<String, Status> {
    let request = TrimRequest { s: text.to_owned() };
    let response = TrimClient::new(channel).trim_space(request).await?;
    Ok(response.into_inner().s)
}
