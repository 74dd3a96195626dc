//! What a driver has of the gateway: readings out, writes in, whether the device answers.

mod handover;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::allowance::Allowance;
use super::others::Others;
use super::point::{Cooked, Rules};
use super::tape::{Report, Seed, Tape};
use super::{DeviceError, Held, Write, WriteError};
use crate::model::{
    Answer, Arrival, Cause, DeviceName, DeviceState, DeviceStates, PointName, Rate, Reading, Timestamp, Value, event,
    time,
};

/// The driver's side of the gateway. Values are raw on this side of it, and in the points' units on the other.
#[derive(Debug)]
pub struct DeviceIo {
    device: DeviceName,
    rules: BTreeMap<PointName, Rules>,
    arrivals: mpsc::Sender<Arrival>,
    writes: mpsc::Receiver<Write>,
    answers: mpsc::Sender<Answer>,
    states: Arc<watch::Sender<DeviceStates>>,
    held: Held,
    #[cfg(feature = "modbus")]
    buses: super::modbus::Buses,
    others: Others,
    stop: CancellationToken,
    allowance: Allowance,
    tape: Tape,
    /// What the driver's life begins with, of the one before.
    seed: Seed,
    /// The driver handed over by itself.
    handed: bool,
    /// A way to the device that stays open from one life to the next.
    #[cfg(feature = "serial")]
    port: Option<(super::port::Port, tokio::time::Instant)>,
    #[cfg(feature = "modbus")]
    seat: Option<super::modbus::Seat>,
    /// Readings on their way to the intake, oldest first.
    ready: VecDeque<(PointName, Cooked, Timestamp, Option<Cause>)>,
    /// The write that the driver has in hand, and whether it began.
    open: Option<(u32, bool)>,
    /// Its values as they came, where they go on tape.
    taken: Option<Vec<(PointName, Value)>>,
    /// Readings the driver could not hand over, waiting to be told.
    lost: BTreeMap<Option<PointName>, u64>,
    /// When losses are told next, at the earliest.
    tell_at: Duration,
    /// What was told last by [`DeviceIo::awake_until`].
    awake_until: Duration,
}

/// Losses are told together, this far apart: they come by the thousand when a device is faster than its `max_rate`, and
/// must not take the place of readings.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A device that says much is not said to be awake each time.
const AWAKE_GRAIN: Duration = Duration::from_millis(250);

/// What the gateway wants of a driver.
#[derive(Debug)]
pub enum Ask {
    /// Do this, then say so by [`DeviceIo::answer`]. The values are raw.
    Write(Write),
    /// Close the device and return.
    Stop,
}

impl DeviceIo {
    #[expect(clippy::too_many_arguments, reason = "one place calls it, with one end of each channel")]
    pub(super) fn new(
        device: DeviceName,
        rules: BTreeMap<PointName, Rules>,
        max_rate: Rate,
        arrivals: mpsc::Sender<Arrival>,
        writes: mpsc::Receiver<Write>,
        answers: mpsc::Sender<Answer>,
        states: Arc<watch::Sender<DeviceStates>>,
        held: Held,
        #[cfg(feature = "modbus")] buses: super::modbus::Buses,
        others: Others,
        stop: CancellationToken,
        tape: Tape,
    ) -> Self {
        DeviceIo {
            device,
            rules,
            arrivals,
            writes,
            answers,
            states,
            held,
            #[cfg(feature = "modbus")]
            buses,
            others,
            stop,
            allowance: Allowance::new(max_rate),
            tape,
            seed: Seed::default(),
            handed: false,
            #[cfg(feature = "serial")]
            port: None,
            #[cfg(feature = "modbus")]
            seat: None,
            ready: VecDeque::new(),
            open: None,
            taken: None,
            lost: BTreeMap::new(),
            tell_at: Duration::ZERO,
            awake_until: Duration::ZERO,
        }
    }

    /// The device's name.
    pub fn device(&self) -> &DeviceName {
        &self.device
    }

    /// What outlives this life of the driver: the descriptors of its outputs, and how they are taken over.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The buses that devices share.
    #[cfg(feature = "modbus")]
    pub(super) fn buses(&self) -> &super::modbus::Buses {
        &self.buses
    }

    /// What the points of other devices are.
    pub(super) fn others(&self) -> &Others {
        &self.others
    }

    /// Which devices answer.
    pub(super) fn states(&self) -> watch::Receiver<DeviceStates> {
        self.states.subscribe()
    }

