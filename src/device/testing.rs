//! A device from its table in a config, started as the gateway starts it: for the tests of the kinds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Built, Config, Held, Kind, Plan, PointRulesConfig, PointSpec, Spec, Supervisor, Wiring, kind};
use crate::model::{
    Answer, Arrival, Cause, CommandId, Declaration, DeviceName, DeviceState, DeviceStates, Fault, GatewayId, Point,
    PointName, Quality, Reading, Value, Write, time,
};
use crate::task::TaskSet;

/// Nothing in a test takes this long; a test that waits so long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A device's table, split by the owners of its keys. Keys that belong to other rooms are passed over.
pub(super) struct Parts {
    pub(super) kind: &'static Kind,
    pub(super) config: Config,
    pub(super) spec: Spec,
    pub(super) rules: Vec<PointRulesConfig>,
}

/// Splits a text with one `[device.NAME]` table.
pub(super) fn parts(text: &str) -> Parts {
    let mut file: toml::Table = text.parse().unwrap();
    let toml::Value::Table(devices) = file.remove("device").unwrap() else { panic!("`device` is no table") };
    let (name, device) = devices.into_iter().next().unwrap();
    let toml::Value::Table(mut device) = device else { panic!("`device.{name}` is no table") };
    let config: Config = Config::read(&take(&mut device, Config::KEYS)).unwrap();
    let kind = kind(&config.kind).unwrap();
    let mut spec = Spec {
        gateway: GatewayId::new("g").unwrap(),
        device: DeviceName::new(&name).unwrap(),
        table: toml::Table::new(),
        points: Vec::new(),
    };
    let mut rules = Vec::new();
    if let Some(toml::Value::Table(points)) = device.remove("point") {
        for (name, point) in points {
            let toml::Value::Table(mut point) = point else { panic!("`{name}` is no table") };
            let declaration = Declaration::read(&take(&mut point, Declaration::KEYS)).unwrap();
            rules.push(PointRulesConfig::read(&take(&mut point, PointRulesConfig::KEYS)).unwrap());
            let table = take(&mut point, (kind.point_keys)());
            spec.points.push(PointSpec { name: PointName::new(&name).unwrap(), declaration, table });
        }
    }
    spec.table = device;
    Parts { kind, config, spec, rules }
}

fn take(table: &mut toml::Table, keys: &[&str]) -> toml::Table {
    keys.iter().filter_map(|key| table.remove_entry(*key)).collect()
}

/// What is wrong with a device's table, as `path: text`.
pub(super) fn faults(text: &str) -> Vec<String> {
    let Parts { kind, spec, .. } = parts(text);
    let show = |fault: Fault| format!("{}: {}", fault.path.join("."), fault.text);
    (kind.build)(spec).err().unwrap_or_default().into_iter().map(show).collect()
}

/// A running device, and the gateway's ends of its channels.
pub(super) struct Rig {
    arrivals: mpsc::Receiver<Arrival>,
    writes: mpsc::Sender<Write>,
    answers: mpsc::Receiver<Answer>,
    states: watch::Receiver<DeviceStates>,
    device: DeviceName,
    stop: CancellationToken,
    tasks: TaskSet,
    ticket: u32,
    supervisor: Arc<Supervisor>,
}

impl Rig {
    pub(super) fn start(text: &str) -> Self {
        Rig::started(text, Arc::new(Supervisor::new(Held::nothing(), CancellationToken::new())))
    }

    /// With a folder for what outlives a power cut.
    pub(super) fn start_in(text: &str, folder: &Path) -> Self {
        let held = Held::nothing().with_folder(folder);
        Rig::started(text, Arc::new(Supervisor::new(held, CancellationToken::new())))
    }

    /// Another device of the same gateway.
    pub(super) fn beside(&self, text: &str) -> Self {
        Rig::started(text, Arc::clone(&self.supervisor))
    }

    /// What is left of a device that was removed.
    pub(super) fn lose(&self, device: &str) {
        self.supervisor.forget(&DeviceName::new(device).unwrap());
    }

    fn started(text: &str, supervisor: Arc<Supervisor>) -> Self {
        let Parts { kind, config, spec, rules } = parts(text);
        let device = spec.device.clone();
        let declared: Vec<_> =
            spec.points.iter().map(|point| (point.name.clone(), point.declaration.clone())).collect();
        let Built { driver, points: shapes } = (kind.build)(spec).unwrap();
        let points = declared.into_iter().zip(shapes).zip(rules).map(|(((name, declared), shape), rules)| {
            let point = Point {
                device: device.clone(),
                name,
                value_type: shape.value_type,
                unit: declared.unit,
                min: declared.min,
                max: declared.max,
                safe: declared.safe,
                writable: shape.writable,
            };
            (point, rules, shape.holds)
        });
        let points = points.collect();
        let plan = Plan { device: device.clone(), kind: kind.name, max_rate: config.max_rate, driver, points };
        let (to_intake, arrivals) = mpsc::channel(32);
        let (writes, from_router) = mpsc::channel(8);
        let (to_router, answers) = mpsc::channel(64);
        let mut tasks = TaskSet::new();
        let states = supervisor.states();
        let stop =
            supervisor.start(&mut tasks, plan, Wiring { arrivals: to_intake, writes: from_router, answers: to_router });
        Rig { arrivals, writes, answers, states, device, stop, tasks, ticket: 0, supervisor }
    }

