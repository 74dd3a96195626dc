//! Packets as bytes, and back.
//!
//! Section numbers are those of MQTT 5.0; 3.1.1 is the same without the properties and most of the reason codes.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::packet::{Connect, Filter, Limits, Publish, Reply, Request, Retained, Version, reason};

/// Larger packets end the connection; no reading is near it.
const MAX_PACKET: usize = 1 << 20;

/// MQTT on one connection. The client's first packet says which version it is.
#[derive(Debug)]
pub(crate) struct Codec {
    version: Version,
}

impl Codec {
    /// For a new connection.
    pub(crate) fn new() -> Self {
        Codec { version: Version::V4 }
    }

    /// Properties stand in MQTT 5 only.
    fn properties(&self, body: &mut Bytes) -> io::Result<Bytes> {
        match self.version {
            Version::V4 => Ok(Bytes::new()),
            Version::V5 => {
                let length = variable(body)?;
                take(body, length)
            }
        }
    }

    fn request(&mut self, first: u8, mut body: Bytes) -> io::Result<Request> {
        let body = &mut body;
        Ok(match first >> 4 {
            1 => {
                let connect = connect(body)?;
                self.version = connect.version;
                Request::Connect(connect)
            }
            3 => Request::Publish(self.publish(first, body)?),
            4 => Request::PubAck(u16_of(body)?),
            8 => {
                let packet_id = u16_of(body)?;
                self.properties(body)?;
                let mut filters = Vec::new();
                while body.has_remaining() {
                    filters.push(filter(body)?);
                }
                Request::Subscribe(packet_id, filters)
            }
            10 => {
                let packet_id = u16_of(body)?;
                self.properties(body)?;
                let mut filters = Vec::new();
                while body.has_remaining() {
                    filters.push(text(body)?);
                }
                Request::Unsubscribe(packet_id, filters)
            }
            12 => Request::Ping,
            14 => Request::Disconnect(body.first() == Some(&reason::DISCONNECT_WITH_WILL)),
            other => return Err(malformed(&format!("a packet of type {other}"))),
        })
    }

    fn publish(&self, first: u8, body: &mut Bytes) -> io::Result<Publish> {
        let qos = (first >> 1) & 3;
        if qos > 1 {
            return Err(malformed("QoS 2, which this broker does not speak"));
        }
        let topic = text(body)?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(malformed("a topic without a name"));
        }
        let packet_id = if qos == 0 { 0 } else { u16_of(body)? };
        let properties = self.properties(body)?;
        let (dup, retain) = (first & 8 != 0, first & 1 != 0);
        Ok(Publish { topic, payload: body.clone(), qos, retain, dup, packet_id, properties })
    }

    fn put_publish(&self, publish: &Publish, body: &mut BytesMut) -> u8 {
        put_text(body, &publish.topic);
        if publish.qos > 0 {
            body.put_u16(publish.packet_id);
        }
        if self.version == Version::V5 {
            put_variable(body, publish.properties.len());
            body.put_slice(&publish.properties);
        }
        body.put_slice(&publish.payload);
        3 << 4 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
    }
}

impl Decoder for Codec {
    type Item = Request;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Request>> {
        let Some(&first) = source.first() else { return Ok(None) };
        let mut rest = source.get(1..).unwrap_or_default();
        let before = rest.len();
        let length = match variable(&mut rest) {
            Ok(length) => length,
            Err(_) if before < 4 => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > MAX_PACKET {
            return Err(malformed("a packet larger than 1 MiB"));
        }
        let header = 1 + before - rest.len();
        if source.len() < header + length {
            source.reserve(header + length - source.len());
            return Ok(None);
        }
        source.advance(header);
        let body = source.split_to(length).freeze();
        self.request(first, body).map(Some)
    }
}

impl Encoder<Reply> for Codec {
    type Error = io::Error;

