//! What the broker sends, packet by packet: a PUBLISH that is too large is cut short, everything else passes as it is.
//!
//! An MQTT 3.1.1 broker can't be told what is too large (and an MQTT 5 broker had better not be, see `adapter.rs`), and a
//! retained message comes at each connection: one that rumqttc refuses would end each of them, for ever. So the packet goes on with its flags, topic, packet id and
//! properties, and with [`CUT`] NUL bytes for a payload: it is acknowledged, it takes no memory, and nobody can take what
//! is left for the whole. Fixed header: MQTT 3.1.1, section 2.2, and MQTT 5.0, section 2.1; PUBLISH: section 3.3 of both.
//!
//! While a payload is left out the broker can't answer a ping, for minutes on a slow line; but what comes shows that it is
//! there, so it is told to rumqttc as a PINGRESP now and then.
//!
//! Bytes in, bytes out; however the stream is cut into pieces, the same comes out.

use super::super::{CUT, MAX_INCOMING, Version};

/// MQTT 5: properties of a packet that is cut are left out where they are longer than this, in bytes.
const MAX_PROPERTIES: usize = 4 * 1024;

/// After so many bytes of a payload that is left out comes a sign of life: a few seconds at 115200 baud.
const SIGN_EVERY: usize = 64 * 1024;

/// PINGRESP (MQTT 3.1.1, section 3.13).
const PINGRESP: [u8; 2] = [0xd0, 0];

/// The type of a PUBLISH, in the upper half of its first byte.
const PUBLISH: u8 = 3;

/// The broker does not speak MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The length of a packet takes more than four bytes.
    #[error("the broker sent a packet that is longer than MQTT allows")]
    TooLong,
    /// A topic or properties reach beyond the end of their packet.
    #[error("the broker sent a PUBLISH that ends within its head")]
    Torn,
}

/// The stream from the broker.
#[derive(Debug)]
pub(super) struct Frames {
    version: Version,
    state: State,
    /// The beginning of a packet, while it is not known what becomes of it.
    held: Vec<u8>,
    out: Vec<u8>,
}

/// Where in a packet the stream is.
#[derive(Debug, Clone, Copy)]
enum State {
    /// In the fixed header.
    Start,
    /// Behind it; so many bytes of the packet are to come and pass.
    Passing(usize),
    /// In the head of a PUBLISH that is too large.
    Head { first: u8, left: usize },
    /// In its payload.
    Skipping(usize),
}

/// How much of a PUBLISH is head: topic, packet id, properties.
enum Head {
    /// At least so many bytes, and fewer are there.
    Needs(usize),
    /// All that is there.
    Whole,
    /// So many bytes, and properties that are too long to be kept.
    Without(usize),
}

impl Frames {
    /// At the beginning of a connection.
    pub(super) fn new(version: Version) -> Self {
        Frames { version, state: State::Start, held: Vec::new(), out: Vec::new() }
    }

    /// Takes the next bytes of the stream, and gives what is to go on.
    ///
    /// # Errors
    /// When this is no MQTT. The stream is over then.
    pub(super) fn pass(&mut self, mut input: &[u8]) -> Result<&[u8], Malformed> {
        self.out.clear();
        while !input.is_empty() {
            self.state = match self.state {
                State::Start => self.start(&mut input)?,
                State::Passing(left) => {
                    let bytes = take(&mut input, left);
                    self.out.extend_from_slice(bytes);
                    if bytes.len() == left { State::Start } else { State::Passing(left - bytes.len()) }
                }
                State::Head { first, left } => self.head(first, left, &mut input)?,
                State::Skipping(left) => {
                    let rest = left - take(&mut input, left).len();
                    for _ in rest.div_ceil(SIGN_EVERY)..left.div_ceil(SIGN_EVERY) {
                        self.out.extend_from_slice(&PINGRESP);
                    }
                    if rest == 0 { State::Start } else { State::Skipping(rest) }
                }
            };
        }
        Ok(&self.out)
    }

    /// One byte of the fixed header.
    fn start(&mut self, input: &mut &[u8]) -> Result<State, Malformed> {
        self.held.extend_from_slice(take(input, 1));
        let Some((&first, length)) = self.held.split_first() else { return Ok(State::Start) };
        let Some((width, left)) = number(length)? else { return Ok(State::Start) };
        if first >> 4 == PUBLISH && 1 + width + left > MAX_INCOMING {
            self.held.clear();
            return Ok(State::Head { first, left });
        }
        self.out.append(&mut self.held);
        Ok(if left == 0 { State::Start } else { State::Passing(left) })
    }

