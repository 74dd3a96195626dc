//! From bytes as they come to frames: a pure function of the bytes, however they were cut on their way.

use super::config::Framing;
use crate::model::Size;

/// Collects bytes and gives out frames. Holds at most the longest frame, its delimiter and what came in one read.
#[derive(Debug)]
pub(super) struct Framer {
    delimiter: Box<[u8]>,
    /// A carriage return before the delimiter does not count.
    line: bool,
    max: usize,
    buffer: Vec<u8>,
    /// What lies before this was given out.
    start: usize,
    /// No delimiter ends before this.
    scanned: usize,
    /// The frame was too long: its rest, up to the delimiter, is dropped.
    discarding: bool,
}

/// A frame, or what there is instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// The bytes between two delimiters; never none.
    Whole(&'a [u8]),
    /// It was longer than it may be. Told once for each such frame; the rest of it is dropped.
    TooLong,
}

impl Framer {
    /// Starts at the beginning of a frame or, with `skip_first`, somewhere within one.
    pub(super) fn new(framing: &Framing, skip_first: bool) -> Self {
        let (Framing::Line { max: Size(max) } | Framing::Delimiter { max: Size(max), .. }) = framing;
        Framer {
            delimiter: framing.delimiter().into(),
            line: matches!(framing, Framing::Line { .. }),
            max: usize::try_from(*max).unwrap_or(usize::MAX),
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            discarding: skip_first,
        }
    }

    /// Takes bytes in. Call [`Framer::next`] until it has no more before the next ones.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame. Empty ones, as between `\r\n` taken for two ends, are passed over.
    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        loop {
            let Some(end) = self.find() else { return self.rest() };
            let (start, stop) = (self.start, end - self.delimiter.len());
            self.start = end;
            self.scanned = end;
            if std::mem::take(&mut self.discarding) {
                continue;
            }
            if stop - start > self.max {
                return Some(Frame::TooLong);
            }
            let frame = &self.buffer[start..stop];
            let cut = usize::from(self.line && frame.last() == Some(&b'\r'));
            if frame.len() > cut {
                return Some(Frame::Whole(&self.buffer[start..stop - cut]));
            }
        }
    }

    /// Where the next delimiter ends.
    fn find(&mut self) -> Option<usize> {
        let last = *self.delimiter.last()?;
        let mut from = self.scanned.max(self.start);
        while let Some(offset) = self.buffer[from..].iter().position(|byte| *byte == last) {
            from += offset + 1;
            if self.buffer[self.start..from].ends_with(&self.delimiter) {
                return Some(from);
            }
        }
        self.scanned = self.buffer.len();
        None
    }

    /// There is no delimiter in what is left: all that may stay is what can still become a frame.
    fn rest(&mut self) -> Option<Frame<'_>> {
        let begun = self.delimiter.len() - 1;
        let told = self.discarding;
        if !told && self.buffer.len() - self.start <= self.max + begun {
            return None;
        }
        self.discarding = true;
        self.start = self.start.max(self.buffer.len().saturating_sub(begun));
        (!told).then_some(Frame::TooLong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::Delimiter;
    use super::*;

    fn line(max: u64) -> Framing {
        Framing::Line { max: Size(max) }
    }

    fn delimiter(text: &str, max: u64) -> Framing {
        Framing::Delimiter { delimiter: Delimiter::Text(text.to_owned()), max: Size(max) }
    }

    /// The frames in these pieces; `None` for one that was too long.
    fn frames(framing: &Framing, skip_first: bool, pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut framer = Framer::new(framing, skip_first);
        let mut found = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(frame) = framer.next() {
                found.push(match frame {
                    Frame::Whole(bytes) => Some(bytes.to_vec()),
                    Frame::TooLong => None,
                });
            }
            let bound = framer.max + framer.delimiter.len() + piece.len();
            assert!(framer.buffer.len() <= bound, "{} bytes kept, {bound} allowed", framer.buffer.len());
        }
        found
    }

    #[test]
    fn a_frame_ends_at_its_delimiter() {
        for (framing, skip_first, bytes, expected) in [
            (line(9), false, "one\r\ntwo\nthr", vec![Some("one"), Some("two")]),
            (line(9), false, "\n\r\n\n1\n", vec![Some("1")]),
            (line(9), false, "a\rb\n", vec![Some("a\rb")]),
            (line(9), true, "21.5\n21.6\n", vec![Some("21.6")]),
            (line(3), false, "abc\nabcd\nabc\n", vec![Some("abc"), None, Some("abc")]),
            (line(3), false, "0123456789", vec![None]),
            (line(3), true, "0123456789\nabc\n", vec![Some("abc")]),
            (delimiter("\r", 9), false, "one\rtwo\n\r", vec![Some("one"), Some("two\n")]),
            (delimiter("aab", 9), false, "xaaab1aab", vec![Some("xa"), Some("1")]),
            (delimiter("--", 2), false, "ab--abc--a-b--", vec![Some("ab"), None, None]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|frame| frame.map(|text| text.as_bytes().to_vec())).collect();
            assert_eq!(frames(&framing, skip_first, &[bytes.as_bytes()]), expected, "{bytes:?} by {framing:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_keeps_nothing_and_the_next_one_is_read() {
        let noise = [b'x'; 4096];
        let mut pieces: Vec<&[u8]> = vec![&noise; 256];
        pieces.push(b"\n21.5\n");
        assert_eq!(frames(&line(4096), false, &pieces), [None, Some(b"21.5".to_vec())]);
    }

    proptest! {
        #[test]
        fn the_cuts_on_the_way_do_not_matter(
            bytes in prop::collection::vec(prop::sample::select(b"ab\r\n".to_vec()), 0..200),
            cuts in prop::collection::vec(0usize..200, 0..20),
            max in 1u64..8,
            end in prop::sample::select(vec!["\n", "a", "ab", "aab", "\r\n"]),
            skip_first: bool,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            for framing in [line(max), delimiter(end, max)] {
                prop_assert_eq!(frames(&framing, skip_first, &pieces), frames(&framing, skip_first, &[&bytes]));
            }
        }
    }
}
