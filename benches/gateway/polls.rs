//! What it costs to ask: slaves of Modbus, and a sensor with a protocol of its own, on a pty, as fast as they answer. Nothing of
//! it is published, so what is counted is the question, the answer, and what stands in it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::Mosquitto;
use crate::child::Killed;
use crate::pty::Pty;
use crate::{cpu, wait};

/// Long beside the ticks of 10 ms in which a process' time is counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Before it, all is asked once, and lies where it is fast.
const BEGINNING: usize = 500;

/// A far end: what of the bytes so far is a question, and what answers it.
struct Far {
    name: &'static str,
    device: String,
    /// The question's length in bytes.
    question: usize,
    answer: fn(&[u8]) -> Vec<u8>,
}

/// Prints a row for each far end.
pub(crate) fn show() {
    println!("\n{:<44} {:>12} {:>14}", "asking", "polls/s", "CPU µs/poll");
    for far in [modbus(), fields()] {
        let (per_second, cpu) = measure(&far);
        println!("{:<44} {per_second:>12.0} {:>14.1}", far.name, cpu * 1e6);
    }
}

/// Eight meters, ten numbers of 32 bits in one request each.
fn modbus() -> Far {
    let points = |unit: usize| {
        let point = |n: usize| {
            format!("[device.m{unit}.point.p{n}]\ntable = \"input\"\naddress = {}\nencoding = \"f32\"\n{RARELY}", 2 * n)
        };
        let head = format!("[device.m{unit}]\nkind = \"modbus\"\nbus = \"line\"\nunit = {unit}\nevery = \"10ms\"\n");
        head + &(0..10).map(point).collect::<String>()
    };
    let bus = "[bus.line]\nport = \"{line}\"\nbaud_rate = 115200\nsilence = \"0s\"\n";
    Far {
        name: "modbus: ten 32-bit points by one request",
        device: bus.to_owned() + &(1..=8).map(points).collect::<String>(),
        question: 8,
        answer: |question| {
            let mut frame = vec![question[0], question[1], 2 * question[5]];
            frame.resize(3 + usize::from(frame[2]), 0);
            let crc = frame.iter().fold(0xffffu16, |crc, byte| {
                (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 })
            });
            frame.extend(crc.to_le_bytes());
            frame
        },
    }
}

/// The sensor of `config/examples/serial-mhz19.toml`.
fn fields() -> Far {
    Far {
        name: "serial: one field of a frame with a sum",
        device: format!(
            r#"
[device.co2]
kind = "serial"
port = "{{line}}"
frame = {{ kind = "fixed", size = 9, start = [0xff] }}
check = {{ kind = "sum", complement = "two", from = 1 }}
decode = {{ kind = "fields" }}
poll = [{{ send = "{{hex:ff 01 86 00 00 00 00 00}}{{check}}", every = "10ms", timeout = "500ms" }}]
[device.co2.point.co2]
from = {{ at = 2, as = "u16" }}
{RARELY}"#
        ),
        question: 9,
        answer: |_| vec![0xff, 0x86, 0x02, 0x20, 0, 0, 0, 0, 0x58],
    }
}

/// A value that does not change is not published.
const RARELY: &str = "report = { change = 1, at_least = \"1h\" }\n";

/// Polls a second, and seconds of CPU a poll.
fn measure(far: &Far) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let mut line = Pty::new(&folder.path().join("line"));
    let agent = start(folder.path(), broker.port, &far.device.replace("{line}", line.path()));
    let (mut asked, mut seen) = (0, 0);
    wait::until("the beginning to be through", || {
        asked += answer_all(far, &mut line, &mut seen);
        asked >= BEGINNING
    });
    let (mut count, before, begin) = (0, cpu(&agent.0), Instant::now());
    while begin.elapsed() < WINDOW {
        count += answer_all(far, &mut line, &mut seen);
        std::thread::yield_now();
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let polls = count as f64;
    (polls / begin.elapsed().as_secs_f64(), (cpu(&agent.0) - before).as_secs_f64() / polls)
}

fn start(folder: &Path, port: u16, device: &str) -> Killed {
    let config = format!(
        "[gateway]\nid = \"g\"\nstate_directory = \"{}/state\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n[clock]\ntrust = \
         \"always\"\n{device}",
        folder.display()
    );
    std::fs::write(folder.join("agent.toml"), config).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    agent.args(["--log", "error", "--config"]).arg(folder.join("agent.toml")).arg("run").stdin(Stdio::null());
    Killed(agent.spawn().unwrap())
}

/// Answers what was asked since; how much that was. `seen`: the bytes that were answered.
fn answer_all(far: &Far, line: &mut Pty, seen: &mut usize) -> usize {
    let heard = line.heard_bytes()[*seen..].to_vec();
    let questions = heard.chunks_exact(far.question);
    let count = questions.len();
    *seen += count * far.question;
    questions.for_each(|question| line.say(&(far.answer)(question)));
    count
}
