//! How the config says where one message of a device ends.
//!
//! One flat table for all kinds of frames, read by hand: a type for each of them, read by serde, would cost the program ten
//! times as much.

use std::time::Duration;

use toml::Table;

use crate::device::decode::{Number, Order};
use crate::model::{Fault, Keys, Size};

/// Where one message of the device ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Framing {
    /// Which of these ways; the other keys belong to some of them.
    pub kind: FrameKind,
    /// The longest frame.
    pub max: usize,
    /// The bytes between two frames.
    pub delimiter: Vec<u8>,
    /// The bytes that a frame begins with.
    pub start: Vec<u8>,
    /// The bytes that it ends with.
    pub end: Vec<u8>,
    /// So many bytes follow the end and belong to the frame, which keeps its delimiter then.
    pub after: Option<usize>,
    /// Where the length stands, from 0.
    pub at: usize,
    /// The form of the length.
    pub form: Option<Number>,
    /// The order of its bytes.
    pub order: Order,
    /// What is added to it for the length of the whole frame. Default: it counts what stands behind it.
    pub adjust: Option<i64>,
    /// The byte before one that would otherwise mean something, and what that was combined with (exclusive or).
    pub escape: Option<(u8, u8)>,
    /// Silence for this long ends a frame.
    pub pause: Option<Duration>,
    /// The same in characters at the line's speed.
    pub characters: Option<f64>,
}

/// The ways to tell where a frame ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// At a line feed; a carriage return before it does not count.
    #[default]
    Line,
    /// At certain bytes.
    Delimiter,
    /// It says its length.
    Length,
    /// All have the same length.
    Fixed,
    /// Between certain bytes.
    Between,
    /// At a pause.
    Idle,
    /// Consistent Overhead Byte Stuffing, each frame ended by a zero.
    Cobs,
    /// RFC 1055.
    Slip,
}

/// More than any sensor says in one frame, and little enough for a small board.
const LARGEST: Size = Size(1 << 20);

const DEFAULT_MAX: Size = Size(4 << 10);

impl FrameKind {
    /// By its place among the kinds.
    fn at(place: usize) -> Self {
        use FrameKind::{Between, Cobs, Delimiter, Fixed, Idle, Length, Line, Slip};
        [Line, Delimiter, Length, Fixed, Between, Idle, Cobs, Slip].get(place).copied().unwrap_or_default()
    }

    /// The keys that it needs, and those that it may have besides `max`.
    fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            FrameKind::Delimiter => (&["delimiter"], &["after", "escape", "escape_xor"]),
            FrameKind::Length => (&["start", "at", "as"], &["order", "adjust", "end"]),
            FrameKind::Fixed => (&["size"], &["start"]),
            FrameKind::Between => (&["start", "end"], &["after", "escape", "escape_xor"]),
            FrameKind::Idle => (&[], &["pause", "characters"]),
            FrameKind::Line | FrameKind::Cobs | FrameKind::Slip => (&[], &[]),
        }
    }
}

/// The kinds, in the order of [`FrameKind`].
const KINDS: [&str; 8] = ["line", "delimiter", "length", "fixed", "between", "idle", "cobs", "slip"];

