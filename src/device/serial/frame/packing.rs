//! Bytes that mean something on the line, taken out of a frame's content and put back in.

/// SLIP's bytes (RFC 1055): the end of a frame, and what stands for it and for itself.
pub(super) const SLIP_END: u8 = 0xc0;
const SLIP_ESCAPE: u8 = 0xdb;
const SLIP_ESCAPED_END: u8 = 0xdc;
const SLIP_ESCAPED_ESCAPE: u8 = 0xdd;

/// How the content of a frame is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is.
    Plain,
    /// A byte before one that would mean something, which is combined with another one.
    Escape {
        escape: u8,
        xor: u8,
    },
    Cobs,
    Slip,
}

impl Packing {
    /// The content of a frame. `None`: it was not packed like this.
    pub(super) fn unpack(self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut content = Vec::with_capacity(frame.len());
        let mut rest = frame.iter().copied();
        match self {
            Packing::Plain => content.extend_from_slice(frame),
            Packing::Escape { escape, xor } => {
                while let Some(byte) = rest.next() {
                    content.push(if byte == escape { rest.next()? ^ xor } else { byte });
                }
            }
            Packing::Slip => {
                while let Some(byte) = rest.next() {
                    content.push(match byte {
                        SLIP_ESCAPE => match rest.next()? {
                            SLIP_ESCAPED_END => SLIP_END,
                            SLIP_ESCAPED_ESCAPE => SLIP_ESCAPE,
                            _ => return None,
                        },
                        plain => plain,
                    });
                }
            }
            Packing::Cobs => {
                let mut frame = frame;
                while let Some((code, behind)) = frame.split_first() {
                    let (block, next) = behind.split_at_checked(usize::from(code.checked_sub(1)?))?;
                    content.extend_from_slice(block);
                    // A whole block stands for no zero, nor does the last one.
                    if *code < 0xff && !next.is_empty() {
                        content.push(0);
                    }
                    frame = next;
                }
            }
        }
        Some(content)
    }

    /// A message as it goes over the line. What is escaped otherwise is for the template to spell.
    pub(super) fn pack(self, message: Vec<u8>) -> Vec<u8> {
        match self {
            Packing::Plain | Packing::Escape { .. } => message,
            Packing::Slip => {
                // The first one ends what noise there was.
                let mut packed = vec![SLIP_END];
                for byte in message {
                    match byte {
                        SLIP_END => packed.extend([SLIP_ESCAPE, SLIP_ESCAPED_END]),
                        SLIP_ESCAPE => packed.extend([SLIP_ESCAPE, SLIP_ESCAPED_ESCAPE]),
                        plain => packed.push(plain),
                    }
                }
                packed.push(SLIP_END);
                packed
            }
            Packing::Cobs => {
                let mut packed = Vec::with_capacity(message.len() + 3);
                let blocks = message.split(|byte| *byte == 0);
                for block in blocks {
                    let mut rest = block;
                    while let Some((whole, next)) = rest.split_at_checked(0xfe) {
                        packed.push(0xff);
                        packed.extend_from_slice(whole);
                        rest = next;
                    }
                    packed.push(u8::try_from(rest.len() + 1).unwrap_or(1));
                    packed.extend_from_slice(rest);
                }
                packed.push(0);
                packed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cobs_is_as_published() {
        // Cheshire and Baker, Consistent Overhead Byte Stuffing, and the table of its article in Wikipedia.
        for (content, packed) in [
            (&[0x00][..], &[0x01, 0x01, 0x00][..]),
            (&[0x00, 0x00], &[0x01, 0x01, 0x01, 0x00]),
            (&[0x11, 0x22, 0x00, 0x33], &[0x03, 0x11, 0x22, 0x02, 0x33, 0x00]),
            (&[0x11, 0x22, 0x33, 0x44], &[0x05, 0x11, 0x22, 0x33, 0x44, 0x00]),
            (&[0x11, 0x00, 0x00, 0x00], &[0x02, 0x11, 0x01, 0x01, 0x01, 0x00]),
        ] {
            assert_eq!(Packing::Cobs.pack(content.to_vec()), packed, "{content:x?}");
            assert_eq!(Packing::Cobs.unpack(&packed[..packed.len() - 1]).as_deref(), Some(content), "{packed:x?}");
        }
        assert_eq!(Packing::Cobs.unpack(&[5, 1]), None);
        assert_eq!(Packing::Cobs.unpack(&[0]), None);
    }

    #[test]
    fn slip_is_as_published() {
        assert_eq!(Packing::Slip.pack(vec![0xc0, 1, 0xdb]), [0xc0, 0xdb, 0xdc, 1, 0xdb, 0xdd, 0xc0]);
        assert_eq!(Packing::Slip.unpack(&[0xdb, 0xdc, 1, 0xdb, 0xdd]), Some(vec![0xc0, 1, 0xdb]));
        assert_eq!(Packing::Slip.unpack(&[0xdb, 1]), None);
        assert_eq!(Packing::Slip.unpack(&[0xdb]), None);
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(message in prop::collection::vec(any::<u8>(), 1..700), zeros: bool) {
            let message: Vec<u8> = message.into_iter().map(|byte| if zeros { byte } else { byte | 1 }).collect();
            let packed = Packing::Cobs.pack(message.clone());
            prop_assert_eq!(packed.iter().filter(|byte| **byte == 0).count(), 1);
            prop_assert_eq!(Packing::Cobs.unpack(&packed[..packed.len() - 1]), Some(message.clone()));
            let packed = Packing::Slip.pack(message.clone());
            prop_assert_eq!(packed.iter().filter(|byte| **byte == SLIP_END).count(), 2);
            prop_assert_eq!(Packing::Slip.unpack(&packed[1..packed.len() - 1]), Some(message));
        }

        #[test]
        fn no_bytes_are_too_strange(frame in prop::collection::vec(any::<u8>(), 0..300), escape: u8, xor: u8) {
            for packing in [Packing::Plain, Packing::Cobs, Packing::Slip, Packing::Escape { escape, xor }] {
                let content = packing.unpack(&frame);
                prop_assert!(content.is_none_or(|content| content.len() <= frame.len()));
            }
        }
    }
}