    /// Shows to other devices what has just come in of a point.
    fn show(&mut self, point: &PointName, at: Timestamp) {
        if let Some(came) = self.rules.get_mut(point).and_then(Rules::came) {
            self.others.show(came.reading(&self.device, point, at));
        }
    }

    /// The device answers. Cheap when it is known already.
    pub fn online(&mut self) {
        if !self.is_online() {
            self.put_on_tape(time::now(), &|| Report::Online);
            self.set_state(DeviceState::Online);
        }
    }

    /// The device says of itself that it is away, or was silent for too long; the way to it stays open. Its next values
    /// are news.
    pub fn offline(&mut self, why: &str) {
        self.put_on_tape(time::now(), &|| Report::Offline(why.to_owned()));
        if self.is_online() {
            tracing::warn!(MESSAGE_ID = event::DEVICE_OFFLINE, DEVICE = %self.device, "device {} offline: {why}", self.device);
        }
        self.set_offline(&DeviceError::Lost(why.to_owned()));
        self.forget();
    }

    /// What is next of each point is news. What the rules still hold back goes out: the peak in a window that was cut off is
    /// often what explains why.
    fn forget(&mut self) {
        let now = time::now();
        for (name, rules) in &mut self.rules {
            self.ready.extend(rules.take_held(now).map(|(cooked, at)| (name.clone(), cooked, at, None)));
            rules.reset();
        }
    }

    /// The device sleeps between what it says, and listens until then, by `CLOCK_BOOTTIME`.
    pub fn awake_until(&mut self, until: Duration) {
        // Of the places, one half is for what must not be lost.
        if self.awake_until.abs_diff(until) >= AWAKE_GRAIN && self.answers.capacity() > self.answers.max_capacity() / 2
        {
            self.awake_until = until;
            self.tell(Answer::Awake { device: self.device.clone(), until });
        }
    }

    /// The raw value at which an output is safe.
    pub(super) fn safe(&self, point: &PointName) -> Option<Value> {
        let rules = self.rules.get(point)?;
        rules.raw(rules.point().safe.as_ref()?).ok()
    }

    /// Whether these two raw values are the same one of a point: a device may spell in another way what it was told.
    pub fn is_same(&self, point: &PointName, one: &Value, other: &Value) -> bool {
        self.rules.get(point).is_some_and(|rules| {
            let value = rules.cook(one).value;
            value.is_some() && value == rules.cook(other).value
        })
    }

    pub(super) fn set_state(&mut self, state: DeviceState) {
        self.states.send_if_modified(|states| {
            let before = states.insert(self.device.clone(), state.clone());
            if state == DeviceState::Online && matches!(before, Some(DeviceState::Offline { .. })) {
                tracing::info!(MESSAGE_ID = event::DEVICE_ONLINE, DEVICE = %self.device, "device {} online again", self.device);
            }
            before != Some(state)
        });
    }

    /// The device was lost. Since when stays as it is while it is away.
    pub(super) fn set_offline(&mut self, error: &DeviceError) {
        // What it was is not what it will be when it is back.
        self.others.forget(&self.device);
        let since = match self.states.borrow().get(&self.device) {
            Some(DeviceState::Offline { since, .. }) => *since,
            _ => time::now(),
        };
        self.set_state(DeviceState::Offline { why: error.to_string(), since });
    }

    pub(super) fn is_online(&self) -> bool {
        self.states.borrow().get(&self.device) == Some(&DeviceState::Online)
    }

