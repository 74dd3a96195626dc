use proptest::prelude::*;

use super::*;

const FLOAT: Option<ValueType> = Some(ValueType::Float);
const TEXT: Option<ValueType> = Some(ValueType::Text);

fn decode(config: &str) -> Decode {
    Decode::read(&config.parse().unwrap()).unwrap()
}

fn at(name: &str) -> Option<From> {
    Some(From::Name(name.to_owned()))
}

fn int(n: i64) -> Slot {
    Slot::Value(Value::Int(n))
}

fn float(n: f64) -> Slot {
    Slot::Value(Value::Float(n))
}

fn word(text: &str) -> Slot {
    Slot::Value(Value::text(text))
}

fn check(config: &str, points: &[(Option<From>, Option<ValueType>)], frame: &[u8], expected: &[Slot]) {
    let decoder = Decoder::new(&decode(config), points).unwrap();
    let mut slots = vec![int(99); points.len()];
    let result = decoder.decode(frame, &mut slots);
    assert!(result.is_ok(), "{} by {config}: {result:?}", frame.escape_ascii());
    assert_eq!(slots, expected, "{} by {config}", frame.escape_ascii());
}

fn refused(config: &str, points: &[(Option<From>, Option<ValueType>)], frame: &[u8], expected: &str) {
    let decoder = Decoder::new(&decode(config), points).unwrap();
    let error = decoder.decode(frame, &mut vec![Slot::Absent; points.len()]).unwrap_err().to_string();
    assert!(error.contains(expected), "{} by {config}: {error}", frame.escape_ascii());
}