    fn encode(&mut self, reply: Reply, target: &mut BytesMut) -> io::Result<()> {
        let mut body = BytesMut::new();
        let v5 = self.version == Version::V5;
        let first = match &reply {
            Reply::ConnAck(limits) => {
                body.put_slice(&[0, reason::SUCCESS]);
                if v5 {
                    put_limits(&mut body, limits);
                }
                0x20
            }
            Reply::Publish(publish) => self.put_publish(publish, &mut body),
            Reply::PubAck(packet_id, code) => {
                body.put_u16(*packet_id);
                // A plain "success" may be left out (section 3.4.2.1).
                if v5 && *code != reason::SUCCESS {
                    body.put_u8(*code);
                }
                0x40
            }
            Reply::SubAck(packet_id, codes) => {
                body.put_u16(*packet_id);
                if v5 {
                    put_variable(&mut body, 0);
                }
                body.put_slice(codes);
                0x90
            }
            Reply::UnsubAck(packet_id, count) => {
                body.put_u16(*packet_id);
                if v5 {
                    put_variable(&mut body, 0);
                    body.put_bytes(reason::SUCCESS, *count);
                }
                0xb0
            }
            Reply::Pong => 0xd0,
            // MQTT 3.1.1 has no such packet from a broker: it only closes.
            Reply::Disconnect(_) if !v5 => return Ok(()),
            Reply::Disconnect(code) => {
                body.put_u8(*code);
                0xe0
            }
        };
        target.put_u8(first);
        put_variable(target, body.len());
        target.put_slice(&body);
        Ok(())
    }
}

fn connect(body: &mut Bytes) -> io::Result<Connect> {
    if text(body)? != "MQTT" {
        return Err(malformed("another protocol"));
    }
    let version = match u8_of(body)? {
        4 => Version::V4,
        5 => Version::V5,
        other => return Err(malformed(&format!("MQTT of level {other}"))),
    };
    let codec = Codec { version };
    let flags = u8_of(body)?;
    let _keep_alive = u16_of(body)?;
    let receive_maximum = receive_maximum(codec.properties(body)?)?;
    let client_id = text(body)?;
    let mut will = None;
    if flags & 4 != 0 {
        codec.properties(body)?;
        let topic = text(body)?;
        let payload = binary(body)?;
        let (qos, retain) = (((flags >> 3) & 3).min(1), flags & 0x20 != 0);
        will = Some(Publish { qos, retain, ..Publish::new(&topic, payload) });
    }
    // User name and password are for brokers that know somebody.
    Ok(Connect { version, client_id, will, receive_maximum })
}

/// The Receive Maximum among the properties of a CONNECT (section 3.1.2.11).
fn receive_maximum(mut properties: Bytes) -> io::Result<u16> {
    let properties = &mut properties;
    let mut found = u16::MAX;
    while properties.has_remaining() {
        match u8_of(properties)? {
            0x21 => found = u16_of(properties)?.max(1),
            0x22 => drop(take(properties, 2)?),
            0x17 | 0x19 => drop(take(properties, 1)?),
            0x11 | 0x27 => drop(take(properties, 4)?),
            0x15 | 0x16 => drop(binary(properties)?),
            0x26 => drop((binary(properties)?, binary(properties)?)),
            other => return Err(malformed(&format!("property {other} in a CONNECT"))),
        }
    }
    Ok(found)
}

fn put_limits(body: &mut BytesMut, limits: &Limits) {
    let mut properties = BytesMut::new();
    // The highest QoS is 1.
    properties.put_slice(&[0x24, 1]);
    if let Some(count) = limits.receive_maximum {
        properties.put_u8(0x21);
        properties.put_u16(count);
    }
    if let Some(size) = limits.packet_size {
        properties.put_u8(0x27);
        properties.put_u32(size);
    }
    put_variable(body, properties.len());
    body.put_slice(&properties);
}

fn filter(body: &mut Bytes) -> io::Result<Filter> {
    let path = text(body)?;
    let options = u8_of(body)?;
    let retained = match (options >> 4) & 3 {
        0 => Retained::Always,
        1 => Retained::IfNew,
        _ => Retained::Never,
    };
    let (no_local, retain_as_published) = (options & 4 != 0, options & 8 != 0);
    Ok(Filter { path, qos: (options & 3).min(1), no_local, retain_as_published, retained })
}

/// A length of one to four bytes (section 1.5.5).
fn variable(source: &mut impl Buf) -> io::Result<usize> {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = u8_of(source)?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("a length without an end"))
}

fn put_variable(target: &mut BytesMut, mut value: usize) {
    while value > 0x7f {
        target.put_u8(0x80 | u8::try_from(value & 0x7f).unwrap_or_default());
        value >>= 7;
    }
    target.put_u8(u8::try_from(value).unwrap_or_default());
}

fn u8_of(source: &mut impl Buf) -> io::Result<u8> {
    source.try_get_u8().map_err(|_| malformed("a packet that ends too soon"))
}

fn u16_of(source: &mut impl Buf) -> io::Result<u16> {
    source.try_get_u16().map_err(|_| malformed("a packet that ends too soon"))
}

fn take(source: &mut Bytes, length: usize) -> io::Result<Bytes> {
    if source.len() < length {
        return Err(malformed("a packet that ends too soon"));
    }
    Ok(source.split_to(length))
}

fn binary(source: &mut Bytes) -> io::Result<Bytes> {
    let length = u16_of(source)?;
    take(source, usize::from(length))
}

fn text(source: &mut Bytes) -> io::Result<String> {
    String::from_utf8(binary(source)?.to_vec()).map_err(|_| malformed("text that is not UTF-8"))
}

fn put_text(target: &mut BytesMut, text: &str) {
    // What comes in as a topic is no longer than this.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    target.put_u16(length);
    target.put_slice(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the client sent {what}"))
}
