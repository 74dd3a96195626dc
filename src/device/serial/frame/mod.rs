//! From bytes as they come to frames: a pure function of the bytes and of when they came, however they were cut on their way.
//!
//! A frame that begins or ends with bytes of its own is looked for in all that is held: where its length or its check is
//! wrong, the search goes on one byte behind its start, so that noise costs the frames that it hit and no others.

mod cut;
mod packing;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use self::cut::{Cut, Look, NO_END, TOO_LONG, seek};
use self::packing::Packing;
use super::framing::{FrameKind, Framing};
use crate::device::decode::Check;

/// Collects bytes and gives out frames. Holds at most the longest frame, its delimiter and what came in one read.
#[derive(Debug)]
pub(super) struct Framer {
    cut: Cut,
    packing: Packing,
    check: Option<Check>,
    max: usize,
    buffer: Vec<u8>,
    /// What lies before this was given out.
    start: usize,
    /// No delimiter ends before this.
    scanned: usize,
    /// The frame was too long, or begun before we listened: its rest is dropped.
    discarding: bool,
    /// It was told that something lies between frames.
    told: bool,
    /// What was taken out of the last frame, where it was packed.
    content: Vec<u8>,
    /// When the last byte came.
    heard_at: Duration,
    /// What is held is all that comes.
    is_all: bool,
    /// Before this place of the buffer there was a pause.
    pause_at: Option<usize>,
}

/// A frame, or what there is instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A frame whose check holds, if there is one; never empty.
    Whole(&'a [u8]),
    /// Something else, what is wrong with it, and the bytes.
    Bad(&'static str, &'a [u8]),
}

