use tokio::time::timeout;

use super::*;
use crate::disk::fake::{Failing, Fake};
use crate::model::{CommandId, DeviceState, PointName, Rate, Reason, Span, Timestamp, Value, ValueType, Verdict};
use judge::Refused;

const WALL: Duration = Duration::from_secs(1_795_341_600);

fn point(name: &str, writable: bool, value_type: ValueType) -> Point {
    Point {
        device: DeviceName::new("tank").unwrap(),
        name: PointName::new(name).unwrap(),
        value_type: Some(value_type),
        unit: None,
        min: Some(0.0),
        max: Some(100.0),
        safe: None,
        writable,
    }
}

fn output(name: &str) -> Point {
    Point { safe: Some(Value::Bool(false)), ..point(name, true, ValueType::Bool) }
}

/// A point of a device that sleeps for 300 ms at most, and has 300 ms to act.
fn sleeper() -> (Point, PointConfig) {
    let device = DeviceName::new("sleeper").unwrap();
    let (timeout, sleeps) = (Span(Duration::from_millis(300)), Some(Duration::from_millis(300)));
    let config = PointConfig { timeout, sleeps, max_on: Some(Span::secs(1)), ..PointConfig::default() };
    (Point { device, ..output("lamp") }, config)
}

struct Bench {
    commands: mpsc::Sender<Command>,
    writes: mpsc::Receiver<Write>,
    /// Of the one that sleeps.
    late_writes: mpsc::Receiver<Write>,
    answers: mpsc::Sender<Answer>,
    outcomes: mpsc::Receiver<Arrival>,
    refusals: mpsc::Receiver<Outcome>,
    states: watch::Sender<DeviceStates>,
    stop: CancellationToken,
    heard: watch::Sender<Duration>,
    problems: watch::Receiver<Problems>,
    disk: Fake,
    _router: crate::task::Owned<()>,
}

fn bench() -> Bench {
    bench_on(Fake::new(), Takeover::Safe)
}

fn bench_on(disk: Fake, takeover: Takeover) -> Bench {
    bench_with(disk, takeover, &[("relay", false), ("horn", false), ("lamp", false)])
}

/// `opened`: what the device says of its outputs when it is opened.
fn bench_with(disk: Fake, takeover: Takeover, opened: &[(&str, bool)]) -> Bench {
    let device = DeviceName::new("tank").unwrap();
    let (commands, commands_rx) = mpsc::channel(32);
    let (writes_tx, writes) = mpsc::channel(2);
    let (late_writes_tx, late_writes) = mpsc::channel(2);
    let sleeping = DeviceName::new("sleeper").unwrap();
    let (answers, answers_rx) = mpsc::channel(64);
    let outputs = opened.iter().map(|(point, value)| (PointName::new(point).unwrap(), Value::Bool(*value))).collect();
    answers.try_send(Answer::Opened { device: device.clone(), outputs }).unwrap();
    let (outcomes_tx, outcomes) = mpsc::channel(64);
    let (refusals_tx, refusals) = mpsc::channel(64);
    let online = [&device, &sleeping].map(|device| (device.clone(), DeviceState::Online));
    let (states, states_rx) = watch::channel(online.into());
    let outputs = vec![(PointName::new("lamp").unwrap(), Value::Bool(false))];
    answers.try_send(Answer::Opened { device: sleeping.clone(), outputs }).unwrap();
    let stop = CancellationToken::new();
    let guarded = PointConfig {
        command_max_age: Some(Span::secs(10)),
        timeout: Span::secs(2),
        rate: Some(Rate::Limit { count: 3, per: Duration::from_secs(3600) }),
        ..PointConfig::default()
    };
    let loss = LinkLoss { then: Then::Safe, after: Span::secs(1) };
    let quick = PointConfig { timeout: Span(Duration::from_millis(500)), ..PointConfig::default() };
    let (heard, heard_rx) = watch::channel(Duration::ZERO);
    let (problems_tx, problems) = watch::channel(Problems::new());
    let journal = Journal::on(Box::new(disk.clone()), None);
    let parts = Parts {
        config: Config::default(),
        points: vec![
            (point("valve", true, ValueType::Int), PointConfig::default()),
            (point("guarded", true, ValueType::Bool), guarded),
            (point("quick", true, ValueType::Bool), quick),
            (point("level", false, ValueType::Float), PointConfig::default()),
            (output("relay"), PointConfig { max_on: Some(Span::secs(3600)), ..PointConfig::default() }),
            (output("horn"), PointConfig { pulse: Some(Span(Duration::from_millis(20))), ..PointConfig::default() }),
            (output("lamp"), PointConfig { on_stop: Then::Safe, on_link_loss: Some(loss), ..PointConfig::default() }),
            sleeper(),
        ],
        devices: [(device, writes_tx), (sleeping, late_writes_tx)].into(),
        answers: answers_rx,
        states: states_rx,
        commands: commands_rx,
        outcomes: outcomes_tx,
        refusals: refusals_tx,
        lost: watch::channel(0).0,
        changes: mpsc::channel(1).1,
        queued: Box::new(Queued::default),
        heard: heard_rx,
        takeover,
        problems: problems_tx,
        epoch: 7,
        pulse: Pulse::new("router"),
        stop: stop.clone(),
    };
    let router = Router::new(parts, journal);
    let _router = crate::task::Owned::spawn(router.run());
    Bench { commands, writes, late_writes, answers, outcomes, refusals, states, stop, heard, problems, disk, _router }
}

