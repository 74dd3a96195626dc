//! A tape that plays: what came to the driver comes again, and what it does is held against what it did.
//!
//! Everything happens in the tape's order, at the tape's times: bytes come no sooner than they did, and not before what was
//! sent before them is sent; the driver's own bytes leave no sooner than they did. Where the driver is late by more
//! than the grain of its timers, all that follows is as late. What does not agree is told, and the tape goes on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{Event, Head, Report, Seed, What, digits};
use crate::device::{DeviceError, Write};
use crate::model::{Cause, CommandId, Timestamp, time};

/// What timers and a busy board are late by is no other timing.
const GRAIN: Duration = Duration::from_millis(50);

/// For what the driver is to do at a certain time, and may do later with another config.
const PATIENCE: Duration = Duration::from_secs(10);

/// Behind the end of the tape: what came last is decoded by then.
const TAIL: Duration = Duration::from_millis(2);

/// Differences that are told each; of more, how many.
const MOST: usize = 20;

/// A recorded write is never late.
const DEADLINE: Duration = Duration::from_secs(3600);

/// See the module.
#[derive(Debug)]
pub struct Player {
    head: Head,
    begun: Instant,
    reel: Mutex<Reel>,
    turned: Notify,
}

#[derive(Debug)]
struct Reel {
    events: VecDeque<Event>,
    begun: Instant,
    /// By how much the driver is later than it was.
    shift: Duration,
    tickets: u32,
    differences: Vec<String>,
    count: usize,
}

/// What a look at the tape says: that it has what was looked for, or when to look again.
enum Step {
    Done,
    At(Instant),
    Later,
}

/// A look at the tape, now.
type Look<'a> = &'a mut (dyn FnMut(&mut Reel, Instant) -> Step + Send);

/// What the one who runs the tape has to do next.
enum Turn {
    Issue(Write),
    Again,
    End,
}

impl Player {
    pub(super) fn new(head: Head, events: Vec<Event>) -> Self {
        let begun = Instant::now();
        let reel =
            Reel { events: events.into(), begun, shift: Duration::ZERO, tickets: 0, differences: Vec::new(), count: 0 };
        Player { head, begun, reel: Mutex::new(reel), turned: Notify::new() }
    }

    /// What shows the time of the board where it was recorded.
    pub fn clock(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let (start, begun) = (self.head.start, self.begun);
        move || {
            let since = begun.elapsed();
            Timestamp { uptime: start.uptime + since, wall: start.wall + since, ..start }
        }
    }

    /// Runs the tape to its end. The writes on it go there.
    pub async fn run(&self, writes: &mpsc::Sender<Write>) {
        loop {
            let mut turn = Turn::End;
            self.wait(&mut |reel, now| {
                let Some(Event { t, what, .. }) = reel.events.front() else { return Step::Done };
                let (at, t) = (reel.at(*t), *t);
                match what {
                    What::End(_) if at + TAIL > now => Step::At(at + TAIL),
                    What::End(_) => Step::Done,
                    What::Write(..) if at > now => Step::At(at),
                    What::Missed(count) => {
                        let text = format!("{count} events could not be recorded here: what follows may differ");
                        reel.drop_front(t, &text);
                        turn = Turn::Again;
                        Step::Done
                    }
                    What::Write(values, timeout) => {
                        let id = CommandId::new("recorded").expect("an id as commands have it");
                        reel.tickets += 1;
                        let write = Write {
                            ticket: reel.tickets,
                            cause: Cause::Command(id),
                            values: values.clone(),
                            deadline: time::uptime() + DEADLINE,
                            timeout: *timeout,
                        };
                        reel.events.pop_front();
                        turn = Turn::Issue(write);
                        Step::Done
                    }
                    _ if at + PATIENCE > now => Step::At(at + PATIENCE),
                    what => {
                        let text = match what {
                            What::In(bytes) => format!("the driver did not read {}", digits(bytes)),
                            What::Out(bytes) => format!("the driver did not send {}", digits(bytes)),
                            What::Start(_) => "the driver was not started again".to_owned(),
                            _ => "the driver goes on where it ended".to_owned(),
                        };
                        reel.drop_front(t, &text);
                        turn = Turn::Again;
                        Step::Done
                    }
                }
            })
            .await;
            match turn {
                Turn::End => return,
                Turn::Again => {}
                Turn::Issue(write) => {
                    // No more than on the board are under way; where the driver is gone, the tape says so.
                    if writes.try_send(write).is_err() {
                        self.reel().tell(None, "a write could not be issued");
                    }
                }
            }
        }
    }

