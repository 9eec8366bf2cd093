//! Connects to a host name with several addresses: Happy Eyeballs (RFC 8305), as simplified by gRFC A61.
//!
//! The address families alternate, beginning with the family of the first address. The next address is
//! tried when an attempt has failed or has taken a quarter of a second, and the first success wins. An
//! attempt has succeeded when the server has sent its first frame: a network can drop the packets of
//! one family, and a process that hangs accepts connections.

use std::{fmt, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::lookup_host, time::sleep};

use crate::{BoxError, connection::ConnectError, error::chain, instance::Instance};

/// The recommended connection attempt delay (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses named one by one in an error.
const MAX_NAMED: usize = 4;

/// The instance's addresses, in the order in which they are tried. A name is resolved at every call.
pub(super) async fn resolve(instance: &Instance) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = (instance.host.as_str(), instance.port);
    let addresses = lookup_host(host).await.map_err(ConnectError::stream)?;
    let addresses = alternate(addresses);
    if addresses.is_empty() {
        let error = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        return Err(ConnectError::Connect(error.into()));
    }
    Ok(addresses)
}

/// Orders the addresses so that the families alternate.
fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let first_is_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = ordered.len();
        ordered.extend(first.next());
        ordered.extend(second.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Connects to the addresses in their order, each a little after the one before. The other attempts
/// are cancelled when one succeeds.
pub(super) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            attempts.push(async move { (address, attempt.await) });
        }
        tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some((_, Ok(connected))) => return Ok(connected),
                Some((address, Err(error))) => failed.push((address, error)),
                None => return Err(all_failed(failed)),
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

/// The only error, or one that names the errors of all addresses.
fn all_failed(mut failed: Vec<(SocketAddr, ConnectError)>) -> ConnectError {
    if failed.len() == 1
        && let Some((_, error)) = failed.pop()
    {
        return error;
    }
    // The other addresses may have failed for the same lack of descriptors.
    if let Some(index) = failed.iter().position(|(_, error)| error.is_shortage()) {
        return failed.swap_remove(index).1;
    }
    let handshake = failed
        .iter()
        .any(|(_, error)| matches!(error, ConnectError::Handshake(_)));
    let error = BoxError::from(AllFailed(failed));
    if handshake {
        ConnectError::Handshake(error)
    } else {
        ConnectError::Connect(error)
    }
}

/// The errors of all addresses of a host.
#[derive(Debug, thiserror::Error)]
struct AllFailed(Vec<(SocketAddr, ConnectError)>);

impl fmt::Display for AllFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, error)) in self.0.iter().take(MAX_NAMED).enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            let error = match error {
                ConnectError::Connect(source) | ConnectError::Handshake(source) => chain(&**source),
                ConnectError::Timeout(_) | ConnectError::NoDescriptor(_) => error.to_string(),
            };
            write!(f, "{separator}{address}: {error}")?;
        }
        if self.0.len() > MAX_NAMED {
            write!(f, "; and {} more", self.0.len() - MAX_NAMED)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter()
            .map(|address| address.parse().unwrap())
            .collect()
    }

    fn refused() -> ConnectError {
        ConnectError::Connect("refused".into())
    }

    #[test]
    fn families_alternate_from_that_of_the_first_address() {
        for (given, expected) in [
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"][..],
                &["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"][..],
            ),
            (
                &["10.0.0.1:1", "10.0.0.2:1", "[::1]:1", "[::2]:1"],
                &["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "[::2]:1"],
            ),
            (&["10.0.0.1:1"], &["10.0.0.1:1"]),
            (&[], &[]),
        ] {
            let ordered = alternate(addresses(given).into_iter());
            assert_eq!(ordered, addresses(expected));
        }
    }

    /// Races to four addresses and returns the winner, the times at which the attempts began, and the
    /// time taken, in milliseconds.
    async fn raced<F>(
        attempt: impl Fn(usize) -> F,
    ) -> (Result<usize, ConnectError>, Vec<u128>, u128)
    where
        F: Future<Output = Result<(), ConnectError>>,
    {
        let list = addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1"]);
        let started = Instant::now();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let result = race(list.clone(), |address| {
            begun.lock().unwrap().push(started.elapsed().as_millis());
            let index = list.iter().position(|known| *known == address).unwrap();
            let attempt = attempt(index);
            async move { attempt.await.map(|()| index) }
        })
        .await;
        let begun = begun.lock().unwrap().clone();
        (result, begun, started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_costs_a_quarter_of_a_second() {
        let (winner, begun, taken) = raced(|index| async move {
            if index == 0 {
                pending::<()>().await;
            }
            Ok(())
        })
        .await;
        assert_eq!((winner.unwrap(), begun, taken), (1, vec![0, 250], 250));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_at_once_after_a_failure() {
        let (winner, begun, taken) = raced(|index| async move {
            sleep(10 * MS).await;
            if index < 3 { Err(refused()) } else { Ok(()) }
        })
        .await;
        assert_eq!((winner.unwrap(), taken), (3, 40));
        assert_eq!(begun, [0, 10, 20, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_may_still_win() {
        let (winner, begun, taken) = raced(|index| async move {
            sleep(if index == 0 { 600 } else { 1_000 } * MS).await;
            Ok(())
        })
        .await;
        assert_eq!((winner.unwrap(), taken), (0, 600));
        assert_eq!(begun, [0, 250, 500]);
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_fail_the_error_names_every_address() {
        let (result, _, _) = raced(|_| async { Err(refused()) }).await;
        let error = chain(&result.unwrap_err());
        for part in [
            "cannot connect: ",
            "[::1]:1: refused",
            "10.0.0.2:1: refused",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_without_a_name_is_itself() {
        let instance = Instance::new("127.0.0.1", 7).unwrap();
        let resolved = resolve(&instance).await.unwrap();
        assert_eq!(resolved, addresses(&["127.0.0.1:7"]));
    }
}