/// What the search found, as places of the buffer.
pub(super) type Found = Result<Range<usize>, (&'static str, Range<usize>)>;

const NO_START: &str = "no frame begins there";
const NOT_PACKED: &str = "it is not packed as `frame` says";
pub(super) const NO_CHECK: &str = "its check is wrong";

impl Framer {
    /// Starts at the beginning of a frame or, with `skip_first`, somewhere within one. `character`: how long one takes.
    pub(super) fn new(framing: &Framing, check: Option<Check>, skip_first: bool, character: Duration) -> Self {
        let packing = match framing.kind {
            FrameKind::Cobs => Packing::Cobs,
            FrameKind::Slip => Packing::Slip,
            _ => framing.escape.map_or(Packing::Plain, |(escape, xor)| Packing::Escape { escape, xor }),
        };
        let cut = Cut::new(framing, character);
        Framer {
            cut,
            packing,
            check,
            max: framing.max,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            discarding: skip_first,
            told: false,
            content: Vec::new(),
            heard_at: Duration::ZERO,
            is_all: false,
            pause_at: None,
        }
    }

    /// Takes bytes in that came now. Call [`Framer::next`] until it has no more before the next ones.
    pub(super) fn push(&mut self, bytes: &[u8], now: Duration) {
        self.buffer.drain(..self.start);
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
        if let Cut::Idle(pause) = self.cut
            && !self.buffer.is_empty()
            && now.saturating_sub(self.heard_at) >= pause
        {
            self.pause_at = Some(self.buffer.len());
        }
        self.heard_at = now;
        self.is_all = false;
        self.buffer.extend_from_slice(bytes);
    }

    /// What is held of a frame, and whether the next one is left out: with that another one goes on from here.
    pub(super) fn state(&self) -> (&[u8], bool) {
        (self.buffer.get(self.start..).unwrap_or_default(), self.discarding)
    }

    /// Whether the next frame is left out.
    pub(super) fn leave_out(&mut self, next: bool) {
        self.discarding = next;
    }

    /// Forgets what is held: what comes next begins anew.
    pub(super) fn reset(&mut self) {
        self.buffer.clear();
        (self.start, self.scanned, self.pause_at) = (0, 0, None);
        (self.discarding, self.told) = (false, false);
    }

    /// Nothing more comes for now: what is held of a frame is none, and may hide one.
    pub(super) fn give_up(&mut self) {
        self.is_all = true;
    }

    /// When the silence that ends a frame will have lasted, unless more comes.
    pub(super) fn due(&self) -> Option<Duration> {
        let Cut::Idle(pause) = self.cut else { return None };
        (self.buffer.len() > self.start).then_some(self.heard_at + pause)
    }

    /// The longest frame.
    pub(super) fn is_within(&self) -> bool {
        self.buffer.len() > self.start
    }

    /// The longest frame.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// The message as it goes over the line.
    pub(super) fn pack(&self, message: Vec<u8>) -> Vec<u8> {
        self.packing.pack(message)
    }

    /// The next frame. Empty ones, as between `\r\n` taken for two ends, are passed over.
    pub(super) fn next(&mut self, now: Duration) -> Option<Frame<'_>> {
        Some(match self.find_next(now)? {
            Err((why, place)) => Frame::Bad(why, self.buffer.get(place).unwrap_or_default()),
            Ok(place) => Frame::Whole(self.content(&place)),
        })
    }

    /// Where the next frame is in what is held, or what is not one.
    pub(super) fn find_next(&mut self, now: Duration) -> Option<Found> {
        match self.cut {
            Cut::Delimiter { .. } => self.delimited(),
            Cut::Idle(pause) => self.silent(pause, now),
            _ => self.marked(),
        }
    }

    /// What is in the frame that was found last, at this place.
    pub(super) fn content(&self, place: &Range<usize>) -> &[u8] {
        if self.packing == Packing::Plain { self.buffer.get(place.clone()).unwrap_or_default() } else { &self.content }
    }

    /// What is wrong with a frame that was cut out. Its content is kept, where it is packed.
    fn fault(&mut self, place: Range<usize>) -> Option<&'static str> {
        let mut frame = self.buffer.get(place).unwrap_or_default();
        if self.packing != Packing::Plain {
            // What stands behind the end has a place of its own, and so means nothing else.
            let (packed, behind) = frame.split_at(frame.len().saturating_sub(self.cut.after()));
            let Some(content) = self.packing.unpack(packed) else { return Some(NOT_PACKED) };
            self.content = [content.as_slice(), behind].concat();
            frame = &self.content;
        }
        let holds = !frame.is_empty() && self.check.as_ref().is_none_or(|check| check.holds(frame));
        (!holds).then_some(NO_CHECK)
    }

    /// The next frame that ends at a delimiter.
    fn delimited(&mut self) -> Option<Found> {
        loop {
            let Cut::Delimiter { delimiter, is_line, after } = &self.cut else { return None };
            let (length, is_line, after) = (delimiter.len(), *is_line, *after);
            let Some(end) = self.find() else { return self.rest(length - 1) };
            let behind = end + after.unwrap_or_default();
            if self.buffer.len() < behind {
                // The delimiter is found again once the bytes behind it came.
                self.scanned = end - length;
                return None;
            }
            let content = self.start..end - length;
            (self.start, self.scanned) = (behind, behind);
            if std::mem::take(&mut self.discarding) {
                continue;
            }
            if content.len() > self.max {
                return Some(Err((TOO_LONG, 0..0)));
            }
            let cut =
                usize::from(is_line && self.buffer.get(content.clone()).is_some_and(|line| line.ends_with(b"\r")));
            if content.len() <= cut {
                continue;
            }
            let place = if after.is_some() { content.start..behind } else { content.start..content.end - cut };
            return Some(match self.fault(place.clone()) {
                Some(why) => Err((why, place)),
                None => Ok(place),
            });
        }
    }

    /// Where the next delimiter ends.
    fn find(&mut self) -> Option<usize> {
        let Cut::Delimiter { delimiter, .. } = &self.cut else { return None };
        let last = *delimiter.last()?;
        let mut from = self.scanned.max(self.start);
        while let Some(offset) = self.buffer[from..].iter().position(|byte| *byte == last) {
            from += offset + 1;
            let Some(before) = self.buffer[self.start..from].strip_suffix(&**delimiter) else { continue };
            // A byte that is combined with nothing stands there as it is, and ends nothing.
            if let Packing::Escape { escape, xor: 0 } = self.packing
                && !before.iter().rev().take_while(|byte| **byte == escape).count().is_multiple_of(2)
            {
                continue;
            }
            return Some(from);
        }
        self.scanned = self.buffer.len();
        None
    }

    /// There is no delimiter in what is left: all that may stay is what can still become a frame. `begun`: as many bytes
    /// of the delimiter may be there.
    fn rest(&mut self, begun: usize) -> Option<Found> {
        let told = self.discarding;
        if !told && self.buffer.len() - self.start <= self.max + begun {
            return None;
        }
        self.discarding = true;
        self.start = self.start.max(self.buffer.len().saturating_sub(begun));
        (!told).then_some(Err((TOO_LONG, 0..0)))
    }

    /// The next frame that has a start, a length or an end.
    fn marked(&mut self) -> Option<Found> {
        loop {
            let from = self.start;
            let held = self.buffer.get(from..).filter(|held| !held.is_empty())?;
            let begins = seek(held, self.cut.start());
            if begins > 0 {
                self.start += begins;
                if !std::mem::replace(&mut self.told, true) {
                    return Some(Err((NO_START, from..from + begins)));
                }
                continue;
            }
            let wrong = match self.cut.look(held, self.max, self.packing, self.check.is_some()) {
                Look::More if !self.is_all => return None,
                Look::More => (NO_END, from..self.buffer.len(), 1),
                Look::Frame(length) => {
                    let place = from..from + length;
                    match self.fault(place.clone()) {
                        Some(why) => (why, place, 1),
                        None => {
                            self.start = place.end;
                            self.told = false;
                            return Some(Ok(place));
                        }
                    }
                }
                Look::Wrong(why, skip) => (why, from..self.buffer.len(), skip),
            };
            let (why, place, skip) = wrong;
            self.start += skip;
            self.told = true;
            return Some(Err((why, place)));
        }
    }

    /// The next frame that ended with a pause.
    fn silent(&mut self, pause: Duration, now: Duration) -> Option<Found> {
        let is_over = now.saturating_sub(self.heard_at) >= pause;
        let end = match self.pause_at.take() {
            Some(end) => end,
            None if is_over => self.buffer.len(),
            None => {
                // What is too long is told, and dropped up to the next pause.
                if self.buffer.len() - self.start > self.max {
                    self.start = self.buffer.len();
                    return (!std::mem::replace(&mut self.discarding, true)).then_some(Err((TOO_LONG, 0..0)));
                }
                return None;
            }
        };
        let place = std::mem::replace(&mut self.start, end)..end;
        if std::mem::take(&mut self.discarding) || place.is_empty() {
            return None;
        }
        if place.len() > self.max {
            return Some(Err((TOO_LONG, 0..0)));
        }
        Some(match self.fault(place.clone()) {
            Some(why) => Err((why, place)),
            None => Ok(place),
        })
    }
}
