//! A first look, on a machine with nothing but Rust: `cargo run --release --example demo`.
//!
//! A small MQTT broker on loopback, a serial weather station played on a pty, a simulated plant, and the whole gateway
//! between them. What is shown is what anyone sees who listens at the broker: presence, readings, commands and their
//! outcomes, and what happens when the broker goes away and comes back.

#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod broker;
mod log;
mod page;
mod picture;
mod station;
mod view;

use std::future::pending;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use serde_json::Value;
use sluicegate::agent::{self, Exit, Handed};
use sluicegate::config::{self, Sources};
use sluicegate::service::control::{self, Question};
use sluicegate::task::Owned;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use broker::{Broker, Publish, Settings};
use page::Page;
use picture::Picture;
use station::Station;
use view::{Backstage, View};

/// A first look at sluicegate: the whole gateway, with a broker and devices that are played.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the broker listens on 127.0.0.1, so that any MQTT client can join in [default: a free port].
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// End after so many seconds [default: at Ctrl-C].
    #[arg(long)]
    seconds: Option<u64>,
}

/// The first command, and the time between two.
const COMMANDS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(4));

/// The first outage, and the time between the beginnings of two.
const OUTAGES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// An outage takes so long. The gateway tries again 0.5 to 1 s after the loss, 1.5 to 3 s and 3.5 to 7 s: two attempts
/// fail, and the third one, soon enough for who looks on, does not.
const OUTAGE: Duration = Duration::from_millis(3300);

/// How often the gateway is asked how much waits in it.
const ASK: Duration = Duration::from_millis(500);

const ROOT: &str = "sluicegate/demo";

fn config(port: u16, station: &str, state: &str) -> String {
    format!(
        r#"
[gateway]
id = "demo"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "5"
[clock]
# Nobody sets it while this plays: on a board without a battery nothing would be seen for a minute.
wait = "0s"
trust = "always"
[device.station]
kind = "serial"
port = "{station}"
frame = {{ kind = "line" }}
decode = {{ kind = "json" }}
[device.station.point]
temperature = {{ from = "/temperature", unit = "Cel" }}
humidity = {{ from = "/humidity", unit = "%RH" }}
wind = {{ from = "/wind", unit = "m/s" }}
heater = {{ from = "/heater", type = "bool", write = "HEATER {{value}}\r\n", report = {{ change = 1 }} }}
[device.plant]
kind = "sim"
[device.plant.point]
fan = {{ wave = "switch", safe = false }}
level = {{ wave = "sine", unit = "%", period = "20s", every = "500ms", round = 1 }}
"#
    )
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(play(arguments))
}

async fn play(arguments: Arguments) -> anyhow::Result<()> {
    let log = log::start();
    let settings = Settings { port: arguments.port, ..Settings::default() };
    let broker = Broker::start(settings).await.with_context(|| format!("port {} is taken", arguments.port))?;
    let station = Station::new().context("no pty for the weather station")?;
    let folder = tempfile::tempdir().context("no folder for the gateway's state")?;
    let state = folder.path().to_str().context("the temporary folder has a strange name")?;
    let text = config(broker.port(), station.path(), state);
    let sources = Sources::text("the demo's config", &text);
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(errors) => bail!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let stop = CancellationToken::new();
    // Not that of the system's gateway, which may run beside it.
    let control = control::path(None, folder.path());
    let end = match arguments.seconds {
        Some(seconds) => format!("Ends after {seconds} s."),
        None => "Ends at Ctrl-C.".to_owned(),
    };
    let page = Page::start().await.context("no port for the page")?;
    let backstage = Backstage { page: page.port, port: broker.port(), broker: true, waiting: 0, end };
    view::introduce(&backstage)?;
    let (waiting_tx, waiting) = mpsc::channel(1);
    let _station = Owned::spawn(station.run());
    let _asker = Owned::spawn(ask(control, waiting_tx));
    let gateway = Owned::spawn(agent::run(config, sources, Handed::default(), stop.clone()));
    let stage = Stage {
        settings: Settings { port: broker.port(), ..settings },
        tap: broker.tap(),
        broker: Some(broker),
        picture: Picture::new(ROOT),
        view: View::new(),
        backstage,
        commands: 0,
        outages: 0,
    };
    stage.run(gateway, stop, arguments.seconds.map(Duration::from_secs), log, waiting).await
}

