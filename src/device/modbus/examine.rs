//! Frames, looked at step by step: for who has them from a line, and wonders what they say.
//!
//! An answer does not say which registers it has. With its question in front of it that is known; alone it is taken for the
//! answer to those questions of the device that have one of its length.

use std::ops::Range;

use super::frame::{self, crc};
use super::pdu::{self, Exception, Request, Table};
use super::{Modbus, plan};
use crate::device::Finding;

/// Bytes of a CRC.
const CHECK: usize = 2;

/// Bytes that are shown of a frame.
const SHOWN: usize = 64;

/// What was cut out of the bytes.
struct Cut<'a> {
    place: Range<usize>,
    unit: u8,
    pdu: &'a [u8],
    is_question: bool,
}

/// Registers or bits that a frame has.
struct Content<'a> {
    table: Table,
    address: u16,
    count: u16,
    data: &'a [u8],
}

impl Modbus {
    /// What is made of these bytes.
    pub(super) fn look_into(&self, bytes: &[u8]) -> Vec<Finding> {
        let (mut findings, mut from) = (Vec::new(), 0);
        let mut question = None;
        while from < bytes.len() {
            let cut = |from| cut(bytes, from, self.config.bus.is_modbus_tcp(), question.as_ref());
            let Some(found) = (from..bytes.len()).find_map(cut) else {
                findings.push(Finding::Fault(self.explain(bytes, from)));
                break;
            };
            if found.place.start > from {
                let noise = bytes.get(from..found.place.start).unwrap_or_default();
                let text =
                    format!("bytes {from} to {}: no frame begins there: {}", found.place.start - 1, shown(noise));
                findings.push(Finding::Fault(text));
            }
            from = found.place.end;
            question = self.look_into_frame(bytes, &found, question, &mut findings);
        }
        findings
    }

    /// What is wrong with what begins there.
    fn explain(&self, bytes: &[u8], from: usize) -> String {
        let rest = bytes.get(from..).unwrap_or_default();
        let text = format!("frame: bytes {from} to {}: {}", bytes.len().saturating_sub(1), shown(rest));
        if self.config.bus.is_modbus_tcp() {
            return format!(
                "{text}: expected transaction (2 bytes), 00 00, length (2), unit (1), function (1) and data"
            );
        }
        let lengths: Vec<usize> =
            [true, false].into_iter().filter_map(|is_question| length(rest, is_question)).collect();
        match lengths.iter().min() {
            None if rest.len() > 2 => {
                format!("{text}: {} is no function that is known here", rest.get(1).unwrap_or(&0))
            }
            Some(shortest) if rest.len() >= *shortest => {
                let checks: Vec<String> = lengths
                    .iter()
                    .filter_map(|length| {
                        let (body, check) = rest.get(..*length)?.split_at(length - CHECK);
                        let (expected, found) = (shown(&crc(body).to_le_bytes()), shown(check));
                        Some(format!(
                            "check: CRC-16/MODBUS of {} bytes: expected {expected}, found {found}: wrong",
                            length - CHECK
                        ))
                    })
                    .collect();
                format!("{text}: {}", checks.join("; "))
            }
            Some(shortest) => format!("{text}: its end is missing: expected {shortest} bytes"),
            None => format!("{text}: its end is missing"),
        }
    }

    /// The question that it is, for the answer behind it.
    fn look_into_frame(
        &self,
        bytes: &[u8],
        cut: &Cut<'_>,
        question: Option<Request>,
        findings: &mut Vec<Finding>,
    ) -> Option<Request> {
        let Range { start, end } = cut.place;
        let raw = bytes.get(start..end).unwrap_or_default();
        let mut step = |text| findings.push(Finding::Step(text));
        step(format!("frame: bytes {start} to {}, {} bytes: {}", end - 1, raw.len(), shown(raw)));
        if !self.config.bus.is_modbus_tcp() {
            let check = raw.get(raw.len() - CHECK..).unwrap_or_default();
            step(format!("check: CRC-16/MODBUS of {} bytes: {}: right", raw.len() - CHECK, shown(check)));
        }
        if cut.unit != self.config.unit {
            findings.push(Finding::Fault(format!("unit: {}: this device is {}", cut.unit, self.config.unit)));
            return None;
        }
        let function = cut.pdu.first().copied().unwrap_or_default();
        if function & 0x80 != 0 {
            let exception = Exception(cut.pdu.get(1).copied().unwrap_or_default());
            findings.push(Finding::Fault(format!("function {} is refused: {exception}", function & 0x7f)));
            return None;
        }
        if !(1..=4).contains(&function) {
            self.look_into_write(cut, findings);
            return None;
        }
        if cut.is_question {
            let request = Request::of_pdu(cut.pdu)?;
            if let Request::Read { table, address, count } = request {
                let text = format!("question: function {function}: {count} from {table} {address} on");
                findings.push(Finding::Step(text));
            }
            return Some(request);
        }
        let data = cut.pdu.get(2..).unwrap_or_default();
        findings.push(Finding::Step(format!("answer: function {function}: {} bytes of data", data.len())));
        let form = (function, data.len());
        let asked = question.filter(|question| question.function() == function);
        if let Some(asked) = asked.as_ref().filter(|asked| asked.form() != form) {
            let text = format!("length: {} bytes of data: its question expects {}", data.len(), asked.data_length());
            findings.push(Finding::Fault(text));
            return None;
        }
        let fits = |own: &Request| own.form() == form;
        let blocks = plan::blocks(&self.spots, self.config.limits()).into_iter().map(|block| block.request());
        let mut fitting: Vec<Request> = match asked {
            Some(asked) => vec![asked],
            None => blocks.filter(fits).collect(),
        };
        if fitting.is_empty() {
            fitting = self.spots.iter().flatten().map(plan::Spot::request).filter(fits).collect();
        }
        if fitting.is_empty() {
            let text =
                "no question of this device has such an answer: expected the frame of the question in front of it";
            findings.push(Finding::Fault(text.to_owned()));
        }
        for request in &fitting {
            let Request::Read { table, address, count } = *request else { continue };
            if fitting.len() > 1 {
                findings.push(Finding::Step(format!("if it answers for {count} from {table} {address} on:")));
            }
            self.look_into_content(&Content { table, address, count, data }, findings);
        }
        None
    }

