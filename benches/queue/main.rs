//! A million records that wait: how long the start takes, what it costs in memory, and how fast they leave.
//!
//!     cargo bench --profile release --bench queue
//!
//! The records are written by the queue itself. Then the real gateway starts on them, with a real mosquitto and a
//! window of 100, and drains them without a limit (`replay = { rate = "off" }`). Beside it, in the same run, a bare
//! rumqttc loop publishes messages of the same length with the same window over the same sort of connection.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails says where")]

#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/broker.rs"]
mod broker;
#[path = "../../tests/it/support/child.rs"]
mod child;
#[path = "../gateway/counter.rs"]
mod counter;
#[path = "../../tests/it/support/wait.rs"]
mod wait;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker::Mosquitto;
use child::{Killed, signal};
use counter::Counter;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use sluicegate::model::{Body, DeviceName, Lane, PointName, Problems, Quality, Reading, Size, Span, Value, time};
use sluicegate::queue::{Config, Queue, Sync};
use tokio::sync::watch;

const RECORDS: usize = 1_000_000;

/// Enough for the bare loop's rate.
const BARE: usize = 300_000;

const WINDOW: u16 = 100;

/// As long as the gateway's payload for one of the records.
const PAYLOAD: &str = r#"{"ts":"2026-11-22T10:00:00.123Z","value":123456,"unit":"Cel","quality":"good","lane":"telemetry","epoch":123456,"seq":123456,"late":true}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, port] = arguments.as_slice()
        && word == "bare"
    {
        return bare(port.parse().unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let queue = folder.path().join("state/queue");
    time::believe(Some(Duration::ZERO));
    fill(&queue);
    let bytes: u64 =
        std::fs::read_dir(queue.join("telemetry")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    println!("{RECORDS} records wait in {} MiB", bytes >> 20);

    let start = Instant::now();
    drop(Queue::open(&queue_config(), &queue));
    println!("{:<44} {:>10.1} ms", "open", start.elapsed().as_secs_f64() * 1e3);

    let broker =
        Mosquitto::with(folder.path(), "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n");
    let counter = Counter::start(broker.port);
    std::fs::write(folder.path().join("agent.toml"), config(folder.path(), broker.port)).unwrap();
    let start = Instant::now();
    let agent = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["--log", "error", "--config"])
        .arg(folder.path().join("agent.toml"))
        .arg("run")
        .stdin(Stdio::null())
        .spawn();
    let agent = Killed(agent.unwrap());
    while counter.count() == 0 {
        std::thread::yield_now();
    }
    println!("{:<44} {:>10.1} ms", "start of the process to the first reading", start.elapsed().as_secs_f64() * 1e3);
    let drained = rate(&counter, RECORDS);
    println!("{:<44} {drained:>10.0} readings/s", "drain");
    println!("{:<44} {:>10} KiB", "most resident memory until then", peak(&agent.0));
    drop((agent, counter));

    let counter = Counter::start(broker.port);
    let bare = Command::new(std::env::current_exe().unwrap()).args(["bare", &broker.port.to_string()]).spawn();
    let bare = Killed(bare.unwrap());
    while counter.count() == 0 {
        std::thread::yield_now();
    }
    let floor = rate(&counter, BARE);
    drop(bare);
    println!("{:<44} {floor:>10.0} readings/s", "bare loop");
    println!("{:<44} {:>10.0} %", "drain of bare loop", 100.0 * drained / floor);
}

/// Readings a second, until so many have come.
fn rate(counter: &Counter, count: usize) -> f64 {
    let (before, start) = (counter.count(), Instant::now());
    while counter.count() < count {
        let so_far = counter.count();
        wait::until("more readings", || counter.count() > so_far);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let readings = (count - before) as f64;
    readings / start.elapsed().as_secs_f64()
}

fn queue_config() -> Config {
    let mut config = Config::default();
    config.telemetry.max_bytes = Size(1 << 30);
    config.telemetry.sync = Sync::Every(Span::secs(1));
    config.keep_free = Size(0);
    config.max_memory = Size(1 << 30);
    config
}

fn fill(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (tell, _problems) = watch::channel(Problems::new());
    let (queue, keeping, _) = Queue::open(&queue_config(), folder).start(1 << 16, None, 1, tell);
    for value in 0..RECORDS {
        let reading = Reading {
            device: DeviceName::new("meter").unwrap(),
            point: PointName::new("n").unwrap(),
            timestamp: time::now(),
            value: Some(Value::Int(i64::try_from(value).unwrap())),
            unit: Some("Cel".into()),
            quality: Quality::Good,
            cause: None,
        };
        queue.push(Lane::Telemetry, &Body::Reading(reading), 0);
    }
    assert!(runtime.block_on(keeping.close()));
}

fn config(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{folder}/state"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
window = {WINDOW}
[clock]
trust = "always"
[queue]
telemetry = {{ max_bytes = "1GiB" }}
keep_free = "0B"
replay = {{ rate = "off" }}
[device.idle]
kind = "sim"
[device.idle.point.nothing]
wave = "counter"
every = "1h"
retain = false
"#
    )
}

/// The most memory that was resident, in KiB.
fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Publishes without a queue, a number or a promise.
fn bare(port: u16) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = MqttOptions::new("bare", "127.0.0.1", port);
        options.set_inflight(WINDOW);
        let (client, mut event_loop) = AsyncClient::new(options, usize::from(WINDOW));
        event_loop.network_options.set_tcp_nodelay(true);
        let publish = async {
            for _ in 0..BARE {
                client.publish("sluicegate/g/meter/n", QoS::AtLeastOnce, false, PAYLOAD.to_owned()).await.unwrap();
            }
        };
        let poll = async { while event_loop.poll().await.is_ok() {} };
        tokio::join!(publish, poll);
    });
}
