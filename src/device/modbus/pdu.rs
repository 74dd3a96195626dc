//! What is asked of a slave, as bytes, and what it answers (MODBUS Application Protocol V1.1b3). Pure functions.

use std::fmt;

/// The most that one request may read (sections 6.1 to 6.4).
pub(super) const MOST_REGISTERS: u16 = 125;
const MOST_BITS: u16 = 2000;

/// One of the four kinds of things that a slave has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// Outputs of one bit.
    Coil,
    /// Inputs of one bit.
    Discrete,
    /// Registers that can be written.
    Holding,
    /// Registers that can be read alone.
    Input,
}

impl Table {
    /// As the config names them.
    pub(super) const NAMES: [(&str, Table); 4] =
        [("coil", Table::Coil), ("discrete", Table::Discrete), ("holding", Table::Holding), ("input", Table::Input)];

    /// Whether it is one of bits.
    pub(super) fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    fn function(self) -> u8 {
        match self {
            Table::Coil => 1,
            Table::Discrete => 2,
            Table::Holding => 3,
            Table::Input => 4,
        }
    }

    fn of_function(function: u8) -> Option<Self> {
        [Table::Coil, Table::Discrete, Table::Holding, Table::Input]
            .into_iter()
            .find(|table| table.function() == function)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Table::Coil => "coil",
            Table::Discrete => "discrete input",
            Table::Holding => "holding register",
            Table::Input => "input register",
        })
    }
}

/// What is asked of a slave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// Functions 1 to 4.
    Read { table: Table, address: u16, count: u16 },
    /// Functions 5 and 15.
    Switch { address: u16, on: bool, many: bool },
    /// Functions 6 (one register, `many` not set) and 16.
    Set { address: u16, registers: Vec<u16>, many: bool },
}

/// Why a slave does not do what it was asked (section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exception(pub(super) u8);

impl Exception {
    /// It has no such address, or not so many from there on.
    pub(super) const ADDRESS: Exception = Exception(2);
    /// The value is none that it takes; some say so of an address.
    pub(super) const VALUE: Exception = Exception(3);
    /// It has begun, and will take long.
    pub(super) const ACKNOWLEDGE: Exception = Exception(5);

    /// Whether it is the gateway's on the way, which says that the slave was silent.
    pub(super) fn is_silence(self) -> bool {
        matches!(self.0, 10 | 11)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "server device failure",
            5 => "acknowledge",
            6 => "server device busy",
            7 => "negative acknowledge",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway target device failed to respond",
            _ => "not in the standard",
        };
        write!(f, "{name} (exception {})", self.0)
    }
}

/// What the bytes of an answer are to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// What was read: of registers two bytes each, of bits eight in each; nothing of a write.
    Data(Vec<u8>),
    /// It refuses.
    Refused(Exception),
}

impl Request {
    /// The function code.
    pub(super) fn function(&self) -> u8 {
        match self {
            Request::Read { table, .. } => table.function(),
            Request::Switch { many, .. } => {
                if *many {
                    15
                } else {
                    5
                }
            }
            Request::Set { many, .. } => {
                if *many {
                    16
                } else {
                    6
                }
            }
        }
    }

    /// The bytes behind the unit.
    pub(super) fn pdu(&self) -> Vec<u8> {
        let mut pdu = vec![self.function()];
        let mut word = |word: u16| pdu.extend(word.to_be_bytes());
        match self {
            Request::Read { address, count, .. } => [*address, *count].into_iter().for_each(word),
            Request::Switch { address, on, many: false } => {
                [*address, if *on { 0xff00 } else { 0 }].into_iter().for_each(word)
            }
            Request::Switch { address, on, many: true } => {
                [*address, 1].into_iter().for_each(word);
                pdu.extend([1, u8::from(*on)]);
            }
            Request::Set { address, registers, many: false } => {
                word(*address);
                registers.first().copied().into_iter().for_each(word);
            }
            Request::Set { address, registers, many: true } => {
                let count = u16::try_from(registers.len()).unwrap_or(u16::MAX);
                [*address, count].into_iter().for_each(word);
                pdu.push(u8::try_from(count * 2).unwrap_or(u8::MAX));
                pdu.extend(registers.iter().flat_map(|register| register.to_be_bytes()));
            }
        }
        pdu
    }

