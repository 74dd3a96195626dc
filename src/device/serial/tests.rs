//! The kind against real pseudo-terminals.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::device::testing::{Rig, bad, faults, good};
use crate::model::{Answer, Value, WriteError, time};

/// The far end of a line, under a name that can be given to another one later.
pub(super) struct Line {
    far: File,
    pub(super) name: PathBuf,
    _folder: tempfile::TempDir,
}

fn open() -> (File, PathBuf) {
    let far = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&far).unwrap();
    unlockpt(&far).unwrap();
    // Else what is sent before the driver opens the port would come back as an echo.
    let mut settings = tcgetattr(&far).unwrap();
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings).unwrap();
    let name = ptsname(&far, Vec::new()).unwrap();
    (File::from(far), PathBuf::from(name.to_str().unwrap()))
}

impl Line {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (far, near) = open();
        let name = folder.path().join("port");
        symlink(near, &name).unwrap();
        Line { far, name, _folder: folder }
    }

    /// Plugs another adapter in.
    fn plug(&mut self) {
        let (far, near) = open();
        self.far = far;
        symlink(near, &self.name).unwrap();
    }

    fn unplug(&mut self) {
        self.far = File::open("/dev/null").unwrap();
        std::fs::remove_file(&self.name).unwrap();
    }

    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.far.write_all(bytes).unwrap();
    }

    /// Says more than a terminal holds, beside the test.
    fn say_all(&self, bytes: Vec<u8>) -> thread::JoinHandle<()> {
        let mut far = self.far.try_clone().unwrap();
        thread::spawn(move || far.write_all(&bytes).unwrap())
    }

    pub(super) async fn hears(&self, length: usize) -> Vec<u8> {
        let mut far = self.far.try_clone().unwrap();
        let heard = spawn_blocking(move || {
            let mut bytes = vec![0; length];
            far.read_exact(&mut bytes).map(|()| bytes)
        });
        heard.await.unwrap().unwrap()
    }
}

/// The device of an example, on this port.
pub(super) fn device_of(example: &str, port: &Path) -> String {
    let here = |line: &str| if line.starts_with("port = ") { format!("port = {:?}", port) } else { line.to_owned() };
    example.lines().map(here).collect::<Vec<_>>().join("\n")
}

fn device(port: &Path, more: &str) -> String {
    format!("[device.tank]\nkind = \"serial\"\nport = {:?}\n{more}", port.to_str().unwrap())
}

const JSON: &str = r#"
    decode = { kind = "json" }
    max_rate = "off"
    [device.tank.point.level]
    from = "/level"
    type = "int"
"#;

fn level(n: i64) -> (String, Option<Value>) {
    good("level", Value::Int(n))
}

#[tokio::test]
async fn a_line_becomes_readings() {
    let mut line = Line::new();
    line.say(b"{\"level\":1}\r\n");
    let mut rig = Rig::start(&device(&line.name, JSON));
    rig.online().await;
    assert_eq!(rig.value().await, level(1));
    line.say(b"{\"temp\":7}\n{\"level\":null}\n{\"level\":\"high\"}\n{\"lev");
    assert_eq!(rig.value().await, bad("level"));
    assert_eq!(rig.value().await, bad("level"));
    line.say(b"el\":2}\n");
    assert_eq!(rig.value().await, level(2));
    rig.stop().await;
}

#[tokio::test]
async fn a_replaced_port_is_opened_again() {
    let mut line = Line::new();
    let mut rig = Rig::start(&device(&line.name, JSON));
    line.say(b"{\"level\":1}\n");
    assert_eq!(rig.value().await, level(1));
    line.unplug();
    let why = rig.offline().await;
    assert!(why.contains("is gone"), "{why}");
    line.plug();
    rig.online().await;
    line.say(b"{\"level\":1}\n");
    assert_eq!(rig.value().await, level(1));
    rig.stop().await;
}

#[tokio::test]
async fn noise_ends_nothing() {
    let mut line = Line::new();
    let mut rig = Rig::start(&device(&line.name, JSON));
    let mut state = 0x9e37_79b9_u32;
    let mut noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(1 << 20)
    .collect();
    noise.extend_from_slice(b"\n{\"level\":1}\n");
    noise.resize(noise.len() + (1 << 20), b'x');
    noise.extend_from_slice(b"\n{\"level\":2}\n{\"level\":\"\xff\xfe\"}\n\xc3(\n{\"level\":3}\n");
    let said = line.say_all(noise);
    assert_eq!(rig.value().await, level(1));
    assert_eq!(rig.value().await, level(2));
    assert_eq!(rig.value().await, level(3));
    said.join().unwrap();
    line.say(b"{\"level\":4}\n");
    assert_eq!(rig.value().await, level(4));
    rig.stop().await;
}

