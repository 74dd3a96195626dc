//! What reaches the flash for a reading, counted by the block device itself.
//!
//!     cargo bench --bench flash [-- WORDS]       as root; only the rows with these words
//!
//! An ext4 of its own on a loop device, as mke2fs makes it, and one without a journal. The readings are such that the
//! queue stores 100 bytes for each; all that the device was told to write is counted: frames, partial pages that are
//! written again, zeros for new segments, and what the file system writes for itself. Before each look the file system
//! is synced, so that nothing hides. With the link up: the whole gateway and a real mosquitto. With the link down: the
//! queue alone, so that each commit has exactly so many readings.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails says where")]

#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/broker.rs"]
mod broker;
#[path = "../../tests/it/support/child.rs"]
mod child;
#[path = "../gateway/counter.rs"]
mod counter;
#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/pty.rs"]
mod pty;
#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/volume.rs"]
mod volume;
#[path = "../../tests/it/support/wait.rs"]
mod wait;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::Mosquitto;
use child::{Killed, signal};
use counter::Counter;
use pty::Pty;
use sluicegate::model::{Body, DeviceName, Lane, PointName, Problems, Quality, Reading, Size, Span, Value, time};
use sluicegate::queue::{Config, Keeping, Queue, Sync};
use volume::Volume;

/// Bytes that the queue stores for a reading.
const PAYLOAD: usize = 100;

/// The largest segments there are, as with the default of 64 MiB for telemetry.
const SEGMENT: u64 = 1 << 20;

/// Readings in a segment: behind 128 bytes of head, each with a head of its own of 24.
const IN_SEGMENT: u64 = (SEGMENT - 128) / (24 + PAYLOAD as u64);

/// Above the limit below which mke2fs takes smaller pages than a card's file system has.
const VOLUME: u64 = 768 << 20;

/// What mke2fs leaves for the kernel to do later would be counted as ours.
const AT_ONCE: [&str; 2] = ["-E", "lazy_itable_init=0,lazy_journal_init=0"];

fn main() {
    println!("{:<46} {:>10} {:>12} {:>10}", "bytes for a reading of 100", "ext4", "no journal", "times");
    row("link up, sync 1s", link_up);
    for (batch, segments) in [(1, 1), (10, 2), (100, 4)] {
        row(&format!("link down, commits of {batch}, new segments"), |volume| {
            link_down(volume, batch, segments, false)
        });
        row(&format!("link down, commits of {batch}, recycled segments"), |volume| {
            link_down(volume, batch, segments, true)
        });
    }
    row("link down, commits of 100, one a second", once_a_second);
}

/// One line of the table: the same on both file systems.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn row(name: &str, measure: impl Fn(&Volume) -> (u64, u64)) {
    // Cargo adds `--bench`.
    if std::env::args().skip(1).any(|word| !word.starts_with("--") && !name.contains(&word)) {
        return;
    }
    let on = |options: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let options = [&AT_ONCE[..], options].concat();
        let volume = Volume::new(folder.path(), VOLUME, &options, "what reaches the flash")?;
        let (bytes, readings) = measure(&volume);
        Some(bytes as f64 / readings as f64)
    };
    let (Some(ext4), Some(plain)) = (on(&[]), on(&["-O", "^has_journal"])) else { std::process::exit(1) };
    println!("{name:<46} {ext4:>10.1} {plain:>12.1} {:>10.2}", ext4 / PAYLOAD as f64);
}

/// A reading for which the queue stores [`PAYLOAD`] bytes.
fn reading() -> Reading {
    let of = |text: &str| Reading {
        device: DeviceName::new("meter").unwrap(),
        point: PointName::new("n").unwrap(),
        timestamp: time::now(),
        value: Some(Value::Text(text.into())),
        unit: None,
        quality: Quality::Good,
        cause: None,
    };
    let size = |reading: &Reading| {
        let mut bytes = Vec::new();
        Body::Reading(reading.clone()).encode(&mut bytes);
        bytes.len()
    };
    let reading = of(&"x".repeat(PAYLOAD - size(&of(""))));
    assert_eq!(size(&reading), PAYLOAD);
    reading
}

