//! Name resolution and TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};

use super::WireError;

/// An address that does not answer at once gets company (RFC 8305, section 5, "Connection Attempt Delay").
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to the first address of the host that answers. All are tried, each a little after the one before, so
/// that one which leads nowhere costs a moment and not the connection.
pub(super) async fn tcp(host: &str, port: u16, to: &str) -> Result<TcpStream, WireError> {
    let found = lookup_host((host, port))
        .await
        .map_err(|error| WireError::Connect(format!("the name `{host}` can't be resolved: {error}")))?;
    let addresses = in_turns(found.collect());
    if addresses.is_empty() {
        return Err(WireError::Connect(format!("the name `{host}` has no address")));
    }
    let mut attempts: FuturesUnordered<_> = addresses
        .into_iter()
        .enumerate()
        .map(|(place, address)| async move {
            tokio::time::sleep(STAGGER * u32::try_from(place).unwrap_or(u32::MAX)).await;
            (address, TcpStream::connect(address).await)
        })
        .collect();
    let mut refusals = Vec::new();
    while let Some((address, attempt)) = attempts.next().await {
        match attempt {
            Ok(stream) => {
                // Without it, small packets wait for the acknowledgement of the one before: 40 ms and more.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("TCP_NODELAY could not be set: {error}");
                }
                return Ok(stream);
            }
            Err(error) => refusals.push(format!("{address}: {}", reason(&error))),
        }
    }
    Err(WireError::Connect(format!("no connection to {to} ({})", refusals.join("; "))))
}

/// IPv6 and IPv4 by turns, beginning with what the resolver put first.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| matches!(address.ip(), IpAddr::V6(_)) == first_is_v6);
    first.reverse();
    second.reverse();
    let mut ordered = Vec::new();
    while let Some(address) = first.pop() {
        ordered.push(address);
        ordered.extend(second.pop());
    }
    second.reverse();
    ordered.extend(second);
    ordered
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "no answer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "the network is down".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_take_turns() {
        let list = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            in_turns(list(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"])),
            list(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(in_turns(list(&["10.0.0.1:1", "[::1]:1"])), list(&["10.0.0.1:1", "[::1]:1"]));
    }
}