    /// What did not agree so far, and how much that is.
    pub fn differences(&self) -> (Vec<String>, usize) {
        let reel = self.reel();
        (reel.differences.clone(), reel.count)
    }

    /// Says what does not agree.
    pub(in crate::device) fn differs(&self, text: &str) {
        self.reel().tell(None, text);
    }

    /// With what the next life of the driver begins, once it did.
    pub(super) async fn begin(&self) -> Seed {
        match self.take(|what| matches!(what, What::Start(_))).await.0.what {
            What::Start(seed) => seed,
            _ => Seed::default(),
        }
    }

    pub(super) async fn lost(&self) -> DeviceError {
        match self.take(|what| matches!(what, What::Lost(_))).await.0.what {
            What::Lost(why) => DeviceError::Lost(why),
            _ => DeviceError::Lost(String::new()),
        }
    }

    /// The driver ended by itself: as it did on the board?
    pub(super) fn ended(&self, why: &DeviceError) {
        let mut reel = self.reel();
        reel.skip_settings();
        match reel.events.front() {
            Some(Event { what: What::Lost(_), .. }) => drop(reel.events.pop_front()),
            _ => reel.tell(None, &format!("the driver ended: {why}")),
        }
        drop(reel);
        self.turned.notify_waiters();
    }

    /// Waits until the way to the device is open, as far as it was.
    pub(in crate::device) async fn opened(&self) {
        self.wait(&mut |reel, _| match reel.events.front() {
            Some(Event { what: What::Lost(_), .. }) => Step::Later,
            _ => Step::Done,
        })
        .await;
    }

