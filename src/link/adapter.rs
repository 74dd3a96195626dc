//! MQTT 3.1.1 and 5 behind one face: sending, polling, and one neutral kind of event.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5 as packet5;
use rumqttc::{Outgoing, v5};

use super::event::KEPT;
use super::{Config, Filter, Limits, MAX_INCOMING, Message, Opening, Publish, Refusal, Session, Version};

/// The largest packet that MQTT has (MQTT 5.0, section 2.1.4), in bytes.
///
/// It is what an MQTT 5 broker is told that we take; of anything smaller nothing good comes. mosquitto 2.0.11 keeps what is
/// larger to itself and takes it for under way for ever: after `max_inflight_messages` of them (20) it sends nothing at
/// QoS 1 any more on that connection. And a sender would never get an answer.
const ANY_SIZE: u32 = 5 + 268_435_455;

/// The sending side.
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The polling side.
pub(super) enum EventLoop {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// A poll under way: it owns the event loop, because a poll that is dropped half-way breaks it.
pub(super) type Polling = Pin<Box<dyn Future<Output = Turn> + Send>>;

/// What came of one poll.
pub(super) struct Turn {
    /// For the next poll; `None` after an error.
    pub(super) event_loop: Option<EventLoop>,
    pub(super) signals: VecDeque<Signal>,
    /// Why the connection is over, once the signals are dealt with.
    pub(super) failed: Option<String>,
}

/// What rumqttc tells, in either version.
pub(super) enum Signal {
    Up(Limits),
    Sent(u16),
    /// An acknowledgement of ours left.
    AckSent,
    Acked(u16, Result<(), Refusal>),
    Subscribed(Vec<bool>),
    Message(Message),
    Alive,
    Parted,
    Refused(String),
    Closed(String),
    Nothing,
}

/// Makes both sides of a connection to the relay's socket.
pub(super) fn open(
    config: &Config,
    opening: &Opening,
    socket: &str,
    capacity: u16,
    login: Option<(String, String)>,
) -> (Client, Polling) {
    let connect_timeout = config.connect_timeout.0.as_secs().max(1);
    let cap = usize::from(capacity);
    // The relay checks the true address, and cuts short what is large.
    match config.version {
        Version::V3 => {
            use rumqttc::{AsyncClient, LastWill, MqttOptions, NetworkOptions, QoS, Transport};
            let mut options = MqttOptions::new(opening.client_id.clone(), socket, 0);
            options
                .set_transport(Transport::unix())
                .set_keep_alive(config.keep_alive.0)
                .set_clean_session(opening.session == Session::Clean)
                .set_manual_acks(true)
                .set_inflight(capacity)
                .set_max_packet_size(MAX_INCOMING, MAX_INCOMING);
            if let Some((topic, payload)) = &opening.will {
                options.set_last_will(LastWill::new(topic, payload.to_vec(), QoS::AtLeastOnce, true));
            }
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, mut event_loop) = AsyncClient::new(options, cap);
            let mut network = NetworkOptions::new();
            network.set_connection_timeout(connect_timeout);
            event_loop.set_network_options(network);
            (Client::V3(client), poll(EventLoop::V3(Box::new(event_loop))))
        }
        Version::V5 => {
            use rumqttc::Transport;
            use v5::mqttbytes::QoS;
            use v5::{AsyncClient, MqttOptions};
            let mut options = MqttOptions::new(opening.client_id.clone(), socket, 0);
            options
                .set_transport(Transport::unix())
                .set_keep_alive(config.keep_alive.0)
                .set_clean_start(opening.session == Session::Clean)
                .set_manual_acks(true)
                .set_connection_timeout(connect_timeout)
                .set_outgoing_inflight_upper_limit(capacity)
                .set_max_packet_size(Some(ANY_SIZE));
            if opening.session == Session::Kept {
                options.set_session_expiry_interval(u32::try_from(KEPT.as_secs()).ok());
            }
            if let Some((topic, payload)) = &opening.will {
                options.set_last_will(packet5::LastWill::new(topic, payload.to_vec(), QoS::AtLeastOnce, true, None));
            }
            if let Some((user, password)) = login {
                options.set_credentials(user, password);
            }
            let (client, event_loop) = AsyncClient::new(options, cap);
            (Client::V5(client), poll(EventLoop::V5(Box::new(event_loop))))
        }
    }
}

