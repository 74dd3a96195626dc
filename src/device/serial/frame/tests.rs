use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(100);

fn framer(text: &str, check: Option<&str>, skip_first: bool) -> Framer {
    let check = check.map(|check| Check::read(&check.parse().unwrap()).unwrap());
    let framing = Framing::read(&text.parse().unwrap(), check.is_some());
    let framing = framing.unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
    Framer::new(&framing, check, skip_first, Duration::from_millis(1))
}

/// The frames in these pieces; `None` for what is none.
fn frames(mut framer: Framer, pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    for piece in pieces {
        framer.push(piece, START);
        while let Some(frame) = framer.next(START) {
            found.push(match frame {
                Frame::Whole(bytes) => Some(bytes.to_vec()),
                Frame::Bad(..) => None,
            });
        }
        // The longest frame, what may be around it, and what came last.
        let bound = framer.max + 16 + piece.len();
        assert!(framer.buffer.len() <= bound, "{} bytes kept, {bound} allowed", framer.buffer.len());
    }
    found
}

fn whole(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

#[test]
fn a_frame_ends_at_its_delimiter() {
    const LINE: &str = "kind = \"line\"\nmax = \"9B\"";
    const SHORT: &str = "kind = \"line\"\nmax = \"3B\"";
    for (text, skip_first, bytes, expected) in [
        (LINE, false, "one\r\ntwo\nthr", vec![Some("one"), Some("two")]),
        (LINE, false, "\n\r\n\n1\n", vec![Some("1")]),
        (LINE, false, "a\rb\n", vec![Some("a\rb")]),
        (LINE, true, "21.5\n21.6\n", vec![Some("21.6")]),
        (SHORT, false, "abc\nabcd\nabc\n", vec![Some("abc"), None, Some("abc")]),
        (SHORT, false, "0123456789", vec![None]),
        (SHORT, true, "0123456789\nabc\n", vec![Some("abc")]),
        ("kind = \"delimiter\"\ndelimiter = \"\\r\"", false, "one\rtwo\n\r", vec![Some("one"), Some("two\n")]),
        ("kind = \"delimiter\"\ndelimiter = \"aab\"", false, "xaaab1aab", vec![Some("xa"), Some("1")]),
        (
            "kind = \"delimiter\"\ndelimiter = \"--\"\nmax = \"2B\"",
            false,
            "ab--abc--a-b--",
            vec![Some("ab"), None, None],
        ),
        ("kind = \"delimiter\"\ndelimiter = \"--\"\nafter = 0", false, "ab--c", vec![Some("ab--")]),
        ("kind = \"delimiter\"\ndelimiter = \"--\"\nafter = 2\nmax = \"1B\"", false, "a--bc", vec![Some("a--bc")]),
        ("kind = \"delimiter\"\ndelimiter = \"--\"\nafter = 2", false, "ab----c--d", vec![Some("ab----")]),
        ("kind = \"delimiter\"\ndelimiter = \"!\"\nescape = 47", false, "a/!b//!c!", vec![Some("a!b/"), Some("c")]),
        (
            "kind = \"delimiter\"\ndelimiter = \"/!\"\nescape = 47",
            false,
            "a//!b/!c///!",
            vec![Some("a/!b"), Some("c/")],
        ),
        (
            "kind = \"delimiter\"\ndelimiter = \"!\"\nescape = 47\nescape_xor = 1",
            false,
            "a/!b/.!c!",
            vec![None, Some("b/"), Some("c")],
        ),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|frame| frame.map(|text| text.as_bytes().to_vec())).collect();
        assert_eq!(frames(framer(text, None, skip_first), &[bytes.as_bytes()]), expected, "{bytes:?} by {text}");
    }
}

