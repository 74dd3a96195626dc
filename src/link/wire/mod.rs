//! The wire below a link: an in-process socket on one side, the broker on the other, and a relay between them.
//!
//! rumqttc connects to the socket and speaks plain MQTT into it; the relay resolves the broker's name, connects, asks a
//! proxy for the way, does TLS and WebSocket, counts bytes, cuts what is too large ([`frames`]), and closes a connection on which nothing was received for too
//! long. It is one task, which ends with the reason why the connection did.

mod connect;
mod frames;
mod http;
mod identity;
mod proxy;
pub(super) mod websocket;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use super::proxy::Via;
use super::{Url, Version};
use crate::task::Owned;
use frames::Frames;
pub use identity::Identity;

/// One TLS record, and more than a window of readings.
const BUFFER: usize = 16 * 1024;

/// For what is said while a connection ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where a wire leads to, and how.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) url: Url,
    /// The proxy on the way.
    pub(super) via: Option<Via>,
    /// Header fields of a WebSocket's request.
    pub(super) headers: Vec<(String, String)>,
    /// Certificates; `None`: without TLS.
    pub(super) identity: Option<Arc<Identity>>,
    /// The name that the broker's certificate must be for, where it is not the URL's host.
    pub(super) server_name: Option<String>,
    /// For all until MQTT may speak: name resolution, TCP, proxy, TLS and WebSocket.
    pub(super) connect_timeout: Duration,
    /// A connection on which nothing was received for so long is dead.
    pub(super) silence: Duration,
    /// How the broker's packets are to be read.
    pub(super) version: Version,
    pub(super) traffic: Arc<Traffic>,
}

/// Bytes on the wire since the start, modulo the machine's word (32-bit boards have no larger atomics).
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of MQTT sent.
    pub sent: AtomicUsize,
    /// Bytes of MQTT received.
    pub received: AtomicUsize,
}

/// Why a wire ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// A certificate file can't be used.
    #[error("{0}")]
    Files(String),
    /// No connection: name, address, time.
    #[error("{0}")]
    Connect(String),
    /// TLS: one side does not accept the other.
    #[error("{0}")]
    Tls(String),
    /// The broker ended the connection.
    #[error("{0}")]
    Closed(String),
    /// Nothing came from the broker for too long.
    #[error("{0}")]
    Silent(String),
    /// What it sent is no MQTT.
    #[error("{0}")]
    Protocol(String),
}

/// Opens the in-process socket and starts the relay behind it. The text is the socket's address for rumqttc.
pub(super) fn open(route: Route) -> Result<(String, Owned<Result<(), WireError>>), WireError> {
    let failed = |error: std::io::Error| WireError::Connect(format!("no socket for the relay: {error}"));
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| WireError::Connect(format!("no random numbers: {error}")))?;
    // In the abstract name space: nothing on disk, and gone with the process.
    let name = format!("sluicegate-{:032x}", u128::from_ne_bytes(random));
    let address = SocketAddr::from_abstract_name(&name).map_err(failed)?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    Ok((format!("\0{name}"), Owned::spawn(relay(route, listener))))
}

async fn relay(route: Route, listener: UnixListener) -> Result<(), WireError> {
    let accepted = async {
        loop {
            let (near, _) = listener.accept().await?;
            // Anybody on this machine can reach an abstract socket; only this process is meant.
            let peer = near.peer_cred()?.pid();
            if peer == i32::try_from(std::process::id()).ok() {
                return Ok(near);
            }
        }
    };
    let near = accepted.await.map_err(|error: std::io::Error| WireError::Connect(format!("relay: {error}")))?;
    drop(listener);
    let Route { silence, version, traffic, connect_timeout, .. } = &route;
    let deadline = Instant::now() + *connect_timeout;
    let mut far = timeout_at(deadline, connect(&route)).await.map_err(|_| {
        let by = route.via.as_ref().map(|via| format!(" by the proxy {}", via.proxy)).unwrap_or_default();
        WireError::Connect(format!("no answer from {}{by} within {} s", route.url, connect_timeout.as_secs()))
    })??;
    let is_websocket = route.url.scheme.is_websocket();
    if is_websocket {
        let opened = timeout_at(deadline, websocket::upgrade(&mut far, &route.url, &route.headers)).await;
        let late = || WireError::Connect(format!("{} did not open the WebSocket in time", route.url));
        opened.map_err(|_| late())??;
    }
    shuttle(near, far, Frames::new(*version), is_websocket, *silence, traffic).await
}

/// A connection to the broker.
type Far = Either<TcpStream, TlsStream<TcpStream>>;