impl Client {
    /// Hands a publish over; it comes back where there is no room for it.
    pub(super) fn publish(&self, publish: Publish, left: Option<Duration>) -> Result<(), Publish> {
        let Publish { topic, payload, retain, content, correlation } = &publish;
        let handed = match self {
            Client::V3(client) => {
                client.try_publish(topic, rumqttc::QoS::AtLeastOnce, *retain, payload.clone()).is_ok()
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let properties = packet5::PublishProperties {
                    // Not of what clears a topic.
                    payload_format_indicator: (!payload.is_empty()).then(|| u8::from(content.is_text())),
                    content_type: (!payload.is_empty()).then(|| content.mime().to_owned()),
                    correlation_data: correlation.clone(),
                    message_expiry_interval: left.map(whole_seconds),
                    ..Default::default()
                };
                client.try_publish_with_properties(topic, qos, *retain, payload.clone(), properties).is_ok()
            }
        };
        if handed { Ok(()) } else { Err(publish) }
    }

    pub(super) fn subscribe(&self, filters: &[Filter]) {
        let handed = match self {
            Client::V3(client) => client
                .try_subscribe_many(
                    filters
                        .iter()
                        .map(|filter| rumqttc::SubscribeFilter::new(filter.path.clone(), rumqttc::QoS::AtLeastOnce)),
                )
                .is_ok(),
            Client::V5(client) => client
                .try_subscribe_many(filters.iter().map(|filter| {
                    let mut asked = packet5::Filter::new(filter.path.clone(), v5::mqttbytes::QoS::AtLeastOnce);
                    // Who does not want what is stored wants to know as well when it is published as to be stored.
                    // Who does can tell it from what comes live only when that is not marked.
                    asked.preserve_retain = !filter.retained;
                    asked.retain_forward_rule = if filter.retained {
                        packet5::RetainForwardRule::OnEverySubscribe
                    } else {
                        packet5::RetainForwardRule::Never
                    };
                    asked
                }))
                .is_ok(),
        };
        noted(handed, "SUBSCRIBE");
    }

    pub(super) fn ack(&self, packet_id: u16) {
        let handed = match self {
            Client::V3(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet_id;
                client.try_ack(&publish).is_ok()
            }
            Client::V5(client) => {
                let mut publish = packet5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Vec::new(), None);
                publish.pkid = packet_id;
                client.try_ack(&publish).is_ok()
            }
        };
        noted(handed, "PUBACK");
    }

    pub(super) fn disconnect(&self) {
        let handed = match self {
            Client::V3(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
        noted(handed, "DISCONNECT");
    }
}

/// As MQTT 5 counts a message's life: whole seconds, and 0 would be none at all.
fn whole_seconds(left: Duration) -> u32 {
    u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

/// A request finds no room only when the link hands over more than the places it has, which is a fault in its own
/// counting.
fn noted(handed: bool, packet: &str) {
    if !handed {
        tracing::error!("no room for a {packet}");
    }
}

/// Polls once, and takes all that is there already.
pub(super) fn poll(event_loop: EventLoop) -> Polling {
    Box::pin(async move {
        match event_loop {
            EventLoop::V3(mut event_loop) => {
                let result = event_loop.poll().await;
                let (signals, failed) = take(result, &mut event_loop.state.events, signal3, failed3);
                Turn { event_loop: failed.is_none().then_some(EventLoop::V3(event_loop)), signals, failed }
            }
            EventLoop::V5(mut event_loop) => {
                let result = event_loop.poll().await;
                let (signals, failed) = take(result, &mut event_loop.state.events, signal5, failed5);
                Turn { event_loop: failed.is_none().then_some(EventLoop::V5(event_loop)), signals, failed }
            }
        }
    })
}

/// What a poll gave, and all that stands behind it. Also after an error: acknowledgements that were read before it count.
fn take<Event, Error>(
    result: Result<Event, Error>,
    behind: &mut VecDeque<Event>,
    signal: fn(Event) -> Signal,
    explain: fn(Error, &mut VecDeque<Signal>) -> String,
) -> (VecDeque<Signal>, Option<String>) {
    let (first, failed) = match result {
        Ok(event) => (Some(event), None),
        Err(error) => (None, Some(error)),
    };
    let mut signals: VecDeque<Signal> = first.into_iter().chain(behind.drain(..)).map(signal).collect();
    let failed = failed.map(|error| explain(error, &mut signals));
    (signals, failed)
}

fn signal3(event: rumqttc::Event) -> Signal {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Outgoing(outgoing) => outgoing_signal(&outgoing),
        rumqttc::Event::Incoming(packet) => match packet {
            Packet::ConnAck(_) => Signal::Up(Limits { receive_maximum: u16::MAX, packet_size: None }),
            Packet::PubAck(ack) => Signal::Acked(ack.pkid, Ok(())),
            Packet::SubAck(ack) => Signal::Subscribed(
                ack.return_codes.iter().map(|code| matches!(code, SubscribeReasonCode::Success(_))).collect(),
            ),
            Packet::Publish(publish) => Signal::Message(Message {
                topic: publish.topic,
                payload: publish.payload,
                retain: publish.retain,
                response_topic: None,
                correlation: None,
                expiry: None,
                packet_id: publish.pkid,
            }),
            _ => Signal::Alive,
        },
    }
}

fn signal5(event: v5::Event) -> Signal {
    use packet5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Outgoing(outgoing) => outgoing_signal(&outgoing),
        v5::Event::Incoming(packet) => match packet {
            Packet::ConnAck(ack) => {
                let properties = ack.properties.unwrap_or_else(no_properties);
                Signal::Up(Limits {
                    receive_maximum: properties.receive_max.unwrap_or(u16::MAX).max(1),
                    packet_size: properties.max_packet_size,
                })
            }
            Packet::PubAck(ack) => Signal::Acked(ack.pkid, puback(ack.reason)),
            Packet::SubAck(ack) => Signal::Subscribed(
                ack.return_codes.iter().map(|code| matches!(code, SubscribeReasonCode::Success(_))).collect(),
            ),
            Packet::Publish(publish) => {
                let properties = publish.properties.unwrap_or_default();
                Signal::Message(Message {
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    payload: publish.payload,
                    retain: publish.retain,
                    response_topic: properties.response_topic,
                    correlation: properties.correlation_data,
                    expiry: properties.message_expiry_interval.map(|secs| Duration::from_secs(secs.into())),
                    packet_id: publish.pkid,
                })
            }
            Packet::Disconnect(disconnect) => Signal::Closed(format!("{:?}", disconnect.reason_code)),
            _ => Signal::Alive,
        },
    }
}

