//! Where a frame begins and ends, by nothing but its bytes.

use std::time::Duration;

use super::super::framing::{FrameKind, Framing};
use super::packing::{Packing, SLIP_END};
use crate::device::decode::{Number, Order};

pub(super) const TOO_LONG: &str = "it is longer than `frame.max`";
pub(super) const NO_END: &str = "its end is missing";
const NO_LENGTH: &str = "its length or its end is wrong";

/// Where a frame ends.
#[derive(Debug)]
pub(super) enum Cut {
    /// Before these bytes, and without a carriage return before them if it is a line; or behind them and so many more.
    Delimiter { delimiter: Box<[u8]>, is_line: bool, after: Option<usize> },
    /// Where its length says.
    Length { start: Box<[u8]>, at: usize, form: Number, order: Order, adjust: i64, end: Box<[u8]> },
    /// All are as long.
    Fixed { start: Box<[u8]>, size: usize },
    /// Behind the end, and so many bytes more.
    Between { start: Box<[u8]>, end: Box<[u8]>, after: usize },
    /// At a pause of this length.
    Idle(Duration),
}

/// What stands where a frame may begin.
pub(super) enum Look {
    /// Too little to tell.
    More,
    /// A frame of this length, unless its check says otherwise.
    Frame(usize),
    /// No frame, and why; none begins in so many bytes.
    Wrong(&'static str, usize),
}

impl Cut {
    /// As the config says. `character`: how long one takes.
    pub(super) fn new(framing: &Framing, character: Duration) -> Self {
        let at = |delimiter: &[u8]| Cut::Delimiter { delimiter: delimiter.into(), is_line: false, after: None };
        match framing.kind {
            FrameKind::Line => Cut::Delimiter { delimiter: [b'\n'].into(), is_line: true, after: None },
            FrameKind::Delimiter => {
                Cut::Delimiter { delimiter: framing.delimiter.as_slice().into(), is_line: false, after: framing.after }
            }
            FrameKind::Cobs => at(&[0]),
            FrameKind::Slip => at(&[SLIP_END]),
            FrameKind::Length => {
                let (at, form) = (framing.at, framing.form.unwrap_or(Number::U8));
                let behind = i64::try_from(at + form.size()).unwrap_or_default();
                let (order, adjust) = (framing.order, framing.adjust.unwrap_or(behind));
                Cut::Length {
                    start: framing.start.as_slice().into(),
                    at,
                    form,
                    order,
                    adjust,
                    end: framing.end.as_slice().into(),
                }
            }
            FrameKind::Fixed => Cut::Fixed { start: framing.start.as_slice().into(), size: framing.max },
            FrameKind::Between => Cut::Between {
                start: framing.start.as_slice().into(),
                end: framing.end.as_slice().into(),
                after: framing.after.unwrap_or_default(),
            },
            FrameKind::Idle => Cut::Idle(framing.pause(character)),
        }
    }

    /// What a frame begins with.
    pub(super) fn start(&self) -> &[u8] {
        match self {
            Cut::Length { start, .. } | Cut::Fixed { start, .. } | Cut::Between { start, .. } => start,
            _ => &[],
        }
    }

    /// So many bytes of a frame stand behind its end.
    pub(super) fn after(&self) -> usize {
        match self {
            Cut::Between { after, .. } => *after,
            Cut::Delimiter { after, .. } => after.unwrap_or_default(),
            _ => 0,
        }
    }

    /// What begins where these bytes do, which begin as a frame does.
    pub(super) fn look(&self, held: &[u8], max: usize, packing: Packing, checked: bool) -> Look {
        if held.len() < self.start().len() {
            return Look::More;
        }
        match self {
            Cut::Fixed { size, .. } => match held.get(..*size) {
                Some(_) => Look::Frame(*size),
                None => Look::More,
            },
            Cut::Length { start, at, form, order, adjust, end } => {
                let least = start.len().max(at + form.size()) + end.len();
                let Some(length) = held.get(*at..).and_then(|held| form.raw(held, *order)) else { return Look::More };
                let length = i64::try_from(length).ok().and_then(|length| usize::try_from(length + adjust).ok());
                let Some(length) = length.filter(|length| (least..=max).contains(length)) else {
                    return Look::Wrong(NO_LENGTH, 1);
                };
                match held.get(..length) {
                    None => Look::More,
                    Some(frame) if frame.ends_with(end) => Look::Frame(length),
                    Some(_) => Look::Wrong(NO_LENGTH, 1),
                }
            }
            Cut::Between { start, end, after } => {
                let escape = match packing {
                    Packing::Escape { escape, .. } => Some(escape),
                    _ => None,
                };
                let mut here = start.len();
                while let Some(rest) = held.get(here..).filter(|rest| !rest.is_empty()) {
                    if rest.starts_with(end) {
                        // Nothing is between two of them: where both are the same, that was an end and is a start.
                        if here == start.len() && start == end {
                            return Look::Wrong(NO_END, here);
                        }
                        return match here + end.len() + after {
                            length if length > max => Look::Wrong(TOO_LONG, 1),
                            length if length > held.len() => Look::More,
                            length => Look::Frame(length),
                        };
                    }
                    // Where no check can tell, a start within a frame begins another one: the end of the first was lost.
                    if !checked && rest.starts_with(start) {
                        return Look::Wrong(NO_END, here);
                    }
                    here += if rest.first().copied() == escape { 2 } else { 1 };
                }
                if held.len() > max + end.len() + after { Look::Wrong(TOO_LONG, 1) } else { Look::More }
            }
            Cut::Delimiter { .. } | Cut::Idle(_) => Look::More,
        }
    }
}

/// Where the first whole start is, or the beginning of one at the end.
pub(super) fn seek(held: &[u8], start: &[u8]) -> usize {
    let fits = |from: usize| held.get(from..).is_some_and(|rest| rest.starts_with(start) || start.starts_with(rest));
    (0..held.len()).find(|from| fits(*from)).unwrap_or(held.len())
}
