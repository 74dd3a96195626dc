//! The frames of a WebSocket (RFC 6455, section 5): bytes in, bytes out; however the stream is cut, the same comes out.

/// The longest payload of a control frame (section 5.5).
const MAX_CONTROL: usize = 125;

/// Opcodes (section 5.2).
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The last frame of its message.
const FIN: u8 = 0x80;

/// The payload is masked, as each one from a client is.
const MASKED: u8 = 0x80;

/// What has to be sent because of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::link::wire) enum Answer {
    /// A PONG with the PING's payload.
    Pong(Vec<u8>),
    /// A CLOSE with the server's code, and why it closed, for a person.
    Close { code: Vec<u8>, why: String },
}

impl Answer {
    /// Why the server closed, where it did.
    pub(in crate::link::wire) fn farewell(&self) -> Option<String> {
        match self {
            Answer::Pong(_) => None,
            Answer::Close { why, .. } => Some(why.clone()),
        }
    }
}

/// The stream from the server.
#[derive(Debug, Default)]
pub(in crate::link::wire) struct Incoming {
    /// The head of a frame, as far as it is there.
    head: Vec<u8>,
    /// The frame whose payload is under way.
    open: Option<Open>,
    /// A message has begun, and its last frame is still to come.
    within_message: bool,
}

#[derive(Debug)]
struct Open {
    opcode: u8,
    left: u64,
    /// Of a control frame: its payload so far.
    control: Vec<u8>,
}

impl Incoming {
    /// Moves the payload among these bytes to their beginning, and says how much it is, and what to answer.
    ///
    /// # Errors
    /// When the server does not keep to the standard: what it did.
    pub(in crate::link::wire) fn pass(&mut self, bytes: &mut [u8]) -> Result<(usize, Vec<Answer>), &'static str> {
        let (mut from, mut to, mut answers) = (0, 0, Vec::new());
        loop {
            if self.open.is_none() {
                while self.head.len() < head_len(&self.head) {
                    let Some(byte) = bytes.get(from) else { return Ok((to, answers)) };
                    self.head.push(*byte);
                    from += 1;
                }
                self.open = Some(self.begin()?);
                self.head.clear();
            }
            let Some(open) = &mut self.open else { continue };
            let there = bytes.len() - from;
            let count = usize::try_from(open.left).map_or(there, |left| left.min(there));
            if open.opcode < CLOSE {
                bytes.copy_within(from..from + count, to);
                to += count;
            } else {
                open.control.extend_from_slice(&bytes[from..from + count]);
            }
            from += count;
            open.left -= count as u64;
            if open.left > 0 {
                return Ok((to, answers));
            }
            let Some(Open { opcode, control, .. }) = self.open.take() else { continue };
            match opcode {
                PING => answers.push(Answer::Pong(control)),
                CLOSE => answers.push(closed(&control)),
                _ => {}
            }
        }
    }

    /// A frame, by its whole head.
    fn begin(&mut self) -> Result<Open, &'static str> {
        let &[first, second, ref length @ ..] = self.head.as_slice() else { return Err("a frame without a head") };
        if first & 0x70 != 0 {
            return Err("a frame of an extension that was not agreed on");
        }
        if second & MASKED != 0 {
            return Err("a masked frame from a server");
        }
        let left = match length {
            [] => u64::from(second & 0x7f),
            more => more.iter().fold(0, |left, byte| left << 8 | u64::from(*byte)),
        };
        let (opcode, is_last) = (first & 0x0f, first & FIN != 0);
        match opcode {
            TEXT => return Err("text, where MQTT is binary"),
            BINARY if self.within_message => return Err("a message within another one"),
            CONTINUATION if !self.within_message => return Err("the continuation of no message"),
            CONTINUATION | BINARY => self.within_message = !is_last,
            CLOSE | PING | PONG if !is_last || left > MAX_CONTROL as u64 => {
                return Err("a control frame that is too long");
            }
            CLOSE | PING | PONG => {}
            _ => return Err("a frame of an unknown kind"),
        }
        Ok(Open { opcode, left, control: Vec::new() })
    }
}

/// How long a head is, as far as its beginning tells: a length of 126 or 127 means that two or eight bytes of it follow.
fn head_len(head: &[u8]) -> usize {
    match head.get(1).map(|second| second & 0x7f) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    }
}

/// The answer to a CLOSE: a status code, and a text (section 5.5.1).
fn closed(payload: &[u8]) -> Answer {
    let (code, text) = payload.split_at_checked(2).unwrap_or_default();
    let number = code.try_into().map(|code| format!(": {}", u16::from_be_bytes(code))).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let why = format!("the broker closed the WebSocket{number} {text}");
    Answer::Close { code: code.to_vec(), why: why.trim_end().to_owned() }
}

/// A frame with bytes of MQTT.
pub(in crate::link::wire) fn data(payload: &[u8]) -> Vec<u8> {
    frame(BINARY, payload)
}