/// TCP to the broker, or to the proxy and through it, and TLS.
async fn connect(route: &Route) -> Result<Far, WireError> {
    let url = &route.url;
    let tcp = match &route.via {
        Some(via) => {
            let tcp = connect::tcp(&via.proxy.host, via.proxy.port, &via.to_string()).await?;
            proxy::through(via, tcp, url).await?
        }
        None => connect::tcp(&url.host, url.port, &url.to_string()).await?,
    };
    let Some(identity) = &route.identity else { return Ok(Either::Left(tcp)) };
    let wanted = route.server_name.as_ref().unwrap_or(&url.host);
    let name = ServerName::try_from(wanted.clone())
        .map_err(|_| WireError::Tls(format!("`{wanted}` can't be in a certificate: expected a host name")))?;
    let tls = identity.connector().connect(name, tcp).await.map_err(|error| identity::explain(&error, wanted))?;
    Ok(Either::Right(tls))
}

/// Carries bytes both ways until one side ends.
async fn shuttle(
    near: UnixStream,
    far: Far,
    mut frames: Frames,
    is_websocket: bool,
    silence: Duration,
    traffic: &Traffic,
) -> Result<(), WireError> {
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    // What the WebSocket's server is owed: the newest answer stands for those before it (RFC 6455, section 5.5.3).
    let (owed, mut owing) = watch::channel(None);
    let down = async {
        let mut buffer = vec![0; BUFFER];
        let mut quiet_at = Instant::now() + silence;
        let mut incoming = is_websocket.then(websocket::Incoming::default);
        loop {
            let quiet = || WireError::Silent(format!("the broker was silent for {:.1} s", silence.as_secs_f64()));
            let read = timeout_at(quiet_at, far_read.read(&mut buffer)).await.map_err(|_| quiet())?;
            let mut count = match read {
                Ok(0) => return Err(WireError::Closed("end of stream".to_owned())),
                Ok(count) => count,
                Err(error) => return Err(identity::explain_read(&error)),
            };
            let mut farewell = None;
            if let (Some(incoming), Some(bytes)) = (&mut incoming, buffer.get_mut(..count)) {
                let passed = incoming.pass(bytes);
                let (length, answers) = passed
                    .map_err(|why| WireError::Protocol(format!("the broker broke the rules of WebSocket: {why}")))?;
                count = length;
                if let Some(answer) = answers.into_iter().next_back() {
                    farewell = answer.farewell();
                    owed.send_replace(Some(answer));
                }
            }
            // A PING may be a proxy's, before a broker that hangs.
            if count > 0 {
                quiet_at = Instant::now() + silence;
            }
            traffic.received.fetch_add(count, Ordering::Relaxed);
            let Some(bytes) = buffer.get(..count) else { continue };
            let bytes = frames.pass(bytes).map_err(|error| WireError::Protocol(error.to_string()))?;
            if near_write.write_all(bytes).await.is_err() {
                return Ok(());
            }
            if let Some(why) = farewell {
                // The other half answers it first, where the broker still takes something.
                tokio::time::sleep(FAREWELL).await;
                return Err(WireError::Closed(why));
            }
        }
    };
    let up = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut send = async |bytes: &[u8]| {
                let written = async {
                    far_write.write_all(bytes).await?;
                    far_write.flush().await
                };
                written.await.map_err(|error| WireError::Closed(error.to_string()))
            };
            let count = tokio::select! {
                _ = owing.changed() => {
                    let answer = owing.borrow_and_update().clone();
                    let Some(answer) = answer else { continue };
                    send(&websocket::reply(&answer)).await?;
                    match answer.farewell() {
                        Some(why) => return Err(WireError::Closed(why)),
                        None => continue,
                    }
                }
                read = near_read.read(&mut buffer) => match read {
                    // Our own side is done: what is left goes out before the connection closes.
                    Ok(0) | Err(_) => break,
                    Ok(count) => count,
                },
            };
            let Some(bytes) = buffer.get(..count) else { continue };
            if is_websocket {
                send(&websocket::data(bytes)).await?
            } else {
                send(bytes).await?
            }
            traffic.sent.fetch_add(count, Ordering::Relaxed);
        }
        let closed = async {
            if is_websocket {
                far_write.write_all(&websocket::close()).await?;
            }
            far_write.shutdown().await
        };
        closed.await.map_err(|error| WireError::Closed(error.to_string()))
    };
    tokio::pin!(down, up);
    tokio::select! {
        end = &mut down => end,
        end = &mut up => match end {
            Ok(()) => Ok(()),
            // What the broker said before it closed explains more than the failed write.
            Err(error) => match timeout(FAREWELL, &mut down).await {
                Ok(Err(said)) => Err(said),
                Ok(Ok(())) | Err(_) => Err(error),
            },
        },
    }
}
