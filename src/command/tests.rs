use super::*;
use crate::model::{Rate, Span, Timestamp, ValueType};

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

struct Bench {
    commands: mpsc::Sender<Command>,
    writes: mpsc::Receiver<Write>,
    answers: mpsc::Sender<Answer>,
    outcomes: mpsc::Receiver<Arrival>,
    refusals: mpsc::Receiver<Outcome>,
    states: watch::Sender<DeviceStates>,
    stop: CancellationToken,
    _router: crate::task::Owned<()>,
}

fn bench() -> Bench {
    let device = DeviceName::new("tank").unwrap();
    let (commands, commands_rx) = mpsc::channel(32);
    let (writes_tx, writes) = mpsc::channel(2);
    let (answers, answers_rx) = mpsc::channel(64);
    let (outcomes_tx, outcomes) = mpsc::channel(64);
    let (refusals_tx, refusals) = mpsc::channel(64);
    let (states, states_rx) = watch::channel([(device.clone(), DeviceState::Online)].into());
    let stop = CancellationToken::new();
    let guarded = PointConfig {
        command_max_age: Some(Span::secs(10)),
        timeout: Span::secs(2),
        rate: Some(Rate::Limit { count: 3, per: Duration::from_secs(3600) }),
    };
    let quick = PointConfig { timeout: Span(Duration::from_millis(20)), ..PointConfig::default() };
    let router = Router::new(Parts {
        config: Config::default(),
        points: vec![
            (point("valve", true, ValueType::Int), PointConfig::default()),
            (point("guarded", true, ValueType::Bool), guarded),
            (point("quick", true, ValueType::Bool), quick),
            (point("level", false, ValueType::Float), PointConfig::default()),
        ],
        devices: [(device, writes_tx)].into(),
        answers: answers_rx,
        states: states_rx,
        commands: commands_rx,
        outcomes: outcomes_tx,
        refusals: refusals_tx,
        changes: mpsc::channel(1).1,
        epoch: 7,
        pulse: Pulse::new("router"),
        stop: stop.clone(),
    });
    let _router = crate::task::Owned::spawn(router.run());
    Bench { commands, writes, answers, outcomes, refusals, states, stop, _router }
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
    let guard = Guard::new(point("valve", true, ValueType::Int), config);
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
    bench.send(command("valve", Value::Int(1), None)).await;
    bench.send(command("valve", Value::Int(2), None)).await;
    assert_eq!(bench.rejection(command("valve", Value::Int(3), None)).await, Reason::Busy);
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