/// The frame of an answer.
pub(in crate::link::wire) fn reply(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Pong(payload) => frame(PONG, payload),
        Answer::Close { code, .. } => frame(CLOSE, code),
    }
}

/// The frame that ends it: nothing is wrong (1000, section 7.4.1).
pub(in crate::link::wire) fn close() -> Vec<u8> {
    frame(CLOSE, &1000u16.to_be_bytes())
}

#[expect(clippy::cast_possible_truncation, reason = "each length is within the range of its arm")]
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(FIN | opcode);
    match payload.len() {
        length @ 0..=125 => frame.push(MASKED | length as u8),
        length @ 126..=0xffff => {
            frame.push(MASKED | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(MASKED | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    // A mask keeps proxies from being misled by the payload (section 10.3). Without random numbers no connection had come
    // so far.
    let mask = getrandom::u32().unwrap_or_default().to_ne_bytes();
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a server sends it.
    fn served(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(u8::try_from(length).unwrap()),
            length if length < 0x1_0000 => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    /// All that comes out of these bytes when they come in pieces.
    fn pass(bytes: &[u8], pieces: usize) -> Result<(Vec<u8>, Vec<Answer>), &'static str> {
        let (mut incoming, mut payload, mut answers) = (Incoming::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(pieces) {
            let mut piece = piece.to_vec();
            let (count, more) = incoming.pass(&mut piece)?;
            payload.extend_from_slice(&piece[..count]);
            answers.extend(more);
        }
        Ok((payload, answers))
    }

    /// What is in a frame of ours.
    fn unmask(frame: &[u8]) -> (u8, Vec<u8>) {
        let head = head_len(frame);
        let (mask, payload) = frame[head..].split_at(4);
        assert_eq!(frame[1] & MASKED, MASKED);
        (frame[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
    }

    #[test]
    fn pings_and_parts_of_a_message_come_between() {
        let bytes = [
            served(BINARY, b"ab"),
            served(FIN | PING, b"here?"),
            served(CONTINUATION, b""),
            served(FIN | CONTINUATION, b"cd"),
            served(FIN | PONG, b"x"),
            served(FIN | BINARY, &[7; 300]),
            served(FIN | CLOSE, b"\x03\xe9going"),
        ]
        .concat();
        let payload = [&b"abcd"[..], &[7; 300]].concat();
        let why = "the broker closed the WebSocket: 1001 going".to_owned();
        let answers = vec![Answer::Pong(b"here?".to_vec()), Answer::Close { code: vec![3, 0xe9], why }];
        for pieces in [1, 2, 3, 5, 7, 100, bytes.len()] {
            assert_eq!(pass(&bytes, pieces), Ok((payload.clone(), answers.clone())));
        }
        assert_eq!(closed(b""), Answer::Close { code: vec![], why: "the broker closed the WebSocket".to_owned() });
    }

    #[test]
    fn a_message_of_any_length_takes_no_memory() {
        let mut incoming = Incoming::default();
        let mut head = [FIN | BINARY, 127, 0, 0, 0x10, 0, 0, 0, 0, 0];
        assert_eq!(incoming.pass(&mut head), Ok((0, vec![])));
        let mut piece = [1; 1000];
        assert_eq!(incoming.pass(&mut piece), Ok((1000, vec![])));
        assert!(incoming.head.capacity() < 64);
    }

    #[test]
    fn what_is_against_the_standard_ends_it() {
        for (bytes, why) in [
            (served(FIN | TEXT, b"a"), "text"),
            (served(FIN | CONTINUATION, b"a"), "continuation of no"),
            ([served(BINARY, b"a"), served(BINARY, b"b")].concat(), "within another"),
            (served(FIN | 0x40 | BINARY, b"a"), "extension"),
            (served(FIN | 3, b"a"), "unknown"),
            (served(FIN | PING, &[0; 126]), "too long"),
            (served(PING, b"a"), "too long"),
            (vec![FIN | BINARY, MASKED], "masked"),
        ] {
            assert!(pass(&bytes, 1).unwrap_err().contains(why), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_was_given(length in 0usize..70_000) {
            let payload: Vec<u8> = (0..length).map(|i| i.to_le_bytes()[0]).collect();
            prop_assert_eq!(unmask(&data(&payload)), (FIN | BINARY, payload));
        }

        #[test]
        fn answers_are_control_frames(payload in proptest::collection::vec(any::<u8>(), 0..126)) {
            prop_assert_eq!(unmask(&reply(&Answer::Pong(payload.clone()))), (FIN | PONG, payload));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes: Vec<u8>, pieces in 1usize..50) {
            let whole = pass(&bytes, bytes.len().max(1));
            prop_assert_eq!(pass(&bytes, pieces).is_ok(), whole.is_ok());
        }
    }
}
