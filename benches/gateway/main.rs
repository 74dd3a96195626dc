//! What the gateway costs, beside a bare loop that does the same work without any promise.
//!
//!     cargo bench --bench gateway              # all; `-- polls`: only what it costs to ask
//!
//! A serial line (a real pty) at full speed to a real mosquitto at QoS 1: CPU per reading and readings per second at
//! windows of 20, 50 and 100, plain and with TLS; at 200 lines a second the time from a line to a subscriber; and what it
//! costs to ask devices that have to be asked. The
//! bare loop reads lines by tokio-serial and publishes them by rumqttc with the same window; its payloads are as long
//! as the gateway's. Both run in processes of their own, one after the other, so a busy machine slows both.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails says where")]

#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/broker.rs"]
mod broker;
#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/certs.rs"]
mod certs;
#[path = "../../tests/it/support/child.rs"]
mod child;
#[expect(dead_code, reason = "the system tests use more of it")]
#[path = "../../tests/it/support/pty.rs"]
mod pty;
#[path = "../../tests/it/support/wait.rs"]
mod wait;

mod bare;
mod counter;
mod polls;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker::Mosquitto;
use certs::Authority;
use child::{Killed, signal};
use counter::Counter;
use pty::Pty;

/// Enough for a second or two of full speed.
const READINGS: usize = 50_000;

/// Lines for the latency, 5 ms apart.
const SINGLE: usize = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, rest @ ..] = arguments.as_slice()
        && word == "bare"
    {
        return bare::run(rest);
    }
    if arguments.iter().any(|word| word == "polls") {
        return polls::show();
    }
    println!("{:<34} {:>12} {:>14} {:>10}", "", "readings/s", "CPU µs/reading", "RSS KiB");
    for window in [20, 50, 100] {
        let bare = full_speed(&Subject::Bare, window);
        let plain = full_speed(&Subject::Agent { tls: false }, window);
        let tls = full_speed(&Subject::Agent { tls: true }, window);
        show(&format!("bare loop, window {window}"), &bare);
        show(&format!("sluicegate, window {window}"), &plain);
        show(&format!("sluicegate with TLS, window {window}"), &tls);
        println!(
            "{:<34} {:.2} times the bare loop's CPU, with TLS {:.2}",
            "",
            plain.cpu / bare.cpu,
            tls.cpu / bare.cpu
        );
    }
    println!("\n{:<34} {:>12} {:>12} {:>12}", "a line to a subscriber, ms", "median", "p99", "max");
    for (name, subject) in [("bare loop", Subject::Bare), ("sluicegate", Subject::Agent { tls: false })] {
        let mut times = one_by_one(&subject);
        times.sort_unstable();
        let at = |share: f64| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place in a short list"
            )]
            let place = ((times.len() - 1) as f64 * share) as usize;
            times[place].as_secs_f64() * 1e3
        };
        println!("{name:<34} {:>12.2} {:>12.2} {:>12.2}", at(0.5), at(0.99), at(1.0));
    }
    polls::show();
}

enum Subject {
    Bare,
    Agent { tls: bool },
}

struct Cost {
    per_second: f64,
    /// Microseconds of CPU a reading.
    cpu: f64,
    resident: u64,
}

fn show(name: &str, cost: &Cost) {
    println!("{name:<34} {:>12.0} {:>14.1} {:>10}", cost.per_second, cost.cpu, cost.resident);
}