    /// What came next.
    pub(super) async fn arrival(&mut self) -> Arrival {
        timeout(DEADLINE, self.arrivals.recv()).await.expect("something in time").unwrap()
    }

    /// The next reading.
    pub(super) async fn reading(&mut self) -> Reading {
        loop {
            if let Arrival::Reading(reading) = self.arrival().await {
                return reading;
            }
        }
    }

    /// The next reading, as its point and its value; a bad one has none.
    pub(super) async fn value(&mut self) -> (String, Option<Value>) {
        let reading = self.reading().await;
        (reading.point.to_string(), reading.value.filter(|_| reading.quality == Quality::Good))
    }

    /// Waits until the device is online; else the result is why it is not.
    pub(super) async fn online(&mut self) {
        self.state(|state| *state == DeviceState::Online).await;
    }

    /// Waits until the device is offline, and says why.
    pub(super) async fn offline(&mut self) -> String {
        match self.state(|state| matches!(state, DeviceState::Offline { .. })).await {
            DeviceState::Offline { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    /// Records the device from its next life on.
    #[cfg(any(feature = "modbus", feature = "serial"))]
    pub(super) fn record(&self) -> super::Recording {
        self.supervisor.tapes().record(self.device.as_str()).unwrap()
    }

    async fn state(&mut self, wanted: impl Fn(&DeviceState) -> bool) -> DeviceState {
        let device = self.device.clone();
        let states = self.states.wait_for(|states| states.get(&device).is_some_and(&wanted));
        timeout(DEADLINE, states).await.expect("the state in time").unwrap()[&device].clone()
    }

    /// Asks for values to be written and waits for the result.
    pub(super) async fn write(&mut self, values: &[(&str, Value)]) -> Answer {
        self.ticket += 1;
        let values = values.iter().map(|(name, value)| (PointName::new(name).unwrap(), value.clone())).collect();
        let id = CommandId::new(&format!("c-{}", self.ticket)).unwrap();
        let deadline = time::uptime() + DEADLINE;
        let cause = Cause::Command(id);
        self.writes.send(Write { ticket: self.ticket, cause, values, deadline, timeout: DEADLINE }).await.unwrap();
        loop {
            let answer = timeout(DEADLINE, self.answers.recv()).await.expect("an answer in time").unwrap();
            if matches!(answer, Answer::Ended { ticket, .. } if ticket == self.ticket) {
                return answer;
            }
        }
    }

    /// Stops the device while so many writes wait for it, and gives all that it answers.
    pub(super) async fn stop_with_waiting(mut self, count: u32, point: &str, value: &Value) -> Vec<Answer> {
        // On the one thread of the test: the device sees all of it at once.
        self.stop.cancel();
        for ticket in 1..=count {
            let values = vec![(PointName::new(point).unwrap(), value.clone())];
            let (cause, deadline) = (Cause::Command(CommandId::new("c").unwrap()), time::uptime() + DEADLINE);
            self.writes.try_send(Write { ticket, cause, values, deadline, timeout: DEADLINE }).unwrap();
        }
        self.arrivals.close();
        let late = self.tasks.drain(tokio::time::Instant::now() + DEADLINE).await;
        assert_eq!(late, Vec::<Arc<str>>::new());
        let mut answers = Vec::new();
        while let Some(answer) = self.answers.recv().await {
            answers.push(answer);
        }
        answers
    }

    /// Stops the device while somebody takes what it still has to say, and gives that.
    pub(super) async fn last_arrivals(mut self) -> Vec<Arrival> {
        self.stop.cancel();
        let mut arrivals = Vec::new();
        while let Some(arrival) = timeout(DEADLINE, self.arrivals.recv()).await.expect("the end in time") {
            arrivals.push(arrival);
        }
        arrivals
    }

    /// Stops the device as the gateway does; panics when it does not end.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        // What it still has to say must not hold it back.
        self.arrivals.close();
        let late = self.tasks.drain(tokio::time::Instant::now() + DEADLINE).await;
        assert_eq!(late, Vec::<Arc<str>>::new());
    }
}

/// A good value of a point.
pub(super) fn good(point: &str, value: Value) -> (String, Option<Value>) {
    (point.to_owned(), Some(value))
}

/// A bad value of a point.
pub(super) fn bad(point: &str) -> (String, Option<Value>) {
    (point.to_owned(), None)
}

/// A made-up `/sys`, `/proc`, `/dev`: these files, below a folder of its own.
pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

/// Whether what was discovered is config, as it is and with all that is switched off in it switched on.
pub(super) fn uncommented_is_right(text: &str) {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    let all = text.lines().map(on).collect::<Vec<_>>().join("\n");
    for text in [text, &all] {
        let file: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        let devices = file.get("device").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        assert!(file.keys().all(|key| key == "device"), "{text}");
        for (name, device) in devices {
            let one = toml::Table::from_iter([(name, device)]);
            let one = toml::Table::from_iter([("device".to_owned(), toml::Value::Table(one))]);
            let parts = parts(&one.to_string());
            assert!(!parts.spec.points.is_empty(), "{text}");
            (parts.kind.build)(parts.spec).unwrap_or_else(|faults| panic!("{faults:?}: {text}"));
        }
    }
}
