//! How a question and its answer stand on the wire: with a check behind them (RTU), or a head before them (TCP). Pure
//! functions.

use super::pdu::{Answer, Request};

/// How many bytes precede the unit in a TCP frame: transaction, protocol, length.
pub(super) const HEAD: usize = 6;

/// The longest frame: 253 bytes of function and data, unit and checks.
const LONGEST: usize = 260;

/// What stands in the bytes that came so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The answer.
    Answer(Answer),
    /// What must have been the answer, with a wrong check.
    Damaged,
    /// That, or the middle of one of which more has to come.
    Suspect,
    /// More has to come.
    Nothing,
}

/// The bytes of an RTU frame.
pub(super) fn rtu(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = [&[unit], pdu].concat();
    frame.extend(crc(&frame).to_le_bytes());
    frame
}

/// Looks for an RTU answer, with any noise before and behind it; one that refuses is passed over where it `may_refuse` not.
pub(super) fn find_rtu(bytes: &[u8], unit: u8, request: &Request, may_refuse: bool) -> Found {
    let (mut damaged, mut has_begun) = (false, false);
    for start in 0..bytes.len() {
        let Some(rest @ [from, function, more @ ..]) = bytes.get(start..) else { break };
        if *from != unit {
            continue;
        }
        let length = match () {
            () if *function == request.function() => request.answer_length(),
            () if may_refuse && *function == request.function() | 0x80 => 2,
            () => continue,
        };
        // An answer of another length is another request's; its CRC would be no proof at this length.
        let is_read = matches!(request, Request::Read { .. }) && length > 2;
        if is_read && more.first().is_some_and(|count| usize::from(*count) != request.data_length()) {
            continue;
        }
        let Some(frame) = rest.get(..length + 3) else {
            has_begun = true;
            continue;
        };
        let (body, check) = frame.split_at(length + 1);
        if crc(body).to_le_bytes() != check {
            damaged = true;
            continue;
        }
        if let Some(answer) = body.get(1..).and_then(|pdu| request.answer(pdu)) {
            return Found::Answer(answer);
        }
    }
    match (damaged, has_begun) {
        (true, false) => Found::Damaged,
        (true, true) => Found::Suspect,
        _ => Found::Nothing,
    }
}

/// The bytes of a TCP frame.
pub(super) fn tcp(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
    let head = [transaction.to_be_bytes(), [0, 0], length.to_be_bytes()].concat();
    [&head[..], &[unit], pdu].concat()
}

/// Takes whole TCP frames off the front until one is the answer. An error says that what comes is no Modbus.
pub(super) fn take_tcp(bytes: &mut Vec<u8>, transaction: u16, unit: u8, request: &Request) -> Result<Found, String> {
    while let Some((number, frame)) = split_tcp(bytes)? {
        let Some((from, pdu)) = frame.split_first() else { continue };
        // What has another number answers what was given up.
        if number == transaction
            && *from == unit
            && let Some(answer) = request.answer(pdu)
        {
            return Ok(Found::Answer(answer));
        }
    }
    Ok(Found::Nothing)
}