/// A subject at work, its line, and who counts what arrives.
struct Rig {
    child: Killed,
    pty: Pty,
    counter: Counter,
    _broker: Mosquitto,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new(subject: &Subject, window: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = matches!(subject, Subject::Agent { tls: true });
        let broker =
            Mosquitto::with(folder.path(), "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n");
        let tls_port = broker::free_port();
        let broker = if tls { with_tls(folder.path(), tls_port, broker) } else { broker };
        let mut pty = Pty::new(&folder.path().join("line"));
        let counter = Counter::start(broker.port);
        let child = match subject {
            Subject::Bare => Command::new(std::env::current_exe().unwrap())
                .args(["bare", &broker.port.to_string(), pty.path(), &window.to_string()])
                .stdin(Stdio::null())
                .spawn(),
            Subject::Agent { .. } => {
                let port = if tls { tls_port } else { broker.port };
                std::fs::write(folder.path().join("agent.toml"), config(folder.path(), port, tls, window)).unwrap();
                Command::new(env!("CARGO_BIN_EXE_sluicegate"))
                    .args(["--log", "error", "--config"])
                    .arg(folder.path().join("agent.toml"))
                    .arg("run")
                    .stdin(Stdio::null())
                    .spawn()
            }
        };
        let child = Killed(child.unwrap());
        // The first line through says that all is up.
        wait::until("the first reading", || {
            pty.say(b"n=1\n");
            counter.count() > 0
        });
        Rig { child, pty, counter, _broker: broker, _folder: folder }
    }
}

fn full_speed(subject: &Subject, window: u16) -> Cost {
    let mut rig = Rig::new(subject, window);
    settle(&rig.counter);
    let (cpu, count, start) = (cpu(&rig.child.0), rig.counter.count(), Instant::now());
    let lines: String = (0..READINGS).map(|n| format!("n={}\n", 100_000 + n)).collect();
    rig.pty.say(lines.as_bytes());
    wait::until("all readings", || rig.counter.count() >= count + READINGS);
    let elapsed = start.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let readings = READINGS as f64;
    Cost {
        per_second: readings / elapsed.as_secs_f64(),
        cpu: (self::cpu(&rig.child.0) - cpu).as_secs_f64() * 1e6 / readings,
        resident: resident(&rig.child.0),
    }
}

fn one_by_one(subject: &Subject) -> Vec<Duration> {
    let mut rig = Rig::new(subject, 50);
    settle(&rig.counter);
    let mut times = Vec::with_capacity(SINGLE);
    for n in 0..SINGLE {
        let count = rig.counter.count();
        let start = Instant::now();
        rig.pty.say(format!("n={}\n", 100_000 + n).as_bytes());
        while rig.counter.count() == count {
            std::hint::spin_loop();
        }
        times.push(start.elapsed());
        while start.elapsed() < Duration::from_millis(5) {
            std::thread::yield_now();
        }
    }
    times
}

/// Until nothing of the beginning is under way.
fn settle(counter: &Counter) {
    let mut seen = (counter.count(), Instant::now());
    wait::until("the beginning to be through", || {
        if counter.count() != seen.0 {
            seen = (counter.count(), Instant::now());
        }
        seen.1.elapsed() > Duration::from_millis(300)
    });
}

fn with_tls(folder: &Path, tls_port: u16, plain: Mosquitto) -> Mosquitto {
    drop(plain);
    let authority = Authority::new(folder, "ca");
    let server = authority.server(folder, "server", &["localhost"], 2099);
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    for file in [&server.key, &server.cert, &authority.file] {
        std::fs::set_permissions(file, mode(0o644)).unwrap();
    }
    std::fs::set_permissions(folder, mode(0o755)).unwrap();
    let lines = format!(
        "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n\
         listener {tls_port} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
        server.cert.display(),
        server.key.display()
    );
    Mosquitto::with(folder, &lines)
}

fn config(folder: &Path, port: u16, tls: bool, window: u16) -> String {
    let folder = folder.display();
    let url = if tls { "mqtts://localhost" } else { "mqtt://127.0.0.1" };
    let tls = if tls { format!("tls = {{ ca = \"{folder}/ca.pem\" }}") } else { String::new() };
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{folder}/state"
[mqtt]
url = "{url}:{port}"
window = {window}
{tls}
[queue]
max_memory = "64MiB"
replay = {{ rate = "off" }}
[clock]
trust = "always"
[device.meter]
kind = "serial"
port = "{folder}/line"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.n]
from = "n"
type = "int"
retain = false
"#
    )
}

/// CPU time of a process: the 14th and 15th numbers of `/proc/PID/stat` (proc(5)), in ticks of 10 ms.
fn cpu(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