impl Framing {
    /// Reads the table `frame`. `has_check`: the device has one.
    ///
    /// # Errors
    /// What is wrong, by the table.
    pub(super) fn read(table: &Table, has_check: bool) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let place = keys.choice("kind", &KINDS);
        let kind = place.map_or(FrameKind::Line, FrameKind::at);
        let (needed, allowed) = kind.keys();
        let name = KINDS.get(place.unwrap_or_default()).copied().unwrap_or_default();
        if !table.is_empty() && !keys.has("kind") {
            keys.wrong("", "expected a `kind`, such as \"line\"");
        }
        for key in ALL.iter().filter(|key| table.contains_key(**key)) {
            if place.is_some() && !needed.contains(key) && !allowed.contains(key) {
                let right: Vec<&str> = needed.iter().chain(allowed).copied().chain(["max"]).collect();
                keys.wrong(key, format!("a frame of kind \"{name}\" has no such key, but {}", right.join(", ")));
            }
        }
        for key in needed.iter().filter(|key| !table.contains_key(**key)) {
            keys.wrong("", format!("a frame of kind \"{name}\" needs `{key}`"));
        }
        let max = keys.parsed("max", |text| {
            let right = |size: &Size| (1..=LARGEST.0).contains(&size.0);
            text.parse::<Size>().ok().filter(right).ok_or_else(|| format!("expected 1B to {LARGEST}"))
        });
        let size = keys.count("size", 1, 4096);
        let form = keys.parsed("as", |name| {
            let form = Number::named(name)?;
            if form.is_unsigned() && form.size() <= 4 {
                Ok(form)
            } else {
                Err("expected \"u8\", \"u16\", \"u24\" or \"u32\"".to_owned())
            }
        });
        let mut byte = |key| keys.whole(key, 0, 255).and_then(|byte| u8::try_from(byte).ok());
        let (escape, xor) = (byte("escape"), byte("escape_xor"));
        if xor.is_some() && escape.is_none() {
            keys.wrong("escape_xor", "it says what `escape` does: expected both");
        }
        let pause = keys.span("pause", "1ms", "60s");
        let characters = keys.number("characters");
        if characters.is_some_and(|count| !(1.0..=1000.0).contains(&count)) {
            keys.wrong("characters", "expected 1 to 1000 characters");
        }
        if kind == FrameKind::Idle && keys.has("pause") == keys.has("characters") {
            keys.wrong("", "a frame of kind \"idle\" needs either `pause` or `characters`");
        }
        if kind == FrameKind::Fixed && !keys.has("start") && !has_check {
            let text =
                "a frame of kind \"fixed\" needs `start`, or the device a `check`: nothing else tells where one begins";
            keys.wrong("", text);
        }
        if size.is_some() && max.is_some() {
            keys.wrong("max", "all frames have the same `size`: remove `max`");
        }
        let framing = Framing {
            kind,
            max: size.or(usize::try_from(max.unwrap_or(DEFAULT_MAX).0).ok()).unwrap_or_default(),
            delimiter: keys.octets("delimiter").unwrap_or_default(),
            start: keys.octets("start").unwrap_or_default(),
            end: keys.octets("end").unwrap_or_default(),
            after: keys.count("after", 0, 8),
            at: keys.count("at", 0, 64).unwrap_or_default(),
            form,
            order: Order::read(&mut keys, "order").unwrap_or_default(),
            adjust: keys.place("adjust"),
            escape: escape.map(|escape| (escape, xor.unwrap_or_default())),
            pause,
            characters,
        };
        let least = framing.least();
        // What ends at a delimiter is measured without it.
        if least > framing.max && kind != FrameKind::Delimiter {
            let key = if kind == FrameKind::Fixed { "size" } else { "max" };
            keys.wrong(key, format!("no frame is so short: by the other keys it has {least} bytes or more"));
        }
        keys.end(framing)
    }

    /// The bytes that each frame has.
    fn least(&self) -> usize {
        let length = self.form.map_or(0, |form| self.at + form.size());
        self.start.len().max(length) + self.end.len() + self.after.unwrap_or_default()
    }

    /// The silence that ends a frame, where each character takes this long.
    pub(super) fn pause(&self, character: Duration) -> Duration {
        self.pause.unwrap_or_else(|| character.mul_f64(self.characters.unwrap_or_default()))
    }
}

/// The keys that belong to some kinds only.
const ALL: [&str; 13] = [
    "delimiter",
    "start",
    "end",
    "after",
    "at",
    "as",
    "order",
    "adjust",
    "size",
    "escape",
    "escape_xor",
    "pause",
    "characters",
];