    /// What these bytes ask, as far as it tells what answers it: any write is as good as another.
    pub(super) fn of_pdu(pdu: &[u8]) -> Option<Self> {
        let &[function, a, b, c, d, ..] = pdu else { return None };
        let (address, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(match Table::of_function(function) {
            Some(table) => Request::Read { table, address, count },
            None => Request::Set { address, registers: vec![count], many: false },
        })
    }

    /// How many bytes the answer has, unit and checks apart.
    pub(super) fn answer_length(&self) -> usize {
        match self {
            Request::Read { .. } => 2 + self.data_length(),
            _ => 5,
        }
    }

    /// The beginning of what this reads, in so many units of length of the answer: two bytes of registers, one of bits.
    /// `None`: it has no more than that.
    pub(super) fn part(&self, units: u16) -> Option<Self> {
        let Request::Read { table, address, count } = *self else { return None };
        let part = if table.is_bits() { units.saturating_mul(8).saturating_sub(7) } else { units };
        (1..=count).contains(&part).then_some(Request::Read { table, address, count: part })
    }

    /// This with an answer that is one unit longer.
    pub(super) fn longer(&self) -> Option<Self> {
        let Request::Read { table, address, count } = *self else { return None };
        let count = if table.is_bits() { count.next_multiple_of(8) + 1 } else { count + 1 };
        // The last address of all has nothing behind it.
        let address = address.min(u16::MAX - (count - 1));
        (count <= if table.is_bits() { MOST_BITS } else { MOST_REGISTERS }).then_some(Request::Read {
            table,
            address,
            count,
        })
    }

    /// What tells its answer from those of others: the function, and how many bytes of data there are.
    pub(super) fn form(&self) -> (u8, usize) {
        (self.function(), self.data_length())
    }

    /// How many bytes of data the answer has.
    pub(super) fn data_length(&self) -> usize {
        match self {
            Request::Read { table, count, .. } if table.is_bits() => usize::from(*count).div_ceil(8),
            Request::Read { count, .. } => usize::from(*count) * 2,
            _ => 0,
        }
    }

    /// What these bytes are to this request; `None`: they answer another one.
    pub(super) fn answer(&self, pdu: &[u8]) -> Option<Answer> {
        match (self, pdu) {
            (_, [function, code]) if *function == self.function() | 0x80 => Some(Answer::Refused(Exception(*code))),
            (_, [function, ..]) if *function != self.function() => None,
            (Request::Read { .. }, [_, length, data @ ..]) => {
                let right = usize::from(*length) == self.data_length() && data.len() == self.data_length();
                right.then(|| Answer::Data(data.to_vec()))
            }
            // The address and the value or count come back as they were.
            _ => (self.pdu().get(..5) == Some(pdu)).then(|| Answer::Data(Vec::new())),
        }
    }
}

/// Registers out of the bytes of an answer.
pub(super) fn registers(data: &[u8]) -> Vec<u16> {
    data.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

/// A bit out of the bytes of an answer.
pub(super) fn bit(data: &[u8], place: usize) -> bool {
    data.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the standard, sections 6.1 to 6.12.
    #[test]
    fn requests_and_answers_are_those_of_the_standard() {
        for (request, asked, answered, data) in [
            (
                Request::Read { table: Table::Coil, address: 0x13, count: 0x13 },
                &[1, 0, 0x13, 0, 0x13][..],
                &[1, 3, 0xcd, 0x6b, 5][..],
                &[0xcd, 0x6b, 5][..],
            ),
            (
                Request::Read { table: Table::Discrete, address: 0xc4, count: 0x16 },
                &[2, 0, 0xc4, 0, 0x16],
                &[2, 3, 0xac, 0xdb, 0x35],
                &[0xac, 0xdb, 0x35],
            ),
            (
                Request::Read { table: Table::Holding, address: 0x6b, count: 3 },
                &[3, 0, 0x6b, 0, 3],
                &[3, 6, 2, 0x2b, 0, 0, 0, 0x64],
                &[2, 0x2b, 0, 0, 0, 0x64],
            ),
            (Request::Read { table: Table::Input, address: 8, count: 1 }, &[4, 0, 8, 0, 1], &[4, 2, 0, 10], &[0, 10]),
            (
                Request::Switch { address: 0xac, on: true, many: false },
                &[5, 0, 0xac, 0xff, 0],
                &[5, 0, 0xac, 0xff, 0],
                &[],
            ),
            (Request::Set { address: 1, registers: vec![3], many: false }, &[6, 0, 1, 0, 3], &[6, 0, 1, 0, 3], &[]),
            (
                Request::Switch { address: 0x13, on: true, many: true },
                &[15, 0, 0x13, 0, 1, 1, 1],
                &[15, 0, 0x13, 0, 1],
                &[],
            ),
            (
                Request::Set { address: 1, registers: vec![10, 0x102], many: true },
                &[16, 0, 1, 0, 2, 4, 0, 10, 1, 2],
                &[16, 0, 1, 0, 2],
                &[],
            ),
        ] {
            assert_eq!(request.pdu(), asked);
            assert_eq!(request.answer_length(), answered.len());
            assert_eq!(request.answer(answered), Some(Answer::Data(data.to_vec())));
            let refusal = [request.function() | 0x80, 2];
            assert_eq!(request.answer(&refusal), Some(Answer::Refused(Exception::ADDRESS)));
            assert_eq!(request.answer(&answered[..answered.len() - 1]), None, "too short");
            assert_eq!(request.answer(&[answered, &[0]].concat()), None, "too long");
            assert_eq!(request.answer(&[7, 2, 3]), None, "of another function");
        }
        assert_eq!(Exception(2).to_string(), "illegal data address (exception 2)");
        assert!(bit(&[0, 2], 9) && !bit(&[0, 2], 8) && !bit(&[0, 2], 16));
    }
}
