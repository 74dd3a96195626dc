use proptest::prelude::*;

use super::*;
use crate::model::{BootId, Cause, DeviceName, GapCause, Reason};

fn at() -> Timestamp {
    Timestamp {
        uptime: Duration::from_millis(1500),
        wall: Duration::from_millis(1_795_341_600_123),
        synced: true,
        boot: BootId(0xb0),
    }
}

fn text((bytes, content): &(Bytes, Content)) -> String {
    assert!(content.is_text());
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn a_reading(value: Option<Value>) -> Reading {
    Reading {
        device: DeviceName::new("tank").unwrap(),
        point: PointName::new("level").unwrap(),
        timestamp: at(),
        value,
        unit: None,
        quality: Quality::Good,
        cause: None,
    }
}

#[test]
fn a_reading_is_spelled_as_documented() {
    let number = Some((Lane::Telemetry, Number { epoch: 7, seq: 4711 }));
    let mut live = a_reading(Some(Value::Float(21.5)));
    live.unit = Some(Arc::from("Cel"));
    let live = reading(Payload::Json, &live, number, Copy::Live, &at());
    assert_eq!(
        text(&live),
        r#"{"ts":"2026-11-22T10:00:00.123Z","value":21.5,"unit":"Cel","quality":"good","lane":"telemetry","epoch":7,"seq":4711}"#
    );
    let mut unsynced = a_reading(None);
    unsynced.timestamp.synced = false;
    unsynced.quality = Quality::Bad;
    unsynced.cause = Some(Cause::Start);
    let unset = Timestamp { uptime: Duration::from_secs(3), ..unsynced.timestamp };
    assert_eq!(
        text(&reading(Payload::Json, &unsynced, None, Copy::Repeat, &unset)),
        r#"{"ts":null,"uptime":1.5,"boot":"000000000000000000000000000000b0","clock":"unsynced","value":null,"quality":"bad","cause":"start","repeat":true}"#
    );
}

#[test]
fn what_was_taken_before_the_clock_was_set_is_dated_when_it_goes_out() {
    let now = Timestamp { uptime: at().uptime + Duration::from_secs(60), ..at() };
    let mut early = a_reading(None);
    early.timestamp.synced = false;
    early.timestamp.wall = Duration::from_secs(12);
    let dated = reading(Payload::Json, &early, None, Copy::Late, &now);
    assert_eq!(text(&dated), r#"{"ts":"2026-11-22T09:59:00.123Z","value":null,"quality":"good","late":true}"#);
    early.timestamp.boot = BootId(0xb1);
    let of_another_boot = text(&reading(Payload::Json, &early, None, Copy::Late, &now));
    assert!(of_another_boot.starts_with(r#"{"ts":null,"uptime":1.5,"#), "{of_another_boot}");
}

#[test]
fn an_outcome_is_spelled_as_documented() {
    let mut what = Outcome {
        id: CommandId::new("c-42").unwrap(),
        device: "tank".to_owned(),
        point: Some("valve".to_owned()),
        verdict: Verdict::Done,
        text: None,
        values: vec![(PointName::new("valve").unwrap(), Value::Bool(true))],
        timestamp: at(),
        reply: None,
    };
    let number = Some((Lane::Outcome, Number { epoch: 7, seq: 12 }));
    assert_eq!(
        text(&outcome(Payload::Json, &what, number, false, &at())),
        r#"{"id":"c-42","outcome":"done","ts":"2026-11-22T10:00:00.123Z","value":true,"lane":"outcome","epoch":7,"seq":12}"#
    );
    what.verdict = Verdict::Rejected(Reason::ReadOnly);
    what.text = Some("no".to_owned());
    what.point = None;
    what.values.clear();
    assert_eq!(
        text(&outcome(Payload::Json, &what, None, false, &at())),
        r#"{"id":"c-42","outcome":"rejected","reason":"read-only","text":"no","ts":"2026-11-22T10:00:00.123Z"}"#
    );
}

#[test]
fn a_gap_is_spelled_as_documented() {
    let range = GapRange::Numbers { lane: Lane::Telemetry, epoch: 7, from: 100, to: Some(2011), count: Some(1812) };
    let told = gap(&Gap { n: 3, cause: GapCause::Bytes, range, since: at() }, &at());
    assert_eq!(
        text(&told),
        r#"{"n":3,"lane":"telemetry","epoch":7,"from":100,"to":2011,"count":1812,"cause":"bytes","ts":"2026-11-22T10:00:00.123Z"}"#
    );
}

fn parsed(point: Option<&str>, payload: &[u8], text_point: bool) -> Command {
    let target = Target { device: "tank", point };
    let spelling = Spelling { text: text_point, payload: Payload::Json };
    command(target, &Message::received("t", Bytes::copy_from_slice(payload), false), None, spelling)
}

fn parsed_as(form: Payload, point: Option<&str>, payload: &[u8]) -> Command {
    let target = Target { device: "tank", point };
    let spelling = Spelling { text: false, payload: form };
    command(target, &Message::received("t", Bytes::copy_from_slice(payload), false), None, spelling)
}

#[test]
fn a_command_is_read_in_every_spelling() {
    let secs = Duration::from_secs;
    let valve = |value| Ok(vec![("valve".to_owned(), value)]);
    for (payload, expected) in [
        ("ON", valve(Value::text("ON"))),
        (" 21.5 ", valve(Value::text("21.5"))),
        ("true", valve(Value::text("true"))),
        (r#"{"value":true}"#, valve(Value::Bool(true))),
        (r#"{"value":21.5,"id":"c"}"#, valve(Value::Float(21.5))),
    ] {
        assert_eq!(parsed(Some("valve"), payload.as_bytes(), false).values, expected, "{payload}");
    }
    let full = parsed(
        Some("valve"),
        br#"{"value":1,"id":"c-42","ts":"2026-11-22T10:00:00Z","expires":1795341700,"ttl":"30s","for":"5m"}"#,
        false,
    );
    assert_eq!(full.id, CommandId::new("c-42"));
    assert_eq!(full.sent, Some(secs(1_795_341_600)));
    assert_eq!(full.expires, Some(secs(1_795_341_700)));
    assert_eq!((full.ttl, full.lease), (Some(secs(30)), Some(secs(300))));
    let several = parsed(None, br#"{"values":{"a":1,"b":"x"},"id":7}"#, false);
    assert_eq!(several.values, Ok(vec![("a".to_owned(), Value::Int(1)), ("b".to_owned(), Value::text("x"))]));
    assert_eq!(several.id, CommandId::new("7"));
}

#[test]
fn a_text_point_takes_json_only_as_an_object_with_value() {
    for (payload, expected) in
        [(r#"{"value":"hi"}"#, "hi"), (r#"{"other":1}"#, r#"{"other":1}"#), ("{broken", "{broken"), (" x ", " x ")]
    {
        let command = parsed(Some("display"), payload.as_bytes(), true);
        assert_eq!(command.values, Ok(vec![("display".to_owned(), Value::text(expected))]), "{payload}");
    }
    let cleared = parsed(Some("display"), b"", true);
    assert_eq!(cleared.values, Err("the payload is empty".to_owned()), "clears a retained message, and no display");
    let emptied = parsed(Some("display"), br#"{"value":""}"#, true);
    assert_eq!(emptied.values, Ok(vec![("display".to_owned(), Value::text(""))]));
}

#[test]
fn a_command_that_cannot_be_read_says_why_and_keeps_its_id() {
    for (point, payload, expected) in [
        (Some("valve"), "", "the payload is empty"),
        (Some("valve"), "{", "the payload is no JSON"),
        (Some("valve"), r#"{"id":"x"}"#, "expected \"value\""),
        (Some("valve"), r#"{"id":"x","value":[1]}"#, "`[1]` is no value"),
        (Some("valve"), r#"{"id":"x","value":null}"#, "`null` is no value"),
        (Some("valve"), r#"{"id":"x","value":1,"ttl":"soon"}"#, "`soon` is not a duration"),
        (Some("valve"), r#"{"id":"x","value":1,"ts":"soon"}"#, "`soon` is not a time"),
        (Some("valve"), r#"{"id":"x","value":1,"tll":"1s"}"#, "unknown key `tll`"),
        (Some("valve"), r#"{"id":"x","value":1e999}"#, "the payload is no JSON"),
        (Some("valve"), r#"{"id":"x","value":1,"value":2}"#, "the key `value` is there twice"),
        (None, r#"{"id":"x","values":{"a":1,"a":0}}"#, "the key `a` is there twice"),
        (None, "ON", "expected a JSON object"),
        (None, r#"{"id":"x","values":{}}"#, "expected \"values\""),
        (None, r#"{"id":"x","value":1}"#, "expected \"values\""),
    ] {
        let command = parsed(point, payload.as_bytes(), false);
        let error = command.values.unwrap_err();
        assert!(error.contains(expected), "{payload}: {error}");
        assert_eq!(command.id.is_some(), payload.contains("\"id\"") && !payload.contains("1e999"), "{payload}");
    }
    assert!(parsed(Some("valve"), b"\xff\xfe", false).values.is_err());
}

/// As `command::MAX_OUTCOME`, which the lane of outcomes has room for.
const MAX_OUTCOME: usize = 12 << 10;

#[test]
fn a_command_is_as_large_as_its_outcome_may_be() {
    let name = "p".repeat(64);
    let text = |length| format!(r#"{{"value":"{}","id":"{}"}}"#, "x".repeat(length), "i".repeat(64));
    let most = MAX_COMMAND - text(0).len();
    let several = |count: usize, value: &str| {
        let values: Vec<String> = (0..count).map(|n| format!(r#""p{n}":{value}"#)).collect();
        format!(r#"{{"values":{{{}}}}}"#, values.join(","))
    };
    for (payload, point, fits) in [
        (text(most), Some(&*name), true),
        (text(most + 1), Some(&*name), false),
        ("7".repeat(MAX_COMMAND), Some(&*name), true),
        ("7".repeat(MAX_COMMAND + 1), Some(&*name), false),
        (several(300, "1"), None, true),
        (several(600, "1"), None, false),
        (several(25, "1e308"), None, true),
        (several(100, "1e308"), None, false),
    ] {
        let mut message = Message::received("t", Bytes::from(payload.clone()), false);
        message.response_topic = Some("r".repeat(MAX_REPLY));
        message.correlation = Some(Bytes::from(vec![7; MAX_REPLY]));
        let device = "d".repeat(64);
        let command = command(Target { device: &device, point }, &message, reply_to(&message), Spelling::default());
        let start = payload.get(..40).unwrap_or(&payload);
        let Ok(values) = &command.values else {
            let error = command.values.unwrap_err();
            assert!(!fits && error.contains("too large"), "{start}: {error}");
            continue;
        };
        assert!(fits, "{start}");
        let named = |(name, value): &(String, Value)| (PointName::new(name).unwrap(), Value::text(value.to_string()));
        let outcome =
            Outcome { values: values.iter().map(named).collect(), ..Outcome::of(&command, Verdict::Done, None) };
        let mut bytes = Vec::new();
        crate::model::Body::Outcome(outcome).encode(&mut bytes);
        assert!(bytes.len() < MAX_OUTCOME, "{start}: {}", bytes.len());
    }
}

#[test]
fn an_answer_that_would_be_long_is_not_promised() {
    let mut message = Message::received("t", Bytes::new(), false);
    for (topic, correlation, answered) in
        [(MAX_REPLY, Some(MAX_REPLY), true), (MAX_REPLY + 1, None, false), (1, Some(MAX_REPLY + 1), false)]
    {
        message.response_topic = Some("t".repeat(topic));
        message.correlation = correlation.map(|length| Bytes::from(vec![0; length]));
        assert_eq!(reply_to(&message).is_some(), answered, "{topic} {correlation:?}");
    }
}

proptest! {
    #[test]
    fn no_payload_panics(payload: Vec<u8>, text_point: bool, several: bool) {
        parsed((!several).then_some("valve"), &payload, text_point);
    }
}

/// The example of DESIGN in the other forms; the CBOR by RFC 8949, section 3.
#[test]
fn a_reading_has_the_same_fields_in_every_form() {
    let number = Some((Lane::Telemetry, Number { epoch: 7, seq: 4711 }));
    let mut what = a_reading(Some(Value::text("a<b>&\u{1}c")));
    what.unit = Some(Arc::from("Cel"));
    let (xml, content) = reading(Payload::Xml, &what, number, Copy::Late, &at());
    assert_eq!(content, Content::Xml);
    assert_eq!(
        std::str::from_utf8(&xml).unwrap(),
        "<reading><epoch>7</epoch><lane>telemetry</lane><late>true</late><quality>good</quality><seq>4711</seq>\
         <ts>2026-11-22T10:00:00.123Z</ts><unit>Cel</unit><value>a&lt;b&gt;&amp;\u{fffd}c</value></reading>"
    );
    let (cbor, content) = reading(Payload::Cbor, &what, number, Copy::Late, &at());
    let (json, _) = reading(Payload::Json, &what, number, Copy::Late, &at());
    assert_eq!(content, Content::Cbor);
    assert_eq!(cbor[..4], [0xbf, 0x62, b't', b's'], "a map of indefinite length, and a text of two bytes");
    let read: serde_json::Value = minicbor_serde::from_slice(&cbor).unwrap();
    assert_eq!(read, serde_json::from_slice::<serde_json::Value>(&json).unwrap());
}

#[test]
fn a_command_is_read_in_xml() {
    let xml = |point, text: &str| parsed_as(Payload::Xml, point, text.as_bytes());
    let one = |value: &str| Ok(vec![("valve".to_owned(), Value::text(value))]);
    let full = xml(
        Some("valve"),
        "<?xml version=\"1.0\"?>\n<command><!-- by hand -->\n  <value>4&#50;</value><id>c-7</id><ttl>30s</ttl><for>2.5</for>\n</command>",
    );
    assert_eq!((full.values, full.id), (one("42"), CommandId::new("c-7")));
    assert_eq!((full.ttl, full.lease), (Some(Duration::from_secs(30)), Some(Duration::from_millis(2500))));
    assert_eq!(xml(Some("valve"), " ON ").values, one("ON"), "a bare value");
    assert_eq!(xml(Some("valve"), "<command><value><![CDATA[<&>]]></value></command>").values, one("<&>"));
    assert_eq!(
        xml(Some("valve"), "{\"value\":1}").values,
        Ok(vec![("valve".to_owned(), Value::Int(1))]),
        "JSON as well"
    );
    let several =
        xml(None, "<command><values><value point=\"a\">1</value><value point=\"b-2\">x</value></values></command>");
    let expected = [("a", "1"), ("b-2", "x")].map(|(name, value)| (name.to_owned(), Value::text(value)));
    assert_eq!(several.values, Ok(expected.to_vec()));
    for (text, expected) in [
        ("<command><value>1</value>", "the payload is no XML of a command: "),
        ("<command><value>1</value><value>2</value></command>", "the key `value` is there twice"),
        ("<set><value>1</value></set>", "the payload is no XML of a command: unexpected <set>: expected <command>"),
        (
            "<command><value><b>1</b></value></command>",
            "the payload is no XML of a command: unexpected <command><value><b>",
        ),
        (
            "<command><values><value>1</value></values></command>",
            "the payload is no XML of a command: expected <value point=\"NAME\">",
        ),
        (
            "<command id=\"c-1\"><value>1</value></command>",
            "the payload is no XML of a command: unknown attribute `id`: fields are elements",
        ),
        (
            "<command><value unit=\"mm\">1</value></command>",
            "the payload is no XML of a command: unknown attribute `unit`: fields are elements",
        ),
        (
            "<command><values><value point=\"a\" point=\"b\">1</value></values></command>",
            "the payload is no XML of a command: ",
        ),
        ("<command>4<value>1</value></command>", "the payload is no XML of a command: `4` beside an element"),
        ("<command><value>1</value>4</command>", "the payload is no XML of a command: `4` beside an element"),
        ("<command/>", "the payload is no XML of a command: expected <command> with its fields"),
        (
            "<!DOCTYPE a [<!ENTITY b \"c\">]><command><value>&b;</value></command>",
            "the payload is no XML of a command: ",
        ),
        (
            "<command><value>&b;</value></command>",
            "the payload is no XML of a command: an entity that XML itself does not know",
        ),
        ("<command><valeu>1</valeu></command>", "expected \"value\""),
    ] {
        let error = xml(Some("valve"), text).values.unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_command_is_read_in_cbor() {
    let cbor = |point, bytes: &[u8]| parsed_as(Payload::Cbor, point, bytes);
    let one = |value| Ok(vec![("valve".to_owned(), value)]);
    // RFC 8949, appendix A: true, 21.5 as half a float, -1, "a".
    for (bytes, value) in [
        (&[0xf5][..], Value::Bool(true)),
        (&[0xf9, 0x4d, 0x60], Value::Float(21.5)),
        (&[0x20], Value::Int(-1)),
        (&[0x61, b'a'], Value::text("a")),
    ] {
        let map = [&[0xa1, 0x65][..], b"value", bytes].concat();
        assert_eq!(cbor(Some("valve"), &map).values, one(value));
    }
    let fields = serde_json::json!({ "value": 40, "id": "c-7", "ttl": "30s", "for": 2.5 });
    let full = cbor(Some("valve"), &minicbor_serde::to_vec(&fields).unwrap());
    assert_eq!((full.values, full.id), (one(Value::Int(40)), CommandId::new("c-7")));
    assert_eq!((full.ttl, full.lease), (Some(Duration::from_secs(30)), Some(Duration::from_millis(2500))));
    let several = cbor(None, &minicbor_serde::to_vec(serde_json::json!({ "values": { "a": true } })).unwrap());
    assert_eq!(several.values, Ok(vec![("a".to_owned(), Value::Bool(true))]));
    for (bytes, expected) in [
        (&[0x81, 0xf5][..], "the payload is no CBOR of a command: "),
        (b"5", "the payload is no CBOR of a command: expected a map with \"value\" or \"values\", found -22"),
        (&[0xf5, 0xf5], "the payload is no CBOR of a command: there is more behind the first item"),
        (&[0x41, 1], "the payload is no CBOR of a command: "),
        (
            &[0xa1, 0x61, b'a', 0xf9, 0x7e, 0],
            "the payload is no CBOR of a command: decode error: a number that is not finite",
        ),
        (
            &[0xa2, 0x61, b'a', 1, 0x61, b'a', 2],
            "the payload is no CBOR of a command: decode error: the key `a` is there twice",
        ),
        (&[], "the payload is empty"),
    ] {
        let error = cbor(Some("valve"), bytes).values.unwrap_err();
        assert!(error.starts_with(expected), "{bytes:?}: {error}");
    }
    // Deeper than any stack.
    let deep = [vec![0x81; 4000], [0xa1, 0x61, b'a'].repeat(1000)];
    assert!(deep.iter().all(|bytes| cbor(Some("valve"), bytes).values.is_err()));
}

proptest! {
    #[test]
    fn no_payload_of_another_form_panics(
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        text in "<(command|value|values|[a-z&;#!\\[\\]\"= /?-]){0,12}>(<|>|/|&|;|#|[a-z0-9]){0,20}",
        several: bool,
    ) {
        let point = (!several).then_some("valve");
        parsed_as(Payload::Cbor, point, &payload);
        parsed_as(Payload::Xml, point, &payload);
        parsed_as(Payload::Xml, point, text.as_bytes());
    }
}