/// Asks the gateway, as `sluicegate status` does, how much waits in it.
async fn ask(control: std::path::PathBuf, waiting: mpsc::Sender<u64>) {
    let mut tick = interval(ASK);
    loop {
        tick.tick().await;
        let mut depth = None;
        let read = |line: &str| {
            let status: Value = serde_json::from_str(line).unwrap_or_default();
            let lanes = status["queue"].as_object();
            depth = lanes.map(|lanes| lanes.values().filter_map(|lane| lane["depth"].as_u64()).sum());
            false
        };
        // It has not begun yet, or has ended.
        let Ok(()) = control::ask(&control, &Question::Status, read).await else { continue };
        if let Some(depth) = depth
            && waiting.send(depth).await.is_err()
        {
            return;
        }
    }
}

/// The play: who is on stage, and what happens when.
struct Stage {
    settings: Settings,
    broker: Option<Broker>,
    tap: broadcast::Receiver<Publish>,
    picture: Picture,
    view: View,
    backstage: Backstage,
    commands: u32,
    outages: u32,
}

impl Stage {
    async fn run(
        mut self,
        mut gateway: Owned<anyhow::Result<Exit>>,
        stop: CancellationToken,
        limit: Option<Duration>,
        mut log: mpsc::Receiver<String>,
        mut waiting: mpsc::Receiver<u64>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut command_at = start + COMMANDS.0;
        let mut outage_at = start + OUTAGES.0;
        let mut draw = interval(self.view.period());
        let ended = loop {
            tokio::select! {
                // What was said before the end is heard before the end.
                biased;
                Ok(message) = self.tap.recv() => self.picture.heard(&message),
                Some(line) = log.recv() => self.picture.tell(format!("gateway: {line}")),
                Some(depth) = waiting.recv() => self.backstage.waiting = depth,
                ended = gateway.ended() => break ended,
                () = after(limit.map(|limit| start + limit)), if !stop.is_cancelled() => stop.cancel(),
                () = sleep_until(command_at) => {
                    command_at += COMMANDS.1;
                    self.command();
                }
                () = sleep_until(outage_at) => {
                    let next = if self.broker.is_some() { OUTAGE } else { OUTAGES.1 - OUTAGE };
                    self.turn().await?;
                    // From now on, as this machine may have stood still.
                    outage_at = Instant::now() + next;
                }
                _ = draw.tick() => {
                    // Nobody looks any more.
                    if self.view.show(&mut self.picture, &self.backstage).is_err() {
                        stop.cancel();
                    }
                }
            }
        };
        self.view.show(&mut self.picture, &self.backstage)?;
        view::summarize(&self.picture, self.outages)?;
        match ended {
            Ok(Ok(Exit::Stopped)) => Ok(()),
            Ok(Ok(Exit::Broken(why))) => bail!("the gateway broke: {why}"),
            Ok(Err(error)) => Err(error),
            Err(panic) => bail!("the gateway panicked: {panic}"),
        }
    }

    /// Commands the fan and the heater in turn, as anyone could who sees that the gateway is online.
    fn command(&mut self) {
        let Some(broker) = &self.broker else { return };
        if self.picture.presence.as_deref() != Some("online") {
            return;
        }
        let point = if self.commands.is_multiple_of(2) { "plant/fan" } else { "station/heater" };
        let value = self.commands % 4 < 2;
        self.commands += 1;
        broker
            .publish(&format!("{ROOT}/{point}/set"), &format!(r#"{{"value":{value},"id":"demo-{}"}}"#, self.commands));
    }

    /// The broker goes, or comes back with nothing in its memory.
    async fn turn(&mut self) -> anyhow::Result<()> {
        self.backstage.broker = self.broker.is_none();
        if let Some(broker) = self.broker.take() {
            broker.stop().await.map_err(|panic| anyhow!("the broker panicked: {panic}"))?;
            self.outages += 1;
            self.picture.tell("the broker goes away; the sensors do not care".to_owned());
            self.picture.forget_presence();
        } else {
            let broker = Broker::start(self.settings).await.context("the broker's port was taken meanwhile")?;
            self.tap = broker.tap();
            self.broker = Some(broker);
            self.picture.tell("the broker is back, and has forgotten all".to_owned());
        }
        Ok(())
    }
}

async fn after(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