    /// As much of the head as there is, and once that is whole, the cut packet.
    fn head(&mut self, first: u8, mut left: usize, input: &mut &[u8]) -> Result<State, Malformed> {
        loop {
            match head(self.version, first, &self.held)? {
                Head::Needs(length) => {
                    let missing = length - self.held.len();
                    if missing > left {
                        return Err(Malformed::Torn);
                    }
                    if input.is_empty() {
                        return Ok(State::Head { first, left });
                    }
                    let bytes = take(input, missing);
                    self.held.extend_from_slice(bytes);
                    left -= bytes.len();
                }
                Head::Whole => break,
                Head::Without(length) => {
                    // No properties: their length is 0. Of those that are left out no byte was read.
                    let properties =
                        number(self.held.get(length..).unwrap_or_default())?.map_or(0, |(_, length)| length);
                    if properties > left {
                        return Err(Malformed::Torn);
                    }
                    self.held.truncate(length);
                    self.held.push(0);
                    break;
                }
            }
        }
        // A topic may be long; no memory is kept for the next one.
        let head = std::mem::take(&mut self.held);
        self.out.push(first);
        push_number(&mut self.out, head.len() + CUT);
        self.out.extend_from_slice(&head);
        self.out.resize(self.out.len() + CUT, 0);
        Ok(State::Skipping(left))
    }
}

/// What is known of the head, from its first bytes.
fn head(version: Version, first: u8, bytes: &[u8]) -> Result<Head, Malformed> {
    let Some(&[high, low]) = bytes.first_chunk::<2>() else { return Ok(Head::Needs(2)) };
    let has_id = first & 0b110 != 0;
    let end = 2 + usize::from(u16::from_be_bytes([high, low])) + if has_id { 2 } else { 0 };
    let Some(rest) = bytes.get(end..) else { return Ok(Head::Needs(end)) };
    if version == Version::V3 {
        return Ok(Head::Whole);
    }
    Ok(match number(rest)? {
        None => Head::Needs(bytes.len() + 1),
        Some((_, length)) if length > MAX_PROPERTIES => Head::Without(end),
        Some((width, length)) if rest.len() < width + length => Head::Needs(end + width + length),
        Some(_) => Head::Whole,
    })
}

/// Up to so many bytes of the input.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

/// A variable byte integer and how many bytes it takes; `None`: it is not whole yet.
fn number(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((place + 1, number)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed::TooLong) }
}