    /// The next bytes, and when they came. Cancel-safe.
    pub(in crate::device) async fn read(&self, chunk: &mut [u8]) -> (usize, Timestamp) {
        let (event, at) = self.take(|what| matches!(what, What::In(_))).await;
        let What::In(bytes) = &event.what else { return (0, at) };
        let count = bytes.len().min(chunk.len());
        for (place, byte) in chunk.iter_mut().zip(bytes) {
            *place = *byte;
        }
        if let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
            self.reel().events.push_front(Event { what: What::In(rest.to_vec()), ..event });
            self.turned.notify_waiters();
        }
        (count, at)
    }

    /// What a driver said to the gateway, and when.
    pub(in crate::device) async fn report(&self) -> (Report, Timestamp) {
        let (event, at) = self.take(|what| matches!(what, What::Report(_))).await;
        match event.what {
            What::Report(report) => (report, at),
            _ => (Report::Online, at),
        }
    }

    /// The driver sends this.
    pub(in crate::device) async fn write(&self, bytes: &[u8]) {
        self.wait(&mut |reel, now| {
            let passes = |event: &Event| matches!(event.what, What::In(_) | What::Baud(_));
            let place = reel.events.iter().position(|event| !passes(event));
            let sent = place.and_then(|place| match reel.events.get(place) {
                Some(Event { t, what: What::Out(sent), .. }) => Some((place, *t, sent.clone())),
                _ => None,
            });
            let Some((place, t, sent)) = sent else {
                // Its life, or the tape, ends before the driver's timer would have told it to send.
                let ends = place.and_then(|place| reel.events.get(place)).filter(|event| event.what.is_an_end());
                if ends.is_some_and(|event| reel.at(event.t) <= now + GRAIN) {
                    return Step::Later;
                }
                reel.tell(None, &format!("the driver sends {}, and it did not", digits(bytes)));
                return Step::Done;
            };
            let at = reel.at(t);
            if at > now {
                return Step::At(at);
            }
            let late = now - at;
            if late > GRAIN {
                reel.shift += late;
            }
            if sent != bytes {
                reel.tell(Some(t), &format!("the driver sends {}, recorded is {}", digits(bytes), digits(&sent)));
            }
            // What came before it and was not read is no answer to it: the driver drops that.
            reel.events.drain(..=place);
            Step::Done
        })
        .await;
    }

    /// What the driver sends next, and when: whose turn it is where several questions are due at about the same time was
    /// decided on the board, by milliseconds.
    pub(in crate::device) fn next_sent(&self) -> Option<(Vec<u8>, Instant)> {
        let reel = self.reel();
        reel.events.iter().find_map(|event| match &event.what {
            What::Out(bytes) => Some((bytes.clone(), reel.at(event.t))),
            _ => None,
        })
    }

    /// Waits until the driver has to send, of what is on the tape: all that came before was read. A timer of the board is
    /// late by some milliseconds, one on the desk is not. Cancel-safe.
    pub(in crate::device) async fn clear(&self) {
        self.wait(&mut |reel, _| {
            reel.skip_settings();
            let passes = |event: &&Event| matches!(event.what, What::In(_) | What::Baud(_) | What::Write(..));
            let before = reel.events.iter().take_while(passes).count();
            let sends = matches!(reel.events.get(before), Some(Event { what: What::Out(_), .. }));
            if before > 0 && sends { Step::Later } else { Step::Done }
        })
        .await;
    }

    /// The same for a driver that reads nothing between its questions: only writes come first.
    pub(in crate::device) async fn clear_of_writes(&self) {
        self.wait(&mut |reel, _| {
            reel.skip_settings();
            match reel.events.front() {
                Some(Event { what: What::Write(..), .. }) => Step::Later,
                _ => Step::Done,
            }
        })
        .await;
    }

    /// Waits until an event that is wanted is the next one, and its time has come.
    async fn take(&self, wanted: fn(&What) -> bool) -> (Event, Timestamp) {
        let (start, mut taken) = (self.head.start, None);
        self.wait(&mut |reel, now| {
            reel.skip_settings();
            let Some(t) = reel.events.front().filter(|event| wanted(&event.what)).map(|event| event.t) else {
                return Step::Later;
            };
            let at = reel.at(t);
            if at > now {
                return Step::At(at);
            }
            taken = reel.events.pop_front().map(|event| {
                let at = Timestamp {
                    uptime: start.uptime + t + reel.shift,
                    wall: event.date.unwrap_or(start.wall + t),
                    synced: event.date.is_some(),
                    boot: start.boot,
                };
                (event, at)
            });
            Step::Done
        })
        .await;
        taken.expect("the wait ends only with what was taken")
    }

    /// Looks at the tape until it has what is looked for. Cancel-safe: what was taken is returned at once. One piece of code
    /// for all that look.
    fn wait<'a>(&'a self, look: Look<'a>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            loop {
                let turned = self.turned.notified();
                let step = look(&mut self.reel(), Instant::now());
                match step {
                    Step::Done => return self.turned.notify_waiters(),
                    Step::At(moment) => tokio::select! {
                        () = sleep_until(moment) => {}
                        () = turned => {}
                    },
                    Step::Later => turned.await,
                }
            }
        })
    }

    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reel {
    fn at(&self, t: Duration) -> Instant {
        self.begun + t + self.shift
    }

    /// How the line was set is for people.
    fn skip_settings(&mut self) {
        while matches!(self.events.front(), Some(Event { what: What::Baud(_), .. })) {
            self.events.pop_front();
        }
    }

    fn drop_front(&mut self, t: Duration, text: &str) {
        self.tell(Some(t), text);
        self.events.pop_front();
    }

    /// `t`: where on the tape; `None`: about where it is.
    fn tell(&mut self, t: Option<Duration>, text: &str) {
        let t = t.or_else(|| self.events.front().map(|event| event.t)).unwrap_or_default();
        self.count += 1;
        if self.count <= MOST {
            self.differences.push(format!("at {:.6} s: {text}", t.as_secs_f64()));
        }
    }
}