#[test]
fn a_frame_is_found_by_what_is_in_it() {
    const LENGTH: &str = "kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"u8\"";
    const SUMMED: &str = "kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"u8\"\nmax = \"9B\"";
    const METER: &str = "kind = \"length\"\nstart = [0x68]\nat = 9\nas = \"u8\"\nadjust = 12\nend = [0x16]";
    const FIXED: &str = "kind = \"fixed\"\nsize = 3\nstart = \"S\"";
    const BETWEEN: &str = "kind = \"between\"\nstart = \"<\"\nend = \">\"\nmax = \"8B\"";
    for (text, check, bytes, expected) in [
        (LENGTH, None, &b"S\x02abS\x00S\x01c"[..], vec![whole(b"S\x02ab"), whole(b"S\x00"), whole(b"S\x01c")]),
        (LENGTH, None, b"noiseS\x02abS\x03ab", vec![None, whole(b"S\x02ab")]),
        (SUMMED, Some("kind = \"xor\""), b"S\x03ab\x53", vec![whole(b"S\x03ab\x53")]),
        // A false start before a frame, one whose length reaches into it, and one in a frame with a wrong check.
        (SUMMED, Some("kind = \"xor\""), b"SS\x03ab\x53", vec![None, whole(b"S\x03ab\x53")]),
        (SUMMED, Some("kind = \"xor\""), b"S\x04S\x03ab\x53", vec![None, whole(b"S\x03ab\x53")]),
        (
            "kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"u16\"\norder = \"little\"\nadjust = 0",
            None,
            b"S\x05\x00abS",
            vec![whole(b"S\x05\x00ab")],
        ),
        (
            "kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"u8\"\nmax = \"4B\"",
            None,
            b"S\x07S\x02abS",
            vec![None, whole(b"S\x02ab")],
        ),
        (
            METER,
            None,
            b"\xfe\xfe\x68\x01\x02\x03\x04\x05\x06\x68\x81\x00\x77\x16",
            vec![None, whole(b"\x68\x01\x02\x03\x04\x05\x06\x68\x81\x00\x77\x16")],
        ),
        (METER, None, b"\x68\x01\x02\x03\x04\x05\x06\x68\x81\x00\x77\x17", vec![None]),
        (FIXED, None, b"SabScdSe", vec![whole(b"Sab"), whole(b"Scd")]),
        (FIXED, None, b"xSabyzScd", vec![None, whole(b"Sab"), None, whole(b"Scd")]),
        // Without a start, the check finds the way.
        (
            "kind = \"fixed\"\nsize = 3",
            Some("kind = \"xor\""),
            b"\x01\x02\x03\x09\x04\x05\x01",
            vec![whole(b"\x01\x02\x03"), None, whole(b"\x04\x05\x01")],
        ),
        (BETWEEN, None, b"a<bc>d<e>", vec![None, whole(b"<bc>"), None, whole(b"<e>")]),
        // The end of the first was lost.
        (BETWEEN, None, b"<ab<cd>", vec![None, whole(b"<cd>")]),
        (BETWEEN, None, b"<abcdefghijk<cd>", vec![None, whole(b"<cd>")]),
        (BETWEEN, Some("kind = \"xor\"\nfrom = 1\nto = -2\nat = -2"), b"<ab<cd\x07>", vec![None, whole(b"<cd\x07>")]),
        // One byte begins and ends a frame, and the first one was begun before.
        (
            "kind = \"between\"\nstart = \"~\"\nend = \"~\"",
            None,
            b"b~~c~~d~",
            vec![None, None, whole(b"~c~"), whole(b"~d~")],
        ),
        ("kind = \"between\"\nstart = \"<\"\nend = \">\"\nafter = 1", None, b"<a>><b>", vec![whole(b"<a>>")]),
        (
            "kind = \"between\"\nstart = \"<\"\nend = \">\"\nescape = 47\nescape_xor = 1",
            None,
            b"</?a/.>",
            vec![whole(b"<>a/>")],
        ),
        // What stands behind the end is not escaped.
        (
            "kind = \"between\"\nstart = \"<\"\nend = \">\"\nafter = 1\nescape = 47\nescape_xor = 1",
            None,
            b"</?a>/<b>x",
            vec![whole(b"<>a>/"), whole(b"<b>x")],
        ),
        (
            "kind = \"delimiter\"\ndelimiter = \">\"\nafter = 2\nescape = 47\nescape_xor = 1",
            None,
            b"/?a>/>b>x/",
            vec![whole(b">a>/>"), whole(b"b>x/")],
        ),
        (
            "kind = \"cobs\"",
            None,
            b"\x03\x11\x22\x02\x33\x00\x00\x09\x00\x02\x11\x00",
            vec![whole(b"\x11\x22\x00\x33"), None, whole(b"\x11")],
        ),
        ("kind = \"slip\"", None, b"\xc0ab\xdb\xdc\xc0\xc0\xdbx\xc0c\xc0", vec![whole(b"ab\xc0"), None, whole(b"c")]),
        (
            "kind = \"line\"",
            Some("kind = \"xor\"\nfrom = 1\nto = -3\nas = \"hex\""),
            b"$a*61\r\n$a*62\r\n$b*62\n",
            vec![whole(b"$a*61"), None, whole(b"$b*62")],
        ),
    ] {
        assert_eq!(
            frames(framer(text, check, false), &[bytes]),
            expected,
            "{} by {text} {check:?}",
            bytes.escape_ascii()
        );
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        let in_bits: Vec<_> = frames(framer(text, check, false), &each).into_iter().flatten().collect();
        assert_eq!(in_bits, expected.into_iter().flatten().collect::<Vec<_>>(), "byte by byte, {text}");
    }
}