fn command(point: &str, value: Value, id: Option<&str>) -> Command {
    Command {
        id: id.and_then(CommandId::new),
        device: "tank".to_owned(),
        point: Some(point.to_owned()),
        values: Ok(vec![(point.to_owned(), value)]),
        arrived: time::now(),
        sent: None,
        expires: None,
        ttl: None,
        lease: None,
        retained: false,
        reply: None,
    }
}

impl Bench {
    async fn send(&self, command: Command) {
        self.commands.send(command).await.unwrap();
    }

    async fn outcome(&mut self) -> Outcome {
        match self.outcomes.recv().await {
            Some(Arrival::Outcome(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    async fn rejection(&mut self, command: Command) -> Reason {
        self.send(command).await;
        match self.refusals.recv().await.unwrap().verdict {
            Verdict::Rejected(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn done(&mut self) -> Write {
        let write = self.writes.recv().await.unwrap();
        self.answers.send(Answer::Began { ticket: write.ticket }).await.unwrap();
        let result = Ok(write.values.clone());
        self.answers.send(Answer::Ended { ticket: write.ticket, result }).await.unwrap();
        write
    }
}

#[tokio::test]
async fn an_accepted_command_acts_once_and_answers_its_duplicates() {
    let mut bench = bench();
    bench.send(command("valve", Value::text("40"), Some("c-1"))).await;
    let write = bench.done().await;
    assert_eq!(write.values, [(PointName::new("valve").unwrap(), Value::Int(40))]);
    let outcome = bench.outcome().await;
    assert_eq!((outcome.verdict, outcome.id.as_str()), (Verdict::Done, "c-1"));
    bench.send(command("valve", Value::text("40"), Some("c-1"))).await;
    let again = bench.refusals.recv().await.unwrap();
    assert_eq!((again.verdict, again.timestamp), (Verdict::Done, outcome.timestamp));
    assert!(bench.writes.try_recv().is_err(), "it did not act again");
}

#[tokio::test]
async fn a_bare_command_gets_an_id_and_acts_each_time() {
    let mut bench = bench();
    for id in ["auto-7-1", "auto-7-2"] {
        bench.send(command("valve", Value::Int(1), None)).await;
        bench.done().await;
        assert_eq!(bench.outcome().await.id.as_str(), id);
    }
}

#[tokio::test]
async fn a_command_is_refused_for_the_exact_reason() {
    let mut bench = bench();
    let synced = Timestamp { uptime: time::uptime(), wall: WALL, synced: true, boot: time::boot() };
    let with = |change: &dyn Fn(&mut Command)| {
        let mut command = command("valve", Value::Int(1), Some("r"));
        change(&mut command);
        command
    };
    for (expected, refused) in [
        (Reason::Retained, with(&|c| c.retained = true)),
        (Reason::Unknown, with(&|c| c.device = "tonk".to_owned())),
        (Reason::Unknown, command("volve", Value::Int(1), None)),
        (Reason::ReadOnly, command("level", Value::Int(1), None)),
        (Reason::Type, command("valve", Value::text("much"), None)),
        (Reason::Type, command("valve", Value::Float(1.5), None)),
        (Reason::Type, with(&|c| c.values = Err("no JSON".to_owned()))),
        (Reason::Range, command("valve", Value::Int(101), None)),
        (Reason::Range, with(&|c| c.ttl = Some(Duration::from_secs(1_000_000)))),
        (Reason::Range, with(&|c| c.lease = Some(Duration::from_secs(1)))),
        (Reason::Stale, with(&|c| c.ttl = Some(Duration::ZERO))),
    ] {
        assert_eq!(bench.rejection(refused.clone()).await, expected, "{refused:?}");
    }
    // By the wall clock, whatever this machine's shows.
    let config = PointConfig { command_max_age: Some(Span::secs(10)), ..PointConfig::default() };
    let guard = Guard::new(point("valve", true, ValueType::Int), config, None);
    let mut guards: judge::Guards = [("tank".to_owned(), [("valve".to_owned(), guard)].into())].into();
    let unsynced = Timestamp { synced: false, ..synced };
    for (expected, at, refused) in [
        (Reason::Stale, synced, with(&|c| c.sent = Some(WALL - Duration::from_secs(11)))),
        (Reason::Stale, synced, with(&|c| c.sent = Some(WALL + Duration::from_secs(11)))),
        (Reason::Clock, unsynced, with(&|c| c.sent = Some(WALL))),
        (Reason::Stale, synced, with(&|c| c.expires = Some(WALL))),
        (Reason::Clock, unsynced, with(&|c| c.expires = Some(WALL + Duration::from_secs(1)))),
    ] {
        let day = Duration::from_secs(24 * 3600);
        match judge::judge(&mut guards, &refused, &at, day) {
            Err(Refused::Because(reason, _)) => assert_eq!(reason, expected, "{refused:?}"),
            other => panic!("{other:?}"),
        }
    }
    // Of those that ask for no date, none waits for the clock.
    for accepted in [with(&|_| {}), with(&|c| c.ttl = Some(Duration::from_secs(30)))] {
        let judged = judge::judge(&mut guards, &accepted, &unsynced, Duration::from_secs(24 * 3600));
        assert!(judged.is_ok(), "{judged:?} of {accepted:?}");
    }
    bench.states.send_replace([(DeviceName::new("tank").unwrap(), DeviceState::Starting)].into());
    assert_eq!(bench.rejection(command("valve", Value::Int(1), None)).await, Reason::Offline);
    bench.stop.cancel();
}

#[tokio::test]
async fn a_rate_and_a_full_device_refuse_what_is_too_much() {
    let mut bench = bench();
    for _ in 0..3 {
        bench.send(command("guarded", Value::Bool(true), None)).await;
        bench.done().await;
        assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    }
    assert_eq!(bench.rejection(command("guarded", Value::Bool(true), None)).await, Reason::Rate);
    for value in 0..8 {
        bench.send(command("valve", Value::Int(value), None)).await;
    }
    assert_eq!(bench.rejection(command("valve", Value::Int(9), None)).await, Reason::Busy);
}

#[tokio::test]
async fn a_retained_command_is_refused_once_for_each_content() {
    let mut bench = bench();
    let mut retained = command("valve", Value::Int(1), None);
    retained.retained = true;
    assert_eq!(bench.rejection(retained.clone()).await, Reason::Retained);
    bench.send(retained.clone()).await;
    retained.values = Ok(vec![("valve".to_owned(), Value::Int(2))]);
    assert_eq!(bench.rejection(retained).await, Reason::Retained);
    assert!(bench.refusals.try_recv().is_err(), "the second copy was not answered");
}

/// MQTT 3.1.1 delivers a command that is published as retained like any other, and once more at the next connection.
#[tokio::test]
async fn a_retained_copy_of_a_command_that_acted_does_not_contradict_its_outcome() {
    let mut bench = bench();
    let mut live = command("valve", Value::Int(1), Some("live"));
    bench.send(live.clone()).await;
    bench.done().await;
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    live.retained = true;
    bench.send(live).await;
    let mut other = command("valve", Value::Int(1), Some("other"));
    other.retained = true;
    assert_eq!(bench.rejection(other).await, Reason::Retained);
    assert!(bench.writes.try_recv().is_err());
}

#[tokio::test]
async fn nobody_can_take_an_id_that_the_router_makes() {
    let mut bench = bench();
    for (id, made) in [(Some("auto-7-1"), "auto-7-1"), (None, "auto-7-2")] {
        bench.send(command("valve", Value::Int(1), id)).await;
        bench.done().await;
        assert_eq!(bench.outcome().await.id, CommandId::new(made).unwrap());
    }
}

#[tokio::test]
async fn a_silent_device_is_unknown_once_it_began_and_expired_before() {
    let mut bench = bench();
    bench.send(command("quick", Value::Bool(true), Some("a"))).await;
    let write = bench.writes.recv().await.unwrap();
    bench.answers.send(Answer::Began { ticket: write.ticket }).await.unwrap();
    assert_eq!(bench.outcome().await.verdict, Verdict::Unknown);
    bench.send(command("quick", Value::Bool(true), Some("b"))).await;
    assert_eq!(bench.outcome().await.verdict, Verdict::Expired);
}

impl Bench {
    async fn send_to_sleeper(&self, id: &str, value: bool, ttl: Option<Duration>) {
        let device = "sleeper".to_owned();
        self.send(Command { device, ttl, ..command("lamp", Value::Bool(value), Some(id)) }).await;
    }

    /// The sleeper listens for so long from now on.
    async fn wakes(&self, span: Duration) {
        let (device, until) = (DeviceName::new("sleeper").unwrap(), time::uptime() + span);
        self.answers.send(Answer::Awake { device, until }).await.unwrap();
    }

    async fn sleeper_does(&mut self) -> Value {
        let write = self.late_writes.recv().await.unwrap();
        self.answers.send(Answer::Began { ticket: write.ticket }).await.unwrap();
        let result = Ok(write.values.clone());
        self.answers.send(Answer::Ended { ticket: write.ticket, result }).await.unwrap();
        write.values.into_iter().next().unwrap().1
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn commands_wait_for_a_device_that_sleeps_and_go_out_in_order() {
    let mut bench = bench();
    for (id, value) in [("a", true), ("b", false), ("c", true)] {
        bench.send_to_sleeper(id, value, Some(LONG)).await;
    }
    // A command to another device goes through after them: they had their turn, and none began.
    bench.send(command("valve", Value::Int(1), Some("d"))).await;
    bench.done().await;
    assert_eq!(bench.outcome().await.id.as_str(), "d");
    assert!(bench.late_writes.try_recv().is_err(), "it sleeps");
    bench.wakes(LONG).await;
    for (id, value) in [("a", true), ("b", false), ("c", true)] {
        assert_eq!(bench.sleeper_does().await, Value::Bool(value));
        let outcome = bench.outcome().await;
        assert_eq!((outcome.id.as_str(), outcome.verdict), (id, Verdict::Done));
    }
    // It fell asleep again.
    bench.wakes(Duration::ZERO).await;
    bench.send_to_sleeper("e", true, Some(Duration::from_millis(200))).await;
    let outcome = bench.outcome().await;
    assert_eq!((outcome.id.as_str(), outcome.verdict), ("e", Verdict::Expired));
    assert!(outcome.text.unwrap().contains("woke up"));
    assert!(bench.late_writes.try_recv().is_err(), "it never began");
}

#[tokio::test]
async fn a_command_that_says_no_expiry_waits_as_long_as_the_device_may_sleep() {
    let mut bench = bench();
    let sent = time::uptime();
    bench.send_to_sleeper("a", true, None).await;
    assert_eq!(bench.outcome().await.verdict, Verdict::Expired);
    let waited = time::uptime() - sent;
    assert!(waited >= Duration::from_millis(600), "{waited:?}: 300 ms asleep, and 300 ms to act");
}

#[tokio::test]
async fn a_device_that_begins_late_still_has_its_time_to_act() {
    let mut bench = bench();
    bench.wakes(LONG).await;
    bench.send_to_sleeper("a", true, Some(Duration::from_millis(400))).await;
    let write = bench.late_writes.recv().await.unwrap();
    assert_eq!(write.timeout, Duration::from_millis(300));
    time_passes(write.deadline.saturating_sub(time::uptime())).await;
    let began = time::uptime();
    bench.answers.send(Answer::Began { ticket: write.ticket }).await.unwrap();
    // What it began it may end, though the command would not begin any more; and what says nothing is over in the end.
    assert_eq!(bench.outcome().await.verdict, Verdict::Unknown);
    let took = time::uptime() - began;
    assert!(took >= Duration::from_millis(300 + 1000), "{took:?}");
}

#[tokio::test]
async fn what_a_rule_wants_waits_for_a_device_that_sleeps() {
    let mut bench = bench();
    bench.wakes(LONG).await;
    bench.send_to_sleeper("a", true, Some(LONG)).await;
    assert_eq!(bench.sleeper_does().await, Value::Bool(true));
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    bench.wakes(Duration::ZERO).await;
    // `max_on` is over meanwhile.
    time_passes(Duration::from_millis(1300)).await;
    assert!(bench.late_writes.try_recv().is_err(), "it sleeps");
    bench.wakes(LONG).await;
    assert_eq!(bench.sleeper_does().await, Value::Bool(false));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_device_that_sleeps() {
    let mut bench = bench();
    // Where it does wait, it is for less than ever.
    bench.send_to_sleeper("a", true, Some(Duration::from_secs(20))).await;
    bench.send(command("valve", Value::Int(1), Some("b"))).await;
    bench.done().await;
    assert_eq!(bench.outcome().await.id.as_str(), "b");
    bench.stop.cancel();
    let outcome = bench.outcome().await;
    assert_eq!((outcome.id.as_str(), outcome.verdict), ("a", Verdict::Failed));
}

/// Where time itself is what is tested.
async fn time_passes(span: Duration) {
    tokio::time::sleep(span).await;
}

#[tokio::test]
async fn a_stop_waits_for_commands_under_way() {
    let mut bench = bench();
    bench.send(command("valve", Value::Int(1), Some("a"))).await;
    let write = bench.writes.recv().await.unwrap();
    bench.stop.cancel();
    assert_eq!(bench.rejection(command("valve", Value::Int(2), Some("b"))).await, Reason::Stopping);
    bench.answers.send(Answer::Ended { ticket: write.ticket, result: Ok(write.values) }).await.unwrap();
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
}

fn on(value: bool, id: &str) -> Command {
    command("relay", Value::Bool(value), Some(id))
}

impl Bench {
    /// The next write, which is done at once: its cause and its value.
    async fn acted(&mut self) -> (String, Value) {
        let write = self.done().await;
        (write.cause.to_string(), write.values[0].1.clone())
    }

    async fn end(mut self) -> Fake {
        self.stop.cancel();
        self._router.ended().await.unwrap();
        self.disk.clone()
    }
}

#[tokio::test]
async fn a_lease_ends_at_the_safe_value_and_the_cause_is_told() {
    let mut bench = bench();
    let mut leased = on(true, "a");
    leased.lease = Some(Duration::from_millis(20));
    bench.send(leased.clone()).await;
    assert_eq!(bench.acted().await, ("command:a".to_owned(), Value::Bool(true)));
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    assert_eq!(bench.acted().await, ("lease".to_owned(), Value::Bool(false)));
    // `pulse` is a default `for`; a command to the safe value has none.
    bench.send(command("horn", Value::Bool(true), Some("b"))).await;
    assert_eq!(bench.acted().await.0, "command:b");
    assert_eq!(bench.acted().await, ("lease".to_owned(), Value::Bool(false)));
    leased.id = CommandId::new("c");
    for (reason, point, value, lease) in [
        (Reason::Range, "relay", true, Duration::from_millis(1)),
        (Reason::Range, "relay", true, Duration::from_secs(3601)),
        (Reason::Range, "relay", false, Duration::from_secs(1)),
        (Reason::Range, "guarded", true, Duration::from_secs(1)),
    ] {
        let refused = Command { lease: Some(lease), ..command(point, Value::Bool(value), Some("c")) };
        assert_eq!(bench.rejection(refused).await, reason, "{point} {value} {lease:?}");
    }
}

#[tokio::test]
async fn an_output_of_which_nobody_knows_the_value_is_made_safe_first() {
    let mut bench = bench_with(Fake::new(), Takeover::Safe, &[("lamp", true)]);
    let mut safe: Vec<(String, Value)> = Vec::new();
    for _ in 0..2 {
        safe.push(bench.acted().await);
    }
    assert!(safe.iter().all(|(cause, value)| cause == "start" && *value == Value::Bool(false)), "{safe:?}");
}

#[tokio::test]
async fn an_accepted_command_is_on_flash_before_its_device_gets_it_and_unknown_after_a_crash() {
    let mut bench = bench();
    bench.send(on(true, "a")).await;
    let write = bench.writes.recv().await.unwrap();
    assert_eq!(write.cause.to_string(), "command:a");
    let disk = bench.disk.clone();
    assert!(String::from_utf8_lossy(&disk.content("commands/journal")).contains('a'));
    drop(bench);
    disk.cut(|| 7);
    let mut bench = bench_on(disk, Takeover::Safe);
    let outcome = bench.outcome().await;
    assert_eq!((outcome.id.as_str(), outcome.verdict), ("a", Verdict::Unknown));
    bench.send(on(true, "a")).await;
    let again = bench.refusals.recv().await.unwrap();
    assert_eq!((again.verdict, again.text), (Verdict::Unknown, outcome.text), "it does not act");
}

#[tokio::test]
async fn a_planned_restart_leaves_outputs_as_they_are_and_their_times_go_on() {
    let mut bench = bench();
    let mut leased = on(true, "a");
    leased.lease = Some(Duration::from_millis(300));
    bench.send(leased).await;
    bench.done().await;
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    let disk = bench.end().await;
    let mut bench = bench_with(disk, Takeover::Keep, &[("relay", true), ("horn", false)]);
    assert_eq!(bench.acted().await, ("lease".to_owned(), Value::Bool(false)));
    // Its outcome is known as well.
    bench.send(on(true, "a")).await;
    assert_eq!(bench.refusals.recv().await.unwrap().verdict, Verdict::Done);
}

#[tokio::test]
async fn without_a_journal_only_safe_values_are_set() {
    let mut bench = bench();
    bench.disk.set_failing(Some(Failing::Io));
    assert_eq!(bench.rejection(on(true, "a")).await, Reason::Storage);
    assert!(
        bench.problems.wait_for(|problems| !problems.is_empty()).await.unwrap().keys().any(|key| key.0 == "commands")
    );
    bench.send(on(false, "b")).await;
    assert_eq!(bench.acted().await, ("command:b".to_owned(), Value::Bool(false)));
    assert_eq!(bench.outcome().await.verdict, Verdict::Done);
    bench.disk.set_failing(None);
    bench.problems.wait_for(Problems::is_empty).await.unwrap();
    bench.send(on(true, "c")).await;
    assert_eq!(bench.acted().await.0, "command:c");
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_not_touched() {
    let disk = Fake::new();
    disk.replace("commands/journal", b"SGCMDS\x02\0later".to_vec());
    let mut bench = bench_on(disk, Takeover::Safe);
    bench.send(on(true, "a")).await;
    let refused = bench.refusals.recv().await.unwrap();
    assert_eq!(refused.verdict, Verdict::Rejected(Reason::Storage));
    let told = timeout(Duration::from_secs(10), bench.problems.wait_for(|problems| !problems.is_empty())).await.is_ok();
    assert!(told, "a problem says so");
    assert!(refused.text.unwrap().contains("commands/journal is of version 2, which a later sluicegate wrote"));
    let disk = bench.end().await;
    assert_eq!(disk.content("commands/journal"), b"SGCMDS\x02\0later");
}

#[tokio::test]
async fn an_output_goes_safe_at_the_loss_of_the_link_and_at_the_stop() {
    let mut bench = bench();
    bench.send(command("lamp", Value::Bool(true), Some("a"))).await;
    assert_eq!(bench.acted().await.0, "command:a");
    assert_eq!(bench.acted().await, ("link".to_owned(), Value::Bool(false)), "a second after the command");
    bench.heard.send_replace(time::uptime() + Duration::from_secs(3600));
    bench.send(command("lamp", Value::Bool(true), Some("b"))).await;
    assert_eq!(bench.acted().await.0, "command:b");
    bench.stop.cancel();
    assert_eq!(bench.acted().await, ("stop".to_owned(), Value::Bool(false)));
    bench._router.ended().await.unwrap();
}

#[tokio::test]
async fn how_outputs_were_left_counts_for_one_start_only() {
    let disk = bench().end().await;
    // The device is not there in this run, so nobody knows how its outputs are at the end of it.
    let mut bench = bench_with(disk, Takeover::Safe, &[]);
    bench.states.send_replace(DeviceStates::new());
    while let Ok(write) = bench.writes.try_recv() {
        assert_eq!(write.cause.to_string(), "start");
    }
    let disk = bench.end().await;
    let mut bench = bench_with(disk, Takeover::Keep, &[]);
    assert_eq!(bench.acted().await, ("start".to_owned(), Value::Bool(false)));
}

#[tokio::test]
async fn outputs_that_were_found_on_are_made_safe_unless_it_is_known_for_how_long() {
    let mut bench = bench_with(Fake::new(), Takeover::Keep, &[("relay", true), ("horn", true), ("lamp", false)]);
    for _ in 0..2 {
        assert_eq!(bench.acted().await, ("start".to_owned(), Value::Bool(false)));
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_not_written_over() {
    #[derive(Debug)]
    struct Unreadable(Fake);
    impl crate::disk::Disk for Unreadable {
        fn list(&mut self, folder: &str) -> std::io::Result<Vec<String>> {
            self.0.list(folder)
        }
        fn size(&mut self, file: &str) -> std::io::Result<u64> {
            self.0.size(file)
        }
        fn read(&mut self, _: &str, _: u64, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("I/O error"))
        }
        fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
            self.0.write(file, offset, bytes)
        }
        fn sync(&mut self, file: &str) -> std::io::Result<()> {
            self.0.sync(file)
        }
        fn sync_folder(&mut self, folder: &str) -> std::io::Result<()> {
            self.0.sync_folder(folder)
        }
        fn rename(&mut self, from: &str, to: &str) -> std::io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&mut self, file: &str) -> std::io::Result<()> {
            self.0.remove(file)
        }
        fn forget(&mut self, file: &str) {
            self.0.forget(file);
        }
        fn free(&mut self) -> std::io::Result<u64> {
            self.0.free()
        }
    }
    let disk = Fake::new();
    disk.replace("commands/journal", b"SGCMDS\x01\0what was".to_vec());
    let mut journal = Journal::on(Box::new(Unreadable(disk.clone())), None);
    let found = journal.take_found();
    assert!(found.foreign.unwrap().contains("can't be read: I/O error"));
    assert_eq!(disk.content("commands/journal"), b"SGCMDS\x01\0what was");
}

#[test]
fn an_id_is_not_forgotten_while_its_command_is_under_way() {
    let mut memory = memory::Memory::new(Duration::from_secs(60));
    let now = Timestamp { uptime: Duration::from_secs(10), ..time::now() };
    let unknown = Outcome::of(&on(true, "a"), Verdict::Unknown, None);
    memory.accepted(now, true, true, unknown.clone(), &now);
    let later = now.uptime + Duration::from_secs(300);
    let id = CommandId::new("a").unwrap();
    assert!(matches!(memory.seen(&id, later), memory::Seen::UnderWay));
    memory.ended(&Outcome { verdict: Verdict::Done, ..unknown });
    assert!(matches!(memory.seen(&id, later), memory::Seen::Ended(_)));
    assert!(matches!(memory.seen(&id, later + Duration::from_secs(600)), memory::Seen::Never));
}
