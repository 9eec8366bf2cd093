//! Many large calls, over one channel or over a new one each.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::unary::is_large;
use crate::{
    messages::{large_request, test_service_client::TestServiceClient},
    target::{Target, served_by},
};

/// Calls over one channel. A multiple of one, two and three.
const CALLS: usize = 102;
/// Channels with one call each.
const CHANNELS: usize = 20;

pub(crate) async fn rpc(target: &Target<'_>) -> Result<()> {
    let mut served = HashMap::<_, usize>::new();
    for _ in 0..CALLS {
        let response = target.client().unary_call(large_request()).await?;
        is_large(response.get_ref())?;
        *served.entry(served_by(response.extensions())?).or_default() += 1;
    }
    let share = CALLS / target.count();
    ensure!(
        served.len() == target.count() && served.values().all(|calls| *calls == share),
        "the calls were not rotated evenly: {served:?}"
    );
    Ok(())
}

pub(crate) async fn channel(target: &Target<'_>) -> Result<()> {
    for _ in 0..CHANNELS {
        let mut client = TestServiceClient::new(target.another_channel().await?);
        is_large(client.unary_call(large_request()).await?.get_ref())?;
    }
    Ok(())
}