#[test]
fn what_hides_behind_a_false_start_is_found_when_nothing_more_comes() {
    let mut framer = framer("kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"u8\"", Some("kind = \"xor\""), false);
    framer.push(b"S\x20S\x03ab\x53", START);
    assert_eq!(framer.next(START), None);
    framer.give_up();
    assert!(matches!(framer.next(START), Some(Frame::Bad(NO_END, _))));
    assert_eq!(framer.next(START), Some(Frame::Whole(b"S\x03ab\x53")));
    assert_eq!(framer.next(START), None);
}

#[test]
fn a_pause_ends_a_frame() {
    let ms = |ms: u64| START + Duration::from_millis(ms);
    for text in ["kind = \"idle\"\npause = \"5ms\"\nmax = \"4B\"", "kind = \"idle\"\ncharacters = 5.0\nmax = \"4B\""] {
        let mut framer = framer(text, None, false);
        assert_eq!(framer.due(), None);
        framer.push(b"ab", ms(0));
        assert_eq!(framer.next(ms(0)), None);
        framer.push(b"cd", ms(4));
        assert_eq!(framer.next(ms(8)), None);
        assert_eq!(framer.due(), Some(ms(9)));
        assert_eq!(framer.next(ms(9)), Some(Frame::Whole(b"abcd")));
        assert_eq!(framer.next(ms(9)), None);
        assert_eq!(framer.due(), None);
        // The next one came before anybody looked.
        framer.push(b"e", ms(20));
        framer.push(b"f", ms(30));
        assert_eq!(framer.next(ms(30)), Some(Frame::Whole(b"e")));
        assert_eq!(framer.next(ms(30)), None);
        framer.push(b"01234", ms(31));
        assert_eq!(framer.next(ms(31)), Some(Frame::Bad(TOO_LONG, b"")));
        framer.push(b"56", ms(32));
        assert_eq!(framer.next(ms(32)), None);
        assert_eq!(framer.next(ms(40)), None);
        framer.push(b"g", ms(50));
        assert_eq!(framer.next(ms(55)), Some(Frame::Whole(b"g")));
    }
}

#[test]
fn a_line_without_an_end_keeps_nothing_and_the_next_one_is_read() {
    let noise = [b'x'; 4096];
    let mut pieces: Vec<&[u8]> = vec![&noise; 256];
    pieces.push(b"\n21.5\n");
    assert_eq!(frames(framer("kind = \"line\"", None, false), &pieces), [None, whole(b"21.5")]);
}

#[test]
fn a_key_that_belongs_to_another_kind_is_told() {
    for (text, expected) in [
        ("kind = \"line\"\nsize = 3", "size: a frame of kind \"line\" has no such key, but max"),
        ("kind = \"delimiter\"", ": a frame of kind \"delimiter\" needs `delimiter`"),
        ("kind = \"delimiter\"\ndelimiter = \"\"", "delimiter: expected text such as"),
        ("kind = \"length\"\nstart = \"S\"\nas = \"u8\"", ": a frame of kind \"length\" needs `at`"),
        ("kind = \"length\"\nstart = \"S\"\nat = 1\nas = \"f32\"", "as: expected \"u8\""),
        ("kind = \"fixed\"\nsize = 3", "needs `start`, or the device a `check`"),
        ("kind = \"fixed\"\nsize = 0\nstart = \"S\"", "size: expected a whole number from 1 to 4096"),
        ("kind = \"between\"\nstart = \"S\"\nend = \"E\"\nescape_xor = 1", "escape_xor: it says what `escape` does"),
        ("kind = \"idle\"", "needs either `pause` or `characters`"),
        ("kind = \"idle\"\npause = \"1ms\"\ncharacters = 3.5", "needs either `pause` or `characters`"),
        ("kind = \"idle\"\npause = \"0s\"", "pause: expected \"1ms\" to \"60s\""),
        ("kind = \"fixed\"\nsize = 1\nstart = \"SS\"", "size: no frame is so short: by the other keys it has 2 bytes"),
        (
            "kind = \"length\"\nstart = \"S\"\nat = 9\nas = \"u16\"\nend = \"E\"\nmax = \"11B\"",
            "max: no frame is so short",
        ),
        ("kind = \"between\"\nstart = \"S\"\nend = \"EE\"\nafter = 1\nmax = \"3B\"", "it has 4 bytes or more"),
        ("kind = \"cobs\"\nmax = \"2MiB\"", "max: expected 1B to 1MiB"),
    ] {
        let faults = Framing::read(&text.parse().unwrap(), false).unwrap_err();
        let told: Vec<String> =
            faults.iter().map(|fault| format!("{}: {}", fault.path.join("."), fault.text)).collect();
        assert!(told.iter().any(|told| told.contains(expected)), "{text}: {told:?}");
    }
}