    /// What is written, or was.
    fn look_into_write(&self, cut: &Cut<'_>, findings: &mut Vec<Finding>) {
        let &[function, high, low, third, fourth, ref rest @ ..] = cut.pdu else { return };
        let address = u16::from_be_bytes([high, low]);
        let table = if matches!(function, 5 | 15) { Table::Coil } else { Table::Holding };
        let is_one = matches!(function, 5 | 6);
        let count = if is_one { 1 } else { u16::from_be_bytes([third, fourth]) };
        let what = match (is_one, cut.is_question) {
            (true, _) => "sets, or has set,",
            (false, true) => "sets",
            (false, false) => "has set",
        };
        findings.push(Finding::Step(format!("write: function {function}: {what} {count} from {table} {address} on")));
        let one = if table == Table::Coil { vec![u8::from(third == 0xff)] } else { vec![third, fourth] };
        let data = if is_one { &one[..] } else { rest.get(1..).unwrap_or_default() };
        if is_one || cut.is_question {
            self.look_into_content(&Content { table, address, count, data }, findings);
        }
    }

    /// What the points have of that.
    fn look_into_content(&self, content: &Content<'_>, findings: &mut Vec<Finding>) {
        let Content { table, address, count, data } = *content;
        let (first, behind) = (u32::from(address), u32::from(address) + u32::from(count));
        for point in self.points.iter().filter(|point| point.keys.table == table) {
            let spot = point.keys.spot(&self.config);
            let (start, end) = (u32::from(spot.address), u32::from(spot.address) + u32::from(spot.count));
            if end <= first || start >= behind {
                continue;
            }
            let name = &point.name;
            let place = format!("{table} {}", spot.address);
            if start < first || end > behind {
                findings.push(Finding::Fault(format!("{name}: {place}: only a part of it is in this frame")));
                continue;
            }
            let offset = usize::from(spot.address - address);
            let raw = match table.is_bits() {
                true => u8::from(pdu::bit(data, offset)).to_string(),
                false => shown(data.get(offset * 2..(offset + usize::from(spot.count)) * 2).unwrap_or_default()),
            };
            let place = format!("{place}: {raw}");
            findings.push(match point.value(table, data, offset) {
                Some(raw) => Finding::Value { point: name.clone(), place, raw },
                None => Finding::Fault(format!("{name}: {place}: it is no {}", point.layout.encoding.name())),
            });
        }
    }
}

/// The frame that begins there, and is whole. A question and an answer may be of one length: then behind a question it is
/// the answer.
fn cut<'a>(bytes: &'a [u8], from: usize, is_tcp: bool, question: Option<&Request>) -> Option<Cut<'a>> {
    let rest = bytes.get(from..)?;
    let whole = |body: &'a [u8], length, is_question| {
        let (unit, pdu) = body.split_first()?;
        Some(Cut { place: from..from + length, unit: *unit, pdu, is_question })
    };
    let behind = |function: Option<&u8>| question.is_some_and(|question| function == Some(&question.function()));
    if is_tcp {
        let (_, body) = frame::first_tcp(rest).ok()??;
        let is_answer = behind(body.get(1));
        let fits = |is_question: &bool| length(body, *is_question) == Some(body.len() + CHECK);
        let is_question = [!is_answer, is_answer].into_iter().find(fits)?;
        return whole(body, frame::HEAD + body.len(), is_question);
    }
    let is_answer = behind(rest.get(1));
    [!is_answer, is_answer].into_iter().find_map(|is_question| {
        let length = length(rest, is_question)?;
        let (body, check) = rest.get(..length)?.split_at(length - CHECK);
        if crc(body).to_le_bytes() == check { whole(body, length, is_question) } else { None }
    })
}

/// How long the RTU frame is that begins there, as a question or an answer; `None`: it is none, or too short to know.
fn length(bytes: &[u8], is_question: bool) -> Option<usize> {
    Some(match (*bytes.get(1)?, is_question) {
        (0x81..=0x90, false) => 5,
        (1..=4, true) | (5 | 6, _) | (15 | 16, false) => 8,
        (1..=4, false) => 5 + usize::from(*bytes.get(2)?),
        (15 | 16, true) => 9 + usize::from(*bytes.get(6)?),
        _ => return None,
    })
}

fn shown(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > SHOWN { " …" } else { "" };
    digits.join(" ") + more
}