/// The whole gateway: 2000 readings in 20 s, acknowledged at once.
fn link_up(volume: &Volume) -> (u64, u64) {
    const READINGS: u64 = 2000;
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
    let mut pty = Pty::new(&folder.path().join("line"));
    let counter = Counter::start(broker.port);
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, config(volume, broker.port, pty.path())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["--log", "error", "--config"]).arg(&file).arg("run").stdin(Stdio::null());
    let _agent = Killed(command.spawn().unwrap());
    let Some(Value::Text(text)) = reading().value else { panic!("the reading is a text") };
    let line = format!("n={text}\n");
    wait::until("the first reading", || {
        pty.say(line.as_bytes());
        counter.count() > 0
    });
    // What a start writes is not a reading's; the last of it follows within ten seconds.
    pause(Duration::from_secs(12));
    let (before, heard) = (volume.written(), counter.count());
    for _ in 0..READINGS {
        pty.say(line.as_bytes());
        pause(Duration::from_millis(10));
    }
    let all = heard + usize::try_from(READINGS).unwrap();
    wait::until("all readings", || counter.count() >= all);
    (volume.written() - before, READINGS)
}

fn config(volume: &Volume, port: u16, pty: &str) -> String {
    let state = volume.path().join("state");
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[queue]
telemetry.sync = "1s"
[clock]
trust = "always"
[device.meter]
kind = "serial"
port = "{pty}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.n]
from = "n"
type = "text"
retain = false
"#,
        state.display()
    )
}

/// A queue at work.
struct Store {
    queue: Queue,
    _keeping: Keeping,
    body: Body,
    pushed: u64,
}

impl Store {
    fn new(volume: &Volume, sync: Sync) -> Self {
        let mut config = Config::default();
        config.telemetry.max_bytes = Size(16 * SEGMENT);
        config.telemetry.sync = sync;
        let opened = Queue::open(&config, &volume.path().join("queue"));
        let problems = tokio::sync::watch::channel(Problems::new()).0;
        let (queue, keeping, _) = opened.start(1 << 16, None, 1, problems);
        Store { queue, _keeping: keeping, body: Body::Reading(reading()), pushed: 0 }
    }

    /// Pushes so many at once, and waits until they are on flash.
    fn commit(&mut self, count: u64) {
        for _ in 0..count {
            self.queue.push(Lane::Telemetry, &self.body, 0);
        }
        self.pushed += count;
        let start = Instant::now();
        while self.queue.status()[Lane::Telemetry.index()].durable < self.pushed {
            assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for a commit");
            std::thread::yield_now();
        }
    }
}

/// So many whole segments, in commits of so many readings.
fn link_down(volume: &Volume, batch: u64, segments: u64, recycled: bool) -> (u64, u64) {
    // Long enough for a batch to be complete, short enough for a benchmark.
    let sync = if batch == 1 { Sync::Always } else { Sync::Every(Span(Duration::from_millis(3))) };
    let mut store = Store::new(volume, sync);
    // One segment, or so many that from here on each new one is the oldest one's file.
    let first = IN_SEGMENT * if recycled { 17 } else { 1 };
    while store.pushed < first {
        store.commit((first - store.pushed).min(1000));
    }
    let before = volume.written();
    let readings = segments * IN_SEGMENT;
    while store.pushed < first + readings {
        store.commit((first + readings - store.pushed).min(batch));
    }
    (volume.written() - before, readings)
}

/// As slow as it is meant: what the file system writes once in a while is there as well.
fn once_a_second(volume: &Volume) -> (u64, u64) {
    const SECONDS: u64 = 60;
    let mut store = Store::new(volume, Sync::Every(Span(Duration::from_millis(3))));
    store.commit(100);
    let before = volume.written();
    let start = Instant::now();
    for second in 1..=SECONDS {
        store.commit(100);
        pause((start + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
    }
    (volume.written() - before, SECONDS * 100)
}

#[expect(clippy::disallowed_methods, reason = "the pace of what is measured; no runtime here")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