fn push_number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        out.push(low | if number > 0 { 0x80 } else { 0 });
        if number == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        push_number(&mut frame, body.len());
        [frame, body.to_vec()].concat()
    }

    /// What comes for a PUBLISH that is cut, of which so many bytes are left out.
    fn cut(version: Version, flags: u8, id: Option<u16>, properties: &[u8], left_out: usize) -> Vec<u8> {
        let cut = publish(version, flags, id, properties, &[0; CUT]);
        [cut, PINGRESP.repeat(left_out.div_ceil(SIGN_EVERY))].concat()
    }

    /// The body of a PUBLISH up to its payload.
    fn head(version: Version, topic: &str, id: Option<u16>, properties: &[u8]) -> Vec<u8> {
        let mut head = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        head.extend_from_slice(topic.as_bytes());
        head.extend(id.into_iter().flat_map(u16::to_be_bytes));
        if version == Version::V5 {
            push_number(&mut head, properties.len());
            head.extend_from_slice(properties);
        }
        head
    }

    fn publish(version: Version, flags: u8, id: Option<u16>, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        frame(0x30 | flags, &[head(version, "a/b/set", id, properties), payload.to_vec()].concat())
    }

    fn passed(version: Version, stream: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
        let mut frames = Frames::new(version);
        let mut out = Vec::new();
        for bytes in stream.chunks(piece.max(1)) {
            out.extend_from_slice(frames.pass(bytes)?);
        }
        Ok(out)
    }

    #[test]
    fn a_large_publish_keeps_all_but_its_payload() {
        let payload = vec![b'7'; 300_000];
        for (version, flags, id, properties) in [
            (Version::V3, 0b0000, None, &b""[..]),
            (Version::V3, 0b0011, Some(7), b""),
            (Version::V3, 0b1010, Some(0xffff), b""),
            (Version::V5, 0b0000, None, b""),
            (Version::V5, 0b0011, Some(7), b"\x08\x00\x03a/b"),
            (Version::V5, 0b0010, Some(7), &[0x26; 200]),
        ] {
            let before = publish(version, 0, Some(1).filter(|_| false), b"", b"before");
            let after = frame(0x40, b"\x00\x01");
            let large = publish(version, flags, id, properties, &payload);
            let expected = cut(version, flags, id, properties, payload.len());
            let stream = [&before[..], &large, &large, &after].concat();
            let expected = [&before[..], &expected, &expected, &after].concat();
            for piece in [1, 7, 16 * 1024, stream.len()] {
                assert!(passed(version, &stream, piece).unwrap() == expected, "{version:?} {flags:04b} by {piece}");
            }
        }
    }

    #[test]
    fn the_limit_is_exact_and_holds_for_the_whole_packet() {
        for version in [Version::V3, Version::V5] {
            let overhead = publish(version, 2, Some(1), b"", &[b'x'; 100_000]).len() - 100_000;
            let largest = publish(version, 2, Some(1), b"", &vec![b'x'; MAX_INCOMING - overhead]);
            assert_eq!(largest.len(), MAX_INCOMING);
            assert!(passed(version, &largest, 4096).unwrap() == largest);
            let larger = publish(version, 2, Some(1), b"", &vec![b'x'; MAX_INCOMING - overhead + 1]);
            let expected = cut(version, 2, Some(1), b"", MAX_INCOMING - overhead + 1);
            assert!(passed(version, &larger, 4096).unwrap() == expected);
        }
    }

    #[test]
    fn long_properties_are_left_out() {
        let properties = vec![0x26; 400_000];
        let large = publish(Version::V5, 2, Some(9), &properties, b"1");
        let expected = cut(Version::V5, 2, Some(9), b"", properties.len() + 1);
        for piece in [1, 1000, large.len()] {
            assert!(passed(Version::V5, &large, piece).unwrap() == expected, "by {piece}");
        }
    }

    #[test]
    fn what_is_no_mqtt_ends_the_stream() {
        for stream in [&b"\x30\xff\xff\xff\xff\x01"[..], b"\xd0\x80\x80\x80\x80\x00"] {
            assert_eq!(passed(Version::V3, stream, 1), Err(Malformed::TooLong));
        }
        // The longest that there is: nothing of it is awaited in memory.
        let mut frames = Frames::new(Version::V3);
        assert_eq!(frames.pass(b"\x32\xff\xff\xff\x7f\x00\x01t\x00\x05").unwrap().len(), 1 + 3 + 5 + CUT);
        let signs: usize = (0..100).map(|_| frames.pass(&[0; 10_000]).unwrap().len()).sum();
        assert_eq!(signs, PINGRESP.len() * (1_000_000 / SIGN_EVERY), "the broker is there");
        // Properties that reach beyond the packet.
        let mut torn = head(Version::V5, "t", Some(1), b"");
        torn.pop();
        push_number(&mut torn, 500_000);
        torn.resize(400_000, 0);
        assert_eq!(passed(Version::V5, &frame(0x32, &torn), 1000), Err(Malformed::Torn));
    }

    /// Packets as a broker sends them, some of them too large.
    fn packets(version: Version) -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            8 => (0_usize..300).boxed(),
            1 => (MAX_INCOMING - 400..MAX_INCOMING + 400).boxed(),
            1 => (MAX_INCOMING..MAX_INCOMING * 2).boxed(),
        ];
        let publish = (payload, 0_u8..2, any::<bool>(), any::<u16>(), 0_usize..400).prop_map(
            move |(payload, qos, retain, id, properties)| {
                let id = (qos > 0).then_some(id);
                let payload = vec![b'5'; payload];
                publish(version, qos << 1 | u8::from(retain), id, &vec![0x26; properties], &payload)
            },
        );
        let other = (0_u8..16, prop::collection::vec(any::<u8>(), 0..40))
            .prop_filter("publishes are made above", |(kind, _)| *kind != PUBLISH)
            .prop_map(|(kind, body)| frame(kind << 4, &body));
        prop_oneof![publish.boxed(), other.boxed()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_split_gives_the_same_and_small_packets_pass_unchanged(
            (version, packets) in prop_oneof![Just(Version::V3), Just(Version::V5)]
                .prop_flat_map(|version| (Just(version), prop::collection::vec(packets(version), 1..8))),
            cuts in prop::collection::vec(1_usize..40_000, 1..20),
        ) {
            let mut frames = Frames::new(version);
            let mut out = Vec::new();
            let stream = packets.concat();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(*cut.min(&rest.len()));
                out.extend_from_slice(frames.pass(piece).unwrap());
                rest = after;
            }
            // Each by itself, whole.
            let mut expected = Vec::new();
            for packet in &packets {
                let alone = passed(version, packet, packet.len()).unwrap();
                prop_assert!(packet.len() > MAX_INCOMING || alone == *packet);
                prop_assert!(alone.len() <= MAX_INCOMING);
                prop_assert!(packet.len() <= MAX_INCOMING || alone.windows(CUT).any(|bytes| bytes == [0; CUT]));
                expected.extend_from_slice(&alone);
            }
            prop_assert!(out == expected);
        }

        #[test]
        fn no_bytes_panic_and_any_split_of_them_gives_the_same(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            piece in 1_usize..50,
            five: bool,
        ) {
            let version = if five { Version::V5 } else { Version::V3 };
            prop_assert_eq!(passed(version, &bytes, piece), passed(version, &bytes, bytes.len()));
        }
    }
}