    /// A raw value came in now. Becomes a reading where the point's rules say so. Waits while the gateway is busy,
    /// which holds back the bus behind it.
    pub fn report<'a>(&'a mut self, point: &'a PointName, raw: &'a Value) -> impl Future<Output = ()> + Send + 'a {
        self.report_at(point, raw, time::now())
    }

    /// A raw value that was taken at this moment: an edge that the kernel dated.
    pub async fn report_at(&mut self, point: &PointName, raw: &Value, at: Timestamp) {
        self.put_on_tape(at, &|| Report::Value(point.clone(), raw.clone()));
        let cooked = self.rules_of(point).and_then(|rules| rules.offer(raw, at));
        self.show(point, at);
        if let Some(cooked) = cooked {
            self.pass(point, cooked, at).await;
        }
    }

    /// A raw value that was right once, and that nobody can confirm. Always a reading, but where it is only part of one.
    pub fn report_stale<'a>(
        &'a mut self,
        point: &'a PointName,
        raw: &'a Value,
    ) -> impl Future<Output = ()> + Send + 'a {
        self.report_stale_at(point, raw, time::now())
    }

    /// The same of this moment.
    pub(super) async fn report_stale_at(&mut self, point: &PointName, raw: &Value, at: Timestamp) {
        self.put_on_tape(at, &|| Report::Stale(point.clone(), raw.clone()));
        let cooked = self.rules_of(point).and_then(|rules| rules.offer_stale(raw, at));
        self.show(point, at);
        if let Some(cooked) = cooked {
            self.send(point, cooked, at, None).await;
        }
    }

    /// The device gave something that is no value of this point.
    pub fn report_bad<'a>(&'a mut self, point: &'a PointName) -> impl Future<Output = ()> + Send + 'a {
        self.report_bad_at(point, time::now())
    }

    /// The same of this moment.
    pub async fn report_bad_at(&mut self, point: &PointName, at: Timestamp) {
        self.put_on_tape(at, &|| Report::Bad(point.clone()));
        let cooked = self.rules_of(point).and_then(|rules| rules.offer_bad(at));
        self.show(point, at);
        if let Some(cooked) = cooked {
            self.pass(point, cooked, at).await;
        }
    }

    /// The device was opened, and those of its outputs that can be asked have these raw values.
    pub async fn opened(&mut self, outputs: Vec<(PointName, Value)>) {
        let mut values = Vec::with_capacity(outputs.len());
        for (point, raw) in outputs {
            self.output(&point, &raw, Cause::Start).await;
            let value = self.rules.get(&point).and_then(|rules| rules.cook(&raw).value);
            values.extend(value.map(|value| (point, value)));
        }
        self.tell(Answer::Opened { device: self.device.clone(), outputs: values });
    }

    /// The device says of an output what it is, and others than the gateway may have set it. False: there is no room to
    /// tell that now.
    pub fn found(&mut self, point: &PointName, raw: &Value) -> bool {
        let has_room = self.answers.capacity() > self.answers.max_capacity() / 2;
        let value = self.rules.get(point).and_then(|rules| rules.cook(raw).value).filter(|_| has_room);
        if let Some(value) = value {
            self.tell(Answer::Opened { device: self.device.clone(), outputs: vec![(point.clone(), value)] });
        }
        has_room
    }

    /// An output was set to this raw value. Always a reading, whatever the point's rules say.
    pub fn output<'a>(
        &'a mut self,
        point: &'a PointName,
        raw: &'a Value,
        cause: Cause,
    ) -> impl Future<Output = ()> + Send + 'a {
        self.output_at(point, raw, cause, time::now())
    }

    /// The same at this moment.
    pub(super) async fn output_at(&mut self, point: &PointName, raw: &Value, cause: Cause, at: Timestamp) {
        self.put_on_tape(at, &|| Report::Output(point.clone(), raw.clone()));
        let Some(cooked) = self.rules_of(point).map(|rules| {
            let cooked = rules.cook(raw);
            rules.send(cooked, at.uptime)
        }) else {
            return;
        };
        self.show(point, at);
        self.send(point, cooked, at, Some(cause)).await;
    }

    /// The device had `count` readings that nobody took in time: they will be told in a gap. `None`: of all points.
    pub fn lost(&mut self, point: Option<&PointName>, count: u64) {
        *self.lost.entry(point.cloned()).or_default() += count;
    }

    /// Waits for what the gateway wants. Meanwhile it sends the readings that the report rules held back, so a driver
    /// always waits for this beside its bus. Cancel-safe.
    pub async fn next(&mut self) -> Ask {
        loop {
            let now = time::uptime();
            let due = self.next_due(now);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.send_held().await;
                    return Ask::Stop;
                }
                write = self.writes.recv() => match write {
                    // The router is gone: no more commands, and the stop is near.
                    None => {
                        self.stop.cancelled().await;
                        self.send_held().await;
                        return Ask::Stop;
                    }
                    Some(write) => if let Some(write) = self.accept(write) {
                        return Ask::Write(write);
                    },
                },
                () = sleep_until(due, now) => self.send_due().await,
            }
        }
    }

    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits until the device is to stop, for what can't take writes. Cancel-safe.
    pub fn stopped(&self) -> impl Future<Output = ()> + use<> {
        self.stop.clone().cancelled_owned()
    }

    /// Whether the gateway is about to stop: for loops that have no time to wait for [`DeviceIo::next`].
    pub fn stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Takes a write over: its values become raw ones. What can't be done is answered here.
    fn accept(&mut self, mut write: Write) -> Option<Write> {
        let values = self.tape.takes_writes().then(|| write.values.clone());
        let refusal = if time::uptime() > write.deadline {
            Some(WriteError::Expired)
        } else {
            let rules = &self.rules;
            let raw = write.values.iter().map(|(name, value)| {
                let rules = rules.get(name).ok_or_else(|| format!("there is no point `{name}`"))?;
                Ok((name.clone(), rules.raw(value)?))
            });
            match raw.collect::<Result<Vec<_>, String>>() {
                Ok(raw) => {
                    write.values = raw;
                    None
                }
                Err(text) => Some(WriteError::Failed(text)),
            }
        };
        let Some(error) = refusal else {
            self.open = Some((write.ticket, false));
            self.taken = values;
            return Some(write);
        };
        self.tell(Answer::Ended { ticket: write.ticket, result: Err(error) });
        None
    }

    /// From here on the write may have an effect: call it right before the first byte or level.
    ///
    /// # Errors
    /// When its deadline has passed: do nothing then but [`DeviceIo::answer`] with this error.
    pub fn begin(&mut self, write: &Write) -> Result<(), WriteError> {
        if time::uptime() > write.deadline {
            return Err(WriteError::Expired);
        }
        self.open = Some((write.ticket, true));
        self.put_write_on_tape(write.timeout);
        self.tell(Answer::Began { ticket: write.ticket });
        Ok(())
    }

    /// A write is over: the raw values as read back, or as written where the device can't be asked. On success each
    /// value becomes a reading with the cause of the write.
    pub async fn answer(&mut self, write: Write, result: Result<Vec<(PointName, Value)>, WriteError>) {
        let cooked = match result {
            Err(error) => Err(error),
            Ok(raw) => {
                let mut values = Vec::with_capacity(raw.len());
                for (point, raw) in raw {
                    let cause = write.cause.clone();
                    let value = self.rules.get(&point).and_then(|rules| rules.cook(&raw).value);
                    self.output(&point, &raw, cause).await;
                    values.extend(value.map(|value| (point, value)));
                }
                Ok(values)
            }
        };
        self.open = None;
        self.tell(Answer::Ended { ticket: write.ticket, result: cooked });
    }

    /// The driver ended: a write that it had in hand gets its answer, what waits is refused, and the next value of
    /// each point is news.
    pub(super) fn settle(&mut self, error: &DeviceError) {
        if let Some((ticket, began)) = self.open.take() {
            let error = if began {
                WriteError::Unknown(format!("the device was lost during the write: {error}"))
            } else {
                WriteError::Failed(error.to_string())
            };
            self.tell(Answer::Ended { ticket, result: Err(error) });
        }
        self.forget();
    }

    /// Refuses the writes that come while the device is away, for this long. True: the gateway stops.
    pub(super) async fn refuse_for(&mut self, pause: Duration, why: &DeviceError) -> bool {
        let end = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return true,
                () = tokio::time::sleep_until(end) => return false,
                write = self.writes.recv() => match write {
                    None => return true,
                    Some(write) => {
                        let result = Err(WriteError::Failed(why.to_string()));
                        self.tell(Answer::Ended { ticket: write.ticket, result });
                    }
                },
            }
        }
    }

    /// Answers have as many places as there may be writes under way, so one always fits; the router's own time-out
    /// covers the rest.
    fn tell(&self, answer: Answer) {
        if let Err(error) = self.answers.try_send(answer) {
            tracing::error!(DEVICE = %self.device, "an answer to a command was dropped: {error}");
        }
    }

    fn rules_of(&mut self, point: &PointName) -> Option<&mut Rules> {
        let rules = self.rules.get_mut(point);
        debug_assert!(rules.is_some(), "a driver reports only points of its own");
        rules
    }

    fn next_due(&self, now: Duration) -> Option<Duration> {
        let held = self.allowance.next_due(now);
        let told = (!self.lost.is_empty()).then_some(self.tell_at);
        let ready = (!self.ready.is_empty()).then_some(now);
        self.rules.values().filter_map(Rules::next_due).chain(held).chain(told).chain(ready).min()
    }

    /// Sends what is due. Cancel-safe: what was not sent yet stays ready.
    async fn send_due(&mut self) {
        let now = time::now();
        if now.uptime >= self.tell_at {
            self.tell_lost(now.uptime);
        }
        for (name, rules) in &mut self.rules {
            let due = rules.due(now);
            if let Some(came) = rules.came() {
                self.others.show(came.reading(&self.device, name, now));
            }
            if let Some((cooked, at)) = due {
                let (cooked, coalesced) = self.allowance.offer(name, cooked, at);
                self.ready.extend(cooked.map(|cooked| (name.clone(), cooked, at, None)));
                if coalesced {
                    *self.lost.entry(Some(name.clone())).or_default() += 1;
                }
            }
        }
        while let Some((point, cooked, taken)) = self.allowance.pop(now.uptime) {
            self.ready.push_back((point, cooked, taken, None));
        }
        self.send_ready().await;
    }

    /// At the stop: what the rules or `max_rate` still hold back goes out as it is.
    async fn send_held(&mut self) {
        for (name, rules) in &mut self.rules {
            self.ready.extend(rules.take_held(time::now()).map(|(cooked, at)| (name.clone(), cooked, at, None)));
        }
        while let Some((point, cooked, at)) = self.allowance.take_waiting() {
            self.ready.push_back((point, cooked, at, None));
        }
        self.send_ready().await;
    }

    fn tell_lost(&mut self, now: Duration) {
        self.tell_at = now + TELL_EVERY;
        while let Some((point, count)) = self.lost.pop_first() {
            let arrival = Arrival::Lost { device: self.device.clone(), point: point.clone(), count };
            if self.arrivals.try_send(arrival).is_err() {
                // No room: it is told with the next ones.
                self.lost.insert(point, count);
                return;
            }
        }
    }

    /// Behind the driver's end at the stop: what it reported last and is still held back, and what was lost since it was
    /// last told.
    pub(super) async fn tell_the_last(&mut self) {
        self.send_held().await;
        while let Some((point, count)) = self.lost.pop_first() {
            let Ok(place) = self.arrivals.reserve().await else { return };
            place.send(Arrival::Lost { device: self.device.clone(), point, count });
        }
    }

    async fn pass(&mut self, point: &PointName, cooked: Cooked, at: Timestamp) {
        let (cooked, coalesced) = self.allowance.offer(point, cooked, at);
        if coalesced {
            self.lost(Some(point), 1);
        }
        if let Some(cooked) = cooked {
            self.send(point, cooked, at, None).await;
        }
    }

    /// Sends behind what is ready already. Where the caller gives up half-way, it goes out with the next one.
    async fn send(&mut self, point: &PointName, cooked: Cooked, at: Timestamp, cause: Option<Cause>) {
        self.ready.push_back((point.clone(), cooked, at, cause));
        self.send_ready().await;
    }

    pub(super) async fn send_ready(&mut self) {
        while !self.ready.is_empty() {
            // A place first, then the reading: one that waits for a place is not lost with this future.
            let Ok(place) = self.arrivals.reserve().await else {
                // The intake ends after the drivers; where it is gone, so is the gateway.
                tracing::debug!(DEVICE = %self.device, "readings came after the end of the intake");
                return self.ready.clear();
            };
            let Some((point, cooked, timestamp, cause)) = self.ready.pop_front() else { return };
            let Cooked { value, quality, passed } = cooked;
            let cause = cause.or(passed.map(Cause::Limit));
            let device = self.device.clone();
            let unit = self.rules.get(&point).and_then(|rules| rules.point().unit.clone());
            place.send(Arrival::Reading(Reading { device, point, timestamp, value, unit, quality, cause }));
        }
    }
}

/// However a device ends, a write that it has, and those that wait for it, get their answers.
impl Drop for DeviceIo {
    fn drop(&mut self) {
        self.tape.stop();
        let error = DeviceError::Lost("it was stopped".to_owned());
        if self.open.is_some() {
            self.settle(&error);
        }
        self.writes.close();
        while let Ok(write) = self.writes.try_recv() {
            self.tell(Answer::Ended { ticket: write.ticket, result: Err(WriteError::Failed(error.to_string())) });
        }
    }
}

/// Waits until then, by `CLOCK_BOOTTIME`; for ever without.
pub(super) async fn sleep_until(due: Option<Duration>, now: Duration) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(now)).await,
        None => std::future::pending().await,
    }
}

/// Waits until then; for ever without.
pub(super) async fn at(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