#[tokio::test]
async fn every_line_of_a_fast_stream_is_read_in_order() {
    let line = Line::new();
    let mut rig = Rig::start(&device(&line.name, JSON));
    let said = line.say_all((0..20_000).flat_map(|n| format!("{{\"level\":{n}}}\n").into_bytes()).collect());
    for n in 0..20_000 {
        assert_eq!(rig.value().await, level(n));
    }
    said.join().unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_command_is_written_by_its_template() {
    let line = Line::new();
    let mut rig = Rig::start(&device(
        &line.name,
        r#"
        [device.tank.point.valve]
        type = "int"
        write = "VALVE {value}\r\n"
        scale = 0.1
        [device.tank.point.lamp]
        type = "bool"
        write = "LAMP {value};"
        map = { ON = true, OFF = false }
        [device.tank.point.note]
        type = "text"
        write = "{value}\n"
    "#,
    ));
    rig.online().await;
    let valve = (String::from("valve"), Value::Int(21));
    let answer = rig.write(&[("valve", valve.1.clone()), ("lamp", Value::Bool(true))]).await;
    let Answer::Ended { result: Ok(values), .. } = answer else { panic!("{answer:?}") };
    assert_eq!(values.len(), 2);
    assert_eq!(line.hears(19).await, b"VALVE 210\r\nLAMP ON;");
    assert_eq!(rig.value().await, good("valve", valve.1));
    assert_eq!(rig.value().await, good("lamp", Value::Bool(true)));
    let answer = rig.write(&[("note", Value::text("a\nVALVE 100\r\n"))]).await;
    let Answer::Ended { result: Err(WriteError::Failed(why)), .. } = answer else { panic!("{answer:?}") };
    assert!(why.contains("control characters"), "{why}");
    // What was written last is not taken back by the stop.
    let answer = rig.write(&[("note", Value::text("bye"))]).await;
    assert!(matches!(answer, Answer::Ended { result: Ok(_), .. }), "{answer:?}");
    rig.stop().await;
    assert_eq!(line.hears(4).await, b"bye\n");
}

#[tokio::test]
async fn a_silent_device_is_lost_and_comes_back_with_a_valid_frame() {
    let mut line = Line::new();
    let mut rig = Rig::start(&device(&line.name, &format!("silence = \"200ms\"\n{JSON}")));
    assert_eq!(rig.offline().await, "nothing valid received for 200ms");
    line.say(b"noise\n");
    line.say(b"{\"level\":1}\n");
    rig.online().await;
    assert_eq!(rig.value().await, level(1));
    assert_eq!(rig.offline().await, "nothing valid received for 200ms");
    rig.stop().await;
}

#[tokio::test]
async fn a_port_that_can_not_be_opened_says_why() {
    let line = Line::new();
    let missing = line.name.with_file_name("missing");
    let file = line.name.with_file_name("file");
    std::fs::write(&file, "").unwrap();
    for (path, expected) in [(&missing, "is the adapter plugged in?"), (&file, "could not be opened as a serial port")]
    {
        let mut rig = Rig::start(&device(path, JSON));
        let why = rig.offline().await;
        assert!(why.contains(expected) && why.contains(path.to_str().unwrap()), "{why}");
        rig.stop().await;
    }
    let mut first = Rig::start(&device(&line.name, JSON));
    first.online().await;
    let mut second = Rig::start(&device(&line.name, JSON));
    let why = second.offline().await;
    assert!(why.contains("in use by another program"), "{why}");
    second.stop().await;
    first.stop().await;
}

#[test]
fn a_wrong_table_is_told_key_by_key() {
    let port = Path::new("/dev/ttyUSB0");
    for (more, expected) in [
        ("baud_rate = 0", "baud_rate: expected bits per second"),
        ("data_bits = 9", "data_bits: expected 5, 6, 7 or 8, not 9"),
        ("parity = \"mark\"", "parity: unknown variant `mark`"),
        ("stop_bits = 3", "stop_bits: expected 1 or 2, not 3"),
        ("flow_control = true", "flow_control: "),
        ("silence = \"0s\"", "silence: expected a time above 0"),
        ("frame = { kind = \"line\", max = \"2MiB\" }", "frame.max: expected 1B to 1MiB"),
        ("frame = { kind = \"line\", maximum = \"1B\" }", "unknown field `maximum`"),
        ("frame = { kind = \"delimiter\" }", "frame: a frame of kind \"delimiter\" needs `delimiter`"),
        ("frame = { kind = \"delimiter\", delimiter = \"\" }", "frame.delimiter: expected text such as"),
        ("frame = { kind = \"delimiter\", delimiter = 10 }", "expected text such as"),
        ("decode = { kind = \"yaml\" }", "unknown variant `yaml`"),
        ("decode = { kind = \"text\", separator = \",\" }", "decode: `separator` is no key of this kind"),
        ("decode = { kind = \"csv\", separator = \"ab\" }", "decode"),
        ("decode = { kind = \"key-value\", assign = \"\" }", "decode.assign: "),
        ("decode = { kind = \"regex\", pattern = \"(\" }", "decode: `pattern` is wrong"),
        (
            "check = { kind = \"xor\", to = 8, at = 8 }\npoll = [{ send = \"ASK{check}\", every = \"1s\" }]",
            "poll.[0].send: the message is too short for what the `check` covers",
        ),
        ("[device.tank.point.x]\nfrom = \"/x\"", "point.x.from: a frame taken as a whole has no parts"),
        ("[device.tank.point.x]\nwrite = \"{v}\"\ntype = \"int\"", "point.x.write: expected `{value}`"),
        ("[device.tank.point.x]\nwrite = \"{value}\"", "point.x.type: a writable point needs a `type`"),
        ("decode = { kind = \"json\" }\n[device.tank.point.x]", "point.x.from: expected a JSON pointer"),
        (
            "decode = { kind = \"json\" }\n[device.tank.point.x]\nfrom = true",
            "point.x.from: expected text, a column number from 1, or a field such as { at = 4, as = \"u16\" }, found true",
        ),
    ] {
        let found = faults(&device(port, more));
        assert!(found.iter().any(|fault| fault.contains(expected)), "{more}: {found:?}");
    }
}

#[tokio::test]
async fn a_recorded_life_leaves_the_line_alone_while_it_is_busy() {
    let line = Line::new();
    let config = r#"
        baud_rate = 300
        pause = "10ms"
        poll = [{ send = "?", every = "1h", timeout = "10ms", retries = 0 }]
        [device.tank.point.text]
        type = "text"
        write = "{value}"
    "#;
    let mut rig = Rig::start(&device(&line.name, config));
    assert_eq!(line.hears(1).await, b"?");
    // A second and more by the speed of the line.
    let text = "x".repeat(40);
    let began = time::uptime();
    let Answer::Ended { result, .. } = rig.write(&[("text", Value::text(&text))]).await else { panic!("no end") };
    assert_eq!(result.unwrap()[0].1, Value::text(&text));
    let mut recording = rig.record();
    let (mut start, mut sent) = (None, None);
    while sent.is_none() {
        let next: serde_json::Value = serde_json::from_str(&recording.next().await.unwrap()).unwrap();
        start = start.or(next["uptime"].as_f64());
        sent = next["out"].is_string().then(|| next["t"].as_f64().unwrap() + start.unwrap());
    }
    let out = Duration::from_secs(1) * 40 * 10 / 300;
    assert!(Duration::from_secs_f64(sent.unwrap()) >= began + out, "it is asked too early");
    rig.stop().await;
}

/// Two polls whose answers are alike: only what was asked tells them apart.
const ALIKE: &str = r#"
    decode = { kind = "key-value" }
    max_rate = "off"
    poll = [
        { name = "inflow", send = "A?\n", every = "1h", timeout = "100ms", retries = RETRIES },
        { name = "outflow", send = "B?\n", every = "1h", timeout = "1s", retries = 0 },
    ]
    [device.tank.point.inflow]
    from = "F"
    poll = "inflow"
    [device.tank.point.outflow]
    from = "F"
    poll = "outflow"
"#;

#[tokio::test]
async fn an_answer_that_comes_before_the_next_question_is_none_to_it() {
    let mut line = Line::new();
    let more = format!("pause = \"400ms\"\n{}", ALIKE.replace("RETRIES", "0"));
    let mut rig = Rig::start(&device(&line.name, &more));
    assert_eq!(line.hears(3).await, b"A?\n");
    // Too late for its own question, and while the line is left alone before the next one.
    sleep(Duration::from_millis(250)).await;
    line.say(b"F=1\n");
    assert_eq!(line.hears(3).await, b"B?\n");
    line.say(b"F=2\n");
    assert_eq!(rig.value().await, good("outflow", Value::Int(2)));
    rig.stop().await;
}

#[tokio::test]
async fn a_late_answer_is_none_to_another_poll() {
    let mut line = Line::new();
    let mut rig = Rig::start(&device(&line.name, &ALIKE.replace("RETRIES", "1")));
    // Each answer is late, and the first one comes when it was asked again.
    for late in [130, 50] {
        assert_eq!(line.hears(3).await, b"A?\n");
        sleep(Duration::from_millis(late)).await;
        line.say(b"F=1\n");
    }
    assert_eq!(rig.value().await, good("inflow", Value::Int(1)));
    assert_eq!(line.hears(3).await, b"B?\n");
    line.say(b"F=2\n");
    assert_eq!(rig.value().await, good("outflow", Value::Int(2)));
    rig.stop().await;
}

#[tokio::test]
async fn what_no_poll_expects_is_no_reading() {
    let mut line = Line::new();
    let more = r#"
        frame = { kind = "fixed", size = 4, start = [0xff] }
        check = { kind = "sum" }
        decode = { kind = "fields" }
        max_rate = "off"
        poll = [{ send = "?", expect = { at = 1, is = [0x86] }, every = "1h" }]
        [device.tank.point.co2]
        from = { at = 2, as = "u8" }
        [device.tank.point.zero]
        type = "int"
        write = "{value:u8}"
    "#;
    let mut rig = Rig::start(&device(&line.name, more));
    assert_eq!(line.hears(1).await, b"?");
    line.say(b"\xff\x86\x07\x8c");
    assert_eq!(rig.value().await, good("co2", Value::Int(7)));
    let answer = rig.write(&[("zero", Value::Int(3))]).await;
    assert!(matches!(answer, Answer::Ended { result: Ok(_), .. }), "{answer:?}");
    assert_eq!(rig.value().await, good("zero", Value::Int(3)));
    // It acknowledges what it was told; and what it says behind that could be a late answer.
    line.say(b"\xff\x79\x01\x79\xff\x86\x09\x8e");
    assert_eq!(rig.value().await, good("co2", Value::Int(9)));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_in_time_is_one_however_long_its_pause_is() {
    let mut line = Line::new();
    let more = r#"
        frame = { kind = "idle", pause = "300ms" }
        decode = { kind = "key-value" }
        poll = [{ name = "flow", send = "?", every = "1h", timeout = "100ms", retries = 0 }]
        offline_after = 1
        [device.tank.point.flow]
        from = "F"
        poll = "flow"
    "#;
    let mut rig = Rig::start(&device(&line.name, more));
    assert_eq!(line.hears(1).await, b"?");
    line.say(b"F=1");
    assert_eq!(rig.value().await, good("flow", Value::Int(1)));
    rig.stop().await;
}

#[tokio::test]
async fn a_device_that_stays_silent_is_told_once() {
    let line = Line::new();
    let more = format!(
        "poll = [{{ send = \"?\", every = \"10ms\", timeout = \"10ms\", retries = 0 }}]\noffline_after = 2\n{JSON}"
    );
    let mut rig = Rig::start(&device(&line.name, &more));
    let why = rig.offline().await;
    assert_eq!(why, "it did not answer 2 polls in a row");
    assert_eq!(line.hears(20).await, b"?".repeat(20));
    // Each change would be published.
    assert_eq!(rig.offline().await, why);
    rig.stop().await;
}

#[tokio::test]
async fn the_rest_of_a_broken_answer_is_none_to_what_is_asked_again() {
    let mut line = Line::new();
    let more = r#"
        poll = [{ send = "?", every = "1h", timeout = "100ms" }]
        [device.tank.point.level]
        type = "float"
    "#;
    let mut rig = Rig::start(&device(&line.name, more));
    assert_eq!(line.hears(1).await, b"?");
    line.say(b"2");
    assert_eq!(line.hears(1).await, b"?");
    line.say(b"1.5\n21.6\n");
    assert_eq!(rig.value().await, good("level", Value::Float(21.6)));
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_pause() {
    let line = Line::new();
    let more = format!(
        "pause = \"3s\"\npoll = [{{ send = \"?\", every = \"10ms\", timeout = \"10ms\", retries = 0 }}]\n{JSON}"
    );
    let rig = Rig::start(&device(&line.name, &more));
    assert_eq!(line.hears(1).await, b"?");
    // It is asked again as soon as the line was left alone.
    sleep(Duration::from_millis(200)).await;
    let began = time::uptime();
    rig.stop().await;
    assert!(time::uptime() - began < Duration::from_secs(2));
}