/// Takes whole TCP frames off the front until one has this number. An error says that what comes is no Modbus.
pub(super) fn ends_tcp(bytes: &mut Vec<u8>, transaction: u16) -> Result<bool, String> {
    while let Some((number, _)) = split_tcp(bytes)? {
        if number == transaction {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the first TCP frame off the front once it is whole: its number, and what is behind the head.
fn split_tcp(bytes: &mut Vec<u8>) -> Result<Option<(u16, Vec<u8>)>, String> {
    let Some((number, body)) = first_tcp(bytes)? else { return Ok(None) };
    let body = body.to_vec();
    bytes.drain(..HEAD + body.len());
    Ok(Some((number, body)))
}

/// The first TCP frame once it is whole: its number, and what is behind the head. An error says that it is no Modbus.
pub(super) fn first_tcp(bytes: &[u8]) -> Result<Option<(u16, &[u8])>, String> {
    if let Some(&[t0, t1, p0, p1, l0, l1]) = bytes.first_chunk::<HEAD>() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if [p0, p1] != [0, 0] || !(2..=LONGEST).contains(&length) {
            return Err("what it sends is not Modbus TCP: is it framing = \"rtu\"?".to_owned());
        }
        return Ok(bytes.get(HEAD..HEAD + length).map(|body| (u16::from_be_bytes([t0, t1]), body)));
    }
    Ok(None)
}

/// CRC-16/MODBUS.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pdu::{Exception, Table};
    use super::*;

    const READ: Request = Request::Read { table: Table::Input, address: 8, count: 2 };
    const DATA: [u8; 6] = [4, 4, 0, 10, 1, 2];

    fn answer() -> Found {
        Found::Answer(Answer::Data(DATA[2..].to_vec()))
    }

    #[test]
    fn the_check_is_that_of_the_standard() {
        assert_eq!(crc(b"123456789"), 0x4b37);
        assert_eq!(rtu(2, &[7]), [2, 7, 0x41, 0x12]);
    }

    #[test]
    fn an_answer_that_comes_in_pieces_is_never_called_damaged() {
        // In the middle of each stands what would be an exception of unit 1, but for its check.
        let read = Request::Read { table: Table::Holding, address: 0, count: 2 };
        let set = Request::Set { address: 400, registers: vec![7], many: true };
        for (request, answer) in
            [(read, rtu(1, &[3, 4, 0x01, 0x83, 0xaa, 0xbb])), (set, rtu(1, &[16, 0x01, 0x90, 0, 1]))]
        {
            for length in 0..answer.len() {
                let found = find_rtu(&answer[..length], 1, &request, true);
                assert!(matches!(found, Found::Nothing | Found::Suspect), "{length}: {found:?}");
            }
            assert!(matches!(find_rtu(&answer, 1, &request, true), Found::Answer(_)));
        }
    }

    #[test]
    fn an_answer_is_found_and_no_other_is_taken_for_it() {
        let good = rtu(7, &DATA);
        assert_eq!(find_rtu(&good, 7, &READ, true), answer());
        assert_eq!(find_rtu(&good[..8], 7, &READ, true), Found::Nothing);
        assert_eq!(find_rtu(&[&[0, 7, 4, 7][..], &good, &[9]].concat(), 7, &READ, true), answer());
        let mut bad = good.clone();
        bad[4] ^= 1;
        assert_eq!(find_rtu(&bad, 7, &READ, true), Found::Damaged);
        assert_eq!(find_rtu(&[bad, good.clone()].concat(), 7, &READ, true), answer());
        for other in [rtu(8, &DATA), rtu(7, &[3, 4, 0, 10, 1, 2]), rtu(7, &[4, 2, 0, 10])] {
            assert_eq!(find_rtu(&other, 7, &READ, true), Found::Nothing);
        }
        assert_eq!(find_rtu(&rtu(7, &[0x84, 2]), 7, &READ, true), Found::Answer(Answer::Refused(Exception::ADDRESS)));
        let both = [rtu(7, &[0x84, 2]), good].concat();
        assert_eq!(find_rtu(&both, 7, &READ, true), Found::Answer(Answer::Refused(Exception::ADDRESS)));
        assert_eq!(find_rtu(&both, 7, &READ, false), answer());
        assert_eq!(find_rtu(&both[..5], 7, &READ, false), Found::Nothing);
    }

    #[test]
    fn a_tcp_answer_has_the_number_of_its_question() {
        let mut bytes = [tcp(4, 7, &DATA), tcp(5, 7, &DATA)].concat();
        assert_eq!(take_tcp(&mut bytes, 5, 7, &READ), Ok(answer()));
        assert!(bytes.is_empty());
        for other in [tcp(4, 7, &DATA), tcp(5, 8, &DATA), tcp(5, 7, &[4, 2, 0, 1])] {
            assert_eq!(take_tcp(&mut other.clone(), 5, 7, &READ), Ok(Found::Nothing));
        }
        assert_eq!(take_tcp(&mut tcp(5, 7, &DATA)[..9].to_vec(), 5, 7, &READ), Ok(Found::Nothing));
        assert!(take_tcp(&mut rtu(7, &DATA), 5, 7, &READ).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_an_answer_but_one_with_its_check(bytes: Vec<u8>, place in 0usize..9, flip in 1u8..) {
            prop_assert!(!matches!(find_rtu(&bytes, 7, &READ, true), Found::Answer(Answer::Data(_))));
            let mut damaged = rtu(7, &DATA);
            if let Some(byte) = damaged.get_mut(place) {
                *byte ^= flip;
            }
            prop_assert!(!matches!(find_rtu(&damaged, 7, &READ, true), Found::Answer(Answer::Data(_))), "{:?}", damaged);
            // Whatever comes: no panic.
            drop(take_tcp(&mut bytes.clone(), 5, 7, &READ));
        }
    }
}