fn no_properties() -> packet5::ConnAckProperties {
    packet5::ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size: None,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

fn outgoing_signal(outgoing: &Outgoing) -> Signal {
    match outgoing {
        Outgoing::Publish(packet_id) => Signal::Sent(*packet_id),
        Outgoing::PubAck(_) => Signal::AckSent,
        Outgoing::Disconnect => Signal::Parted,
        _ => Signal::Nothing,
    }
}

/// PUBACK reason codes (MQTT 5.0, table 3-4).
fn puback(reason: packet5::PubAckReason) -> Result<(), Refusal> {
    use packet5::PubAckReason as Reason;
    match reason {
        Reason::Success | Reason::NoMatchingSubscribers => Ok(()),
        Reason::QuotaExceeded => Err(Refusal::Later("quota exceeded")),
        Reason::PacketIdentifierInUse => Err(Refusal::Later("packet identifier in use")),
        Reason::NotAuthorized => Err(Refusal::Never("not authorized")),
        Reason::TopicNameInvalid => Err(Refusal::Never("topic name invalid")),
        Reason::PayloadFormatInvalid => Err(Refusal::Never("payload format invalid")),
        Reason::ImplementationSpecificError => Err(Refusal::Never("implementation specific error")),
        Reason::UnspecifiedError => Err(Refusal::Never("unspecified error")),
    }
}

fn failed3(error: rumqttc::ConnectionError, signals: &mut VecDeque<Signal>) -> String {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError};
    if let ConnectionError::ConnectionRefused(code) = &error {
        signals.push_back(match code {
            Code::BadClientId => Signal::Refused("bad client id".to_owned()),
            Code::BadUserNamePassword => Signal::Refused("bad user name or password".to_owned()),
            Code::NotAuthorized => Signal::Refused("not authorized (user name, password or client id)".to_owned()),
            Code::RefusedProtocolVersion => {
                Signal::Refused("it does not speak MQTT 3.1.1; try mqtt.version = \"5\"".to_owned())
            }
            Code::ServiceUnavailable | Code::Success => Signal::Closed("service unavailable".to_owned()),
        });
    }
    error.to_string()
}

fn failed5(error: v5::ConnectionError, signals: &mut VecDeque<Signal>) -> String {
    use packet5::ConnectReturnCode as Code;
    if let v5::ConnectionError::ConnectionRefused(code) = &error {
        signals.push_back(match code {
            Code::ServerUnavailable | Code::ServiceUnavailable | Code::ServerBusy | Code::ConnectionRateExceeded => {
                Signal::Closed(format!("{code:?}"))
            }
            Code::BadUserNamePassword => Signal::Refused("bad user name or password".to_owned()),
            Code::NotAuthorized => Signal::Refused("not authorized (user name, password or client id)".to_owned()),
            Code::ClientIdentifierNotValid | Code::BadClientId => Signal::Refused("bad client id".to_owned()),
            Code::UnsupportedProtocolVersion | Code::RefusedProtocolVersion => {
                Signal::Refused("it does not speak MQTT 5; try mqtt.version = \"3.1.1\"".to_owned())
            }
            other => Signal::Refused(format!("{other:?}")),
        });
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_rounded_up() {
        for (millis, secs) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (4999, 5), (u64::MAX, u32::MAX)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), secs, "{millis}");
        }
    }
}
