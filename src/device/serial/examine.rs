//! One frame, looked at step by step as `life` would read it: for who writes a config for a protocol.

use std::time::Duration;

use super::frame::NO_CHECK;
use super::{Reader, Serial};
use crate::device::Finding;
use crate::device::decode::{From, Slot, Undecodable};

/// Any pause that ends a frame is over by then.
const LATER: Duration = Duration::from_secs(3600);

/// Bytes that are shown of a frame.
const SHOWN: usize = 64;

impl Serial {
    /// What is made of these bytes, when nothing follows them.
    pub(super) fn look_into(&self, bytes: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut framer = self.framer();
        framer.leave_out(false);
        framer.push(bytes, Duration::ZERO);
        framer.give_up();
        let mut frames = 0;
        while let Some(found) = framer.find_next(LATER) {
            let (place, fault) = match found {
                Ok(place) => (place, None),
                Err((why, place)) => (place, Some(why)),
            };
            let content = framer.content(&place);
            let raw = bytes.get(place.clone()).unwrap_or_default();
            let at = format!("bytes {} to {}", place.start, place.end.saturating_sub(1));
            match fault {
                None => {
                    frames += 1;
                    findings.push(Finding::Step(format!("frame: {at}, {} bytes: {}", place.len(), shown(raw))));
                    if content != raw {
                        findings.push(Finding::Step(format!("unpacked: {} bytes: {}", content.len(), shown(content))));
                    }
                    findings.extend(self.check.as_ref().map(|check| Finding::Step(check.explain(content))));
                    self.look_into_frame(content, &mut findings);
                }
                Some(why) if why == NO_CHECK => {
                    let check = self.check.as_ref().map(|check| check.explain(content)).unwrap_or_default();
                    findings.push(Finding::Fault(format!(
                        "frame: {at}, {} bytes: {}: {check}",
                        place.len(),
                        shown(raw)
                    )));
                }
                Some(why) => findings.push(Finding::Fault(match place.len() {
                    0 => format!("frame: {why}"),
                    _ => format!("frame: {at}: {why}: {}", shown(raw)),
                })),
            }
        }
        let (rest, _) = framer.state();
        if !rest.is_empty() {
            let text = format!("frame: the last {} bytes have no end: {}", rest.len(), shown(rest));
            findings.push(Finding::Fault(text));
        } else if frames == 0 && findings.is_empty() {
            findings.push(Finding::Fault("frame: there is none in these bytes".to_owned()));
        }
        findings
    }

    /// What the points have of a frame.
    fn look_into_frame(&self, frame: &[u8], findings: &mut Vec<Finding>) {
        let mut slots = vec![Slot::Absent; self.readers.len()];
        match self.decode(frame, &mut slots) {
            // Each field says so for itself.
            Ok(()) | Err(Undecodable::NoField) => {}
            Err(error) => {
                findings.push(Finding::Fault(format!("decode: {error}")));
                return;
            }
        }
        for (reader, slot) in self.readers.iter().zip(slots) {
            let (point, place) = (&reader.name, reader.place(frame));
            findings.push(if reader.when.as_ref().is_some_and(|when| !when.fits(frame)) {
                Finding::Step(format!("{point}: not in this frame, by its `when`"))
            } else {
                match slot {
                    Slot::Value(raw) => Finding::Value { point: point.clone(), place, raw },
                    Slot::Bad => Finding::Fault(format!("{point}: {place}: it is no such value")),
                    Slot::Absent if matches!(reader.from, Some(From::Field(_))) => {
                        let length = frame.len();
                        Finding::Fault(format!("{point}: {place}: the frame ends before, it has {length} bytes"))
                    }
                    Slot::Absent => Finding::Step(format!("{point}: {place}: not in this frame")),
                }
            });
        }
    }
}

impl Reader {
    /// Where it is read from, and what of bytes stands there.
    fn place(&self, frame: &[u8]) -> String {
        match &self.from {
            None => "the whole frame".to_owned(),
            Some(From::Column(column)) => format!("column {column}"),
            Some(From::Name(name)) => format!("{name:?}"),
            Some(From::Field(field)) => field.describe(frame),
        }
    }
}

/// As digits, and as text where it is text.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..SHOWN).unwrap_or(bytes);
    let more = if start.len() < bytes.len() { " …" } else { "" };
    let digits: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t');
    let text = if start.iter().all(is_text) { format!(" `{}`", start.escape_ascii()) } else { String::new() };
    format!("{}{more}{text}", digits.join(" "))
}