/// A framing with a check, and a frame of it around a content.
type Way = (&'static str, &'static str, fn(&[u8]) -> Vec<u8>);

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// Framings that find their way back after any noise.
const WAYS: [Way; 3] = [
    ("kind = \"length\"\nstart = [0x42, 0x4d]\nat = 2\nas = \"u8\"\nmax = \"64B\"", "kind = \"sum\"", |content| {
        let mut frame = vec![0x42, 0x4d, u8::try_from(content.len() + 1).unwrap()];
        frame.extend_from_slice(content);
        frame.push(sum(&frame));
        frame
    }),
    ("kind = \"fixed\"\nsize = 12\nstart = [0x42]", "kind = \"sum\"", |content| {
        let mut frame = vec![0x42; 11];
        frame.iter_mut().skip(1).zip(content).for_each(|(place, byte)| *place = *byte);
        frame.push(sum(&frame));
        frame
    }),
    ("kind = \"between\"\nstart = \"<\"\nend = \">\"\nafter = 1\nmax = \"64B\"", "kind = \"sum\"", |content| {
        let inner = content.iter().map(|byte| if *byte == b'>' { b'.' } else { *byte });
        let mut frame: Vec<u8> = std::iter::once(b'<').chain(inner).chain([b'>']).collect();
        frame.push(sum(&frame));
        frame
    }),
];

proptest! {
    #[test]
    fn the_cuts_on_the_way_do_not_matter(
        bytes in prop::collection::vec(prop::sample::select(b"ab\r\n\x00\x02\xc0\xdb".to_vec()), 0..200),
        cuts in prop::collection::vec(0usize..200, 0..20),
        max in 1u64..8,
        end in prop::sample::select(vec!["\\n", "a", "ab", "aab", "\\r\\n"]),
        skip_first: bool,
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        for (text, check, skip_first) in [
            (format!("kind = \"line\"\nmax = \"{max}B\""), None, skip_first),
            (format!("kind = \"delimiter\"\ndelimiter = \"{end}\"\nmax = \"{max}B\""), None, skip_first),
            (format!("kind = \"delimiter\"\ndelimiter = \"{end}\"\nafter = {max}"), None, skip_first),
            ("kind = \"cobs\"".to_owned(), None, skip_first),
            ("kind = \"slip\"".to_owned(), None, skip_first),
            ("kind = \"length\"\nstart = \"a\"\nat = 1\nas = \"u8\"\nmax = \"9B\"".to_owned(), None, false),
            ("kind = \"length\"\nstart = \"a\"\nat = 1\nas = \"u8\"\nmax = \"9B\"".to_owned(), Some("kind = \"xor\""), false),
            (format!("kind = \"fixed\"\nstart = \"ab\"\nsize = {}", max + 1), None, false),
            (format!("kind = \"between\"\nstart = \"b\"\nend = \"{end}\"\nmax = \"20B\""), None, false),
            (format!("kind = \"between\"\nstart = \"b\"\nend = \"{end}\"\nmax = \"20B\""), Some("kind = \"xor\""), false),
        ] {
            let only = |found: Vec<Option<Vec<u8>>>| -> Vec<Vec<u8>> { found.into_iter().flatten().collect() };
            let cut = only(frames(framer(&text, check, skip_first), &pieces));
            prop_assert_eq!(cut, only(frames(framer(&text, check, skip_first), &[&bytes])), "{} {:?}", text, check);
        }
    }

    #[test]
    fn no_noise_loses_a_frame_that_is_there(
        parts in prop::collection::vec((
            prop::collection::vec(prop::sample::select(b"\x42\x4d<>\x03\x09abc".to_vec()), 0..12),
            prop::collection::vec(prop::sample::select(b"\x42\x4d<>\x02\x07xyz".to_vec()), 1..10),
        ), 1..6),
        which in 0..WAYS.len(),
    ) {
        let (framing, check, make) = WAYS[which];
        let (mut line, mut sent) = (Vec::new(), Vec::new());
        for (noise, content) in parts {
            line.extend(noise);
            let frame = make(&content);
            sent.push((line.len(), frame.clone()));
            line.extend(frame);
        }
        // What is still waited for at the end would come.
        line.extend([0; 80]);
        let found = frames(framer(framing, Some(check), false), &[&line]);
        let found: Vec<Vec<u8>> = found.into_iter().flatten().collect();
        // Each was found, but for one that the sum of something before it reached into: that was a frame as well.
        let mut at = 0;
        for (place, frame) in &sent {
            if let Some(next) = found[at..].iter().position(|other| other == frame) {
                at += next + 1;
            } else {
                let is_hidden = (0..*place).any(|from| found.iter().any(|other| {
                    line[from..].starts_with(other) && from + other.len() > *place
                })) || (0..place + frame.len()).any(|from| found.iter().any(|other| {
                    other != frame && line[from..].starts_with(other) && from < place + frame.len() && from + other.len() > *place
                }));
                prop_assert!(is_hidden, "{:x?} at {} of {:x?} by {}", frame, place, line, framing);
            }
        }
    }
}
