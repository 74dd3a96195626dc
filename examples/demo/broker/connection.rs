//! One client, from its CONNECT to its end.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;
use tokio_util::either::Either;

use super::codec::Codec;
use super::hub::{Fate, Hub};
use super::mischief::{Place, Treatment};
use super::packet::{Publish, Reply, Request, reason};
use super::websocket;

/// Who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(10);

/// PUBACKs that are held back leave when nothing came for so long; else a client whose window is full waits forever.
const IDLE: Duration = Duration::from_millis(3);

/// The last packet of a connection; a client that does not take it has none.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client said farewell; whether it wants its will told.
    Farewell(bool),
    /// It is gone, or was cut.
    Gone,
    /// We say farewell, for this reason.
    Closed(u8),
}

/// A connected client.
#[derive(Debug)]
struct Connection {
    hub: Arc<Hub>,
    number: u64,
    client_id: String,
    frames: Framed<Either<TcpStream, DuplexStream>, Codec>,
    messages: mpsc::Receiver<Publish>,
    /// PUBACKs that wait for their turn.
    held: Vec<Ack>,
    /// Packet ids of messages that the client did not acknowledge yet.
    open: HashSet<u16>,
    next_id: u16,
    receive_maximum: usize,
}

/// A PUBACK, and the place in the journal of what it is for.
#[derive(Debug)]
struct Ack {
    packet_id: u16,
    code: u8,
    place: Option<usize>,
}

/// Serves a client until it is gone.
pub(super) async fn serve(socket: TcpStream, hub: Arc<Hub>) {
    if !websocket::is_wanted(&socket).await {
        return speak(Either::Left(socket), hub).await;
    }
    match timeout(PATIENCE, websocket::open(socket)).await {
        Ok(Ok((stream, carry))) => tokio::select! {
            () = speak(Either::Right(stream), hub) => {}
            () = carry => {}
        },
        Ok(Err(error)) => tracing::debug!("no WebSocket: {error}"),
        Err(_) => {}
    }
}

async fn speak(stream: Either<TcpStream, DuplexStream>, hub: Arc<Hub>) {
    let mut frames = Framed::new(stream, Codec::new());
    let Ok(Some(Ok(Request::Connect(connect)))) = timeout(PATIENCE, frames.next()).await else { return };
    if hub.is_silent(&connect.client_id) {
        std::future::pending().await
    }
    let receive_maximum = usize::from(connect.receive_maximum);
    let client_id = connect.client_id.clone();
    let membership = hub.join(connect);
    let mut connection = Connection {
        hub,
        number: membership.number,
        client_id,
        frames,
        messages: membership.out,
        held: Vec::new(),
        open: HashSet::new(),
        next_id: 0,
        receive_maximum,
    };
    let end = tokio::select! {
        () = membership.kick.cancelled() => End::Closed(reason::SESSION_TAKEN_OVER),
        end = connection.run(Reply::ConnAck(membership.limits)) => end.unwrap_or(End::Gone),
    };
    connection.hub.leave(connection.number, end != End::Farewell(false));
    if let End::Closed(code) = end
        && let Ok(Err(error)) = timeout(LAST_WORD, connection.frames.send(Reply::Disconnect(code))).await
    {
        tracing::debug!("a client did not hear our farewell: {error}");
    }
}

impl Connection {
    async fn run(&mut self, welcome: Reply) -> io::Result<End> {
        self.frames.send(welcome).await?;
        loop {
            tokio::select! {
                request = self.frames.next() => {
                    let Some(request) = request else { return Ok(End::Gone) };
                    if let Some(end) = self.request(request?).await? {
                        return Ok(end);
                    }
                }
                Some(message) = self.messages.recv(), if self.open.len() < self.receive_maximum => {
                    self.deliver(message).await?;
                }
                () = sleep(IDLE), if !self.held.is_empty() => {
                    while let Some(ack) = self.held.pop() {
                        self.acknowledge(ack).await?;
                    }
                }
            }
        }
    }

    async fn request(&mut self, request: Request) -> io::Result<Option<End>> {
        if self.hub.is_silent(&self.client_id) {
            std::future::pending().await
        }
        match request {
            Request::Connect(_) => return Ok(Some(End::Gone)),
            Request::Publish(publish) => return self.publish(&publish).await,
            Request::PubAck(packet_id) => drop(self.open.remove(&packet_id)),
            Request::Subscribe(packet_id, filters) => {
                // What was kept waits in the channel until the SUBACK is out.
                let codes = self.hub.subscribe(self.number, filters);
                self.frames.send(Reply::SubAck(packet_id, codes)).await?;
            }
            Request::Unsubscribe(packet_id, filters) => {
                self.hub.unsubscribe(self.number, &filters);
                self.frames.send(Reply::UnsubAck(packet_id, filters.len())).await?;
            }
            Request::Ping => self.frames.send(Reply::Pong).await?,
            Request::Disconnect(with_will) => return Ok(Some(End::Farewell(with_will))),
        }
        Ok(None)
    }

    async fn publish(&mut self, publish: &Publish) -> io::Result<Option<End>> {
        if publish.qos > 0 && self.hub.exceeds(self.held.len() + 1) {
            return Ok(Some(End::Closed(reason::RECEIVE_MAXIMUM_EXCEEDED)));
        }
        let ack = Ack { packet_id: publish.packet_id, code: reason::SUCCESS, place: None };
        match self.hub.fate(self.number, publish, self.held.len()) {
            Fate::Cut(Place::BeforeIt) => return Ok(Some(End::Gone)),
            Fate::Cut(Place::BeforeItsAck) => {
                self.hub.take(publish, Some(self.number));
                return Ok(Some(End::Gone));
            }
            Fate::Cut(Place::AfterItsAck) => {
                let place = self.hub.take(publish, Some(self.number));
                self.hold(Ack { place, ..ack }).await?;
                return Ok(Some(End::Gone));
            }
            Fate::Treated(Treatment::Take) => {
                let place = self.hub.take(publish, Some(self.number));
                if publish.qos > 0 {
                    self.hold(Ack { place, ..ack }).await?;
                }
            }
            Fate::Treated(Treatment::Refuse(code)) => self.hold(Ack { code, ..ack }).await?,
            Fate::Treated(Treatment::Close(code)) => return Ok(Some(End::Closed(code))),
        }
        Ok(None)
    }

    /// Takes a PUBACK into the round of those that wait, which is empty as long as nobody wants mischief.
    async fn hold(&mut self, ack: Ack) -> io::Result<()> {
        self.held.push(ack);
        while let Some(place) = self.hub.release(self.number, self.held.len()) {
            let ack = self.held.swap_remove(place);
            self.acknowledge(ack).await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, ack: Ack) -> io::Result<()> {
        self.hub.acknowledged(ack.place);
        self.frames.send(Reply::PubAck(ack.packet_id, ack.code)).await
    }

    async fn deliver(&mut self, mut message: Publish) -> io::Result<()> {
        if message.qos > 0 {
            // There is a free one: the Receive Maximum is smaller than the number of ids.
            loop {
                self.next_id = self.next_id.checked_add(1).unwrap_or(1);
                if self.open.insert(self.next_id) {
                    break;
                }
            }
            message.packet_id = self.next_id;
        }
        self.frames.send(Reply::Publish(message)).await
    }
}