#[test]
fn json_by_pointer() {
    let points = [(at("/level"), FLOAT), (at("/pump/on"), None)];
    let config = "kind = \"json\"";
    check(config, &points, br#"{"level":215,"pump":{"on":true}}"#, &[int(215), Slot::Value(Value::Bool(true))]);
    check(config, &points, br#"{"level":null}"#, &[Slot::Bad, Slot::Absent]);
    check(config, &points, br#"{"level":"21.5","pump":[]}"#, &[word("21.5"), Slot::Absent]);
    refused(config, &points, b"{\"level\":2", "not JSON");
    refused(config, &points, b"\xff\xfe", "not JSON");
}

#[test]
fn xml_by_path() {
    let points =
        [(at("/tank/level"), FLOAT), (at("/tank/@id"), TEXT), (at("/tank/note"), TEXT), (at("/tank/pump"), None)];
    let config = "kind = \"xml\"";
    let frame = b"<tank id='007'><level unit='cm'> 21.5 </level><note/><pump><on/></pump></tank>";
    check(config, &points, frame, &[float(21.5), word("007"), word(""), Slot::Bad]);
    check(config, &points, b"<tank><level/></tank>", &[Slot::Absent, Slot::Absent, Slot::Absent, Slot::Absent]);
    refused(config, &points, b"<tank><level>2", "not XML");
    refused(config, &points, b"<tank>&boom;</tank>", "not XML");
    refused(config, &points, b"<tank>\xff</tank>", "not UTF-8");
}

#[test]
fn columns_by_number() {
    let points = [(Some(From::Column(2)), FLOAT), (Some(From::Column(1)), TEXT), (Some(From::Column(4)), None)];
    let config = "kind = \"csv\"";
    check(config, &points, b"a, 21.5 ,x,-7", &[float(21.5), word("a"), int(-7)]);
    check(config, &points, b"007,,", &[Slot::Absent, word("007"), Slot::Absent]);
    check(config, &points, b"\"a,\"\"b\"\"\" ,2", &[int(2), word("a,\"b\""), Slot::Absent]);
    check(config, &points, b"\"open,2", &[int(2), word("\"open"), Slot::Absent]);
    check("kind = \"csv\"\nseparator = \"\\t\"", &points, b"a,b\t1\tx\tNaN", &[int(1), word("a,b"), word("NaN")]);
    refused(config, &points[2..], b"1,2,3", "columns");
    refused(config, &points, b"\xff,1", "UTF-8");
}

#[test]
fn values_by_key() {
    let points = [(at("T"), FLOAT), (at("H"), None), (at("S"), TEXT)];
    let config = "kind = \"key-value\"";
    check(config, &points, b"T=21.5 H=40;S=ok", &[float(21.5), int(40), word("ok")]);
    check(config, &points, b"X=1,T=,S=", &[Slot::Absent, Slot::Absent, word("")]);
    check(config, &points, b"T=1 T=2", &[int(2), Slot::Absent, Slot::Absent]);
    let colon = "kind = \"key-value\"\nseparator = \",\"\nassign = \":\"";
    check(colon, &points, b"T: 21.5, H : 40, S: a b", &[float(21.5), int(40), word("a b")]);
    refused(config, &points, b"noise", "no pair");
}

#[test]
fn values_by_pattern() {
    let points = [(at("t"), FLOAT), (at("state"), None)];
    let config = r#"kind = "regex"
        pattern = '^TEMP\s+(?<t>-?[0-9.]+)C(?:\s+(?P<state>\w+))?$'"#;
    check(config, &points, b"TEMP  -21.50C ok", &[float(-21.5), word("ok")]);
    check(config, &points, b"TEMP 1C", &[int(1), Slot::Absent]);
    refused(config, &points, b"TEMP ?C", "pattern");
    refused(config, &points, b"\x80", "UTF-8");
}

#[test]
fn the_whole_frame() {
    check("kind = \"text\"", &[(None, None), (None, FLOAT)], b" 21.5 ", &[word("21.5"), word("21.5")]);
    check("kind = \"bytes\"", &[(None, None)], &[0, 0x1f, 0xff], &[word("001fff")]);
    refused("kind = \"text\"", &[(None, None)], b"\xc3(", "UTF-8");
}

#[test]
fn a_number_is_what_reads_as_one() {
    for (text, expected) in [
        ("0042", Some(Value::Int(42))),
        ("+7", Some(Value::Int(7))),
        ("-.5", Some(Value::Float(-0.5))),
        ("1e3", Some(Value::Float(1000.0))),
        ("1e999", None),
        ("12345678901234567890", None),
        ("infinity", None),
        ("-nan", None),
        ("0x1f", None),
        ("1,5", None),
        ("-", None),
        ("", None),
    ] {
        assert_eq!(number(text), expected, "{text:?}");
    }
}

#[test]
fn a_place_that_the_decoder_can_not_find_is_a_fault() {
    for (config, from, expected) in [
        ("kind = \"json\"", at("level"), "JSON pointer"),
        ("kind = \"json\"", Some(From::Column(1)), "JSON pointer"),
        ("kind = \"csv\"", at("1"), "column"),
        ("kind = \"csv\"", Some(From::Column(0)), "from 1"),
        ("kind = \"key-value\"", at(""), "key"),
        ("kind = \"regex\"\npattern = \"(?<t>.)(?<u>.)\"", at("v"), "(t, u)"),
        ("kind = \"text\"", at("x"), "remove `from`"),
        ("kind = \"bytes\"", Some(From::Column(1)), "remove `from`"),
        ("kind = \"json\"", None, "JSON pointer"),
    ] {
        let faults = Decoder::new(&decode(config), &[(from, None)]).unwrap_err();
        assert!(faults[0].0 == Some(0) && faults[0].1.contains(expected), "{config}: {faults:?}");
    }
    let faults = Decoder::new(&decode("kind = \"regex\"\npattern = \"(\""), &[]).unwrap_err();
    assert!(faults[0].0.is_none() && faults[0].1.contains("pattern"), "{faults:?}");
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..64), noise in ".*") {
        for (config, from) in [
            ("kind = \"json\"", at("/a")),
            ("kind = \"csv\"", Some(From::Column(2))),
            ("kind = \"csv\"\nseparator = \"é\"", Some(From::Column(1))),
            ("kind = \"key-value\"", at("a")),
            ("kind = \"regex\"\npattern = \"(?<a>[0-9]+)\"", at("a")),
            ("kind = \"text\"", None),
            ("kind = \"bytes\"", None),
        ] {
            let decoder = Decoder::new(&decode(config), &[(from, None)]).unwrap();
            for frame in [bytes.as_slice(), noise.as_bytes()] {
                if let Err(error) = decoder.decode(frame, &mut [Slot::Absent]) {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_quoted_column_reads_back_as_written(fields in prop::collection::vec("[a-z,\" ]*", 1..5)) {
        let line: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        let line = line.join(",");
        let read: Vec<String> = Columns::new(&line, ',').map(Cow::into_owned).collect();
        prop_assert_eq!(read, fields);
    }
}
