//! A small MQTT broker inside this process, for the demo, and for tests that need a broker which misbehaves on demand.
//!
//! MQTT 3.1.1 and 5 over plain TCP and, on the same port, WebSocket, for everybody: QoS 0 and 1, wildcards, retained messages, retain handling and
//! retain-as-published, Last Will, takeover of a client id. No sessions that outlive their connection, no QoS 2, no
//! persistence: a broker that is started again has forgotten all. What the gateway promises is tested against a real
//! mosquitto; this one is for what mosquitto won't do ([`Mischief`]).
//!
//! It lives as long as its [`Broker`]: when that is dropped, all connections are cut without a word.

mod codec;
mod connection;
mod hub;
mod mischief;
mod packet;
mod websocket;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::task::{Owned, TaskSet};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use hub::Hub;
pub(crate) use hub::Journal;
pub(crate) use mischief::{Mischief, Treatment};
pub(crate) use packet::{Limits, Publish, reason};

/// After an error of the listener, such as too many open files, the next attempt waits.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How a broker is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    /// Where it listens on loopback; 0 for any free port.
    pub(crate) port: u16,
    /// What it tells MQTT 5 clients of its limits.
    pub(crate) limits: Limits,
    /// Whether it keeps a journal of all that it takes. It grows without bound.
    pub(crate) journal: bool,
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    port: u16,
    hub: Arc<Hub>,
    stop: CancellationToken,
    listening: Owned<()>,
}

impl Broker {
    /// Starts one.
    ///
    /// # Errors
    /// When the port is taken.
    pub(crate) async fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).await?;
        let port = listener.local_addr()?.port();
        let hub = Arc::new(Hub::new(settings.limits, settings.journal));
        let stop = CancellationToken::new();
        let listening = Owned::spawn(listen(listener, Arc::clone(&hub), stop.clone()));
        Ok(Broker { port, hub, stop, listening })
    }

    /// As when it is dropped, and its port is free after that.
    ///
    /// # Errors
    /// The text of a panic, when it had panicked.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.stop.cancel();
        self.listening.ended().await
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Publishes something of its own at QoS 1.
    pub(crate) fn publish(&self, topic: &str, payload: &str) {
        self.hub.take(&Publish::new(topic, payload.to_owned()), None);
    }

    /// All messages from now on; who is slow misses some.
    pub(crate) fn tap(&self) -> broadcast::Receiver<Publish> {
        self.hub.tap()
    }

    /// Misbehaves from now on in this way, and in no other.
    pub(crate) fn misbehave(&self, mischief: Mischief) {
        self.hub.misbehave(mischief);
    }

    /// What happened so far.
    pub(crate) fn journal(&self) -> Journal {
        self.hub.journal()
    }
}

async fn listen(listener: TcpListener, hub: Arc<Hub>, stop: CancellationToken) {
    let mut connections = TaskSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!("small packets may be late: {error}");
                    }
                    connections.spawn("connection", connection::serve(socket, Arc::clone(&hub)));
                }
                Err(error) => {
                    tracing::warn!("the broker's listener: {error}");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            },
            Some(_) = connections.next_ended() => {}
        }
    }
}
