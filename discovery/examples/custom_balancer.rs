//! A custom balancer: sends all calls to the instance with the lowest ID, and a retry to another one.
//! The test needs no network.
//!
//! ```console
//! $ cargo run -p discovery --example custom_balancer
//! $ cargo test -p discovery --example custom_balancer
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

mod support;

use std::sync::Arc;

use discovery::{
    Channel, ServedBy,
    balance::{Balancer, Context, Picker},
    endpoint::Endpoint,
};
use proto::{TrimRequest, trim_client::TrimClient};

/// Makes a picker for every set of endpoints.
#[derive(Debug)]
struct FirstById;

/// The index of the lowest ID in one set.
struct First(usize);

impl Balancer for FirstById {
    fn picker(&self, endpoints: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        let ids = endpoints.iter().map(|endpoint| &endpoint.instance().id);
        let first = ids.enumerate().min_by_key(|(_, id)| *id);
        Box::new(First(first.map_or(0, |(index, _)| index)))
    }
}

impl Picker for First {
    /// The channel takes the next endpoint if the call has tried this one.
    fn pick(&self, _endpoints: &[Arc<Endpoint>], _context: &Context) -> usize {
        self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (one, two) = (support::start().await?, support::start().await?);
    let channel = Channel::builder(format!("static://{one},{two}"), "trim_service")
        .custom_balancer(Arc::new(FirstById))
        .build()?;
    channel.wait_for(|status| status.ready == 2).await?;
    let mut client = TrimClient::new(channel);
    for _ in 0..3 {
        let request = TrimRequest { s: " a b ".into() };
        let response = client.trim_space(request).await?;
        let served = response.extensions().get::<ServedBy>();
        println!("{:?}", served.map(|served| served.0.id.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use discovery::Instance;
    use std::time::Instant;

    use super::*;

    #[test]
    fn picks_the_lowest_id_of_every_set() {
        let endpoint = |id: &str| {
            let instance = Instance::new("127.0.0.1", 1).unwrap();
            Arc::new(Endpoint::new(instance.with_id(id)))
        };
        let mut set = vec![endpoint("c"), endpoint("a"), endpoint("b")];
        let context = Context::new(Instant::now(), 0);
        assert_eq!(FirstById.picker(&set).pick(&set, &context), 1);
        set.remove(1);
        assert_eq!(FirstById.picker(&set).pick(&set, &context), 1);
        set.remove(1);
        assert_eq!(FirstById.picker(&set).pick(&set, &context), 0);
    }
}
