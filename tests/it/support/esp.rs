//! Devices of the ESP8266 class, as a broker sees them: a client of MQTT 3.1.1 in a few packets, and on it a Tasmota plug
//! and an ESPHome node, with the topics that their documents give.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait;

/// So long a device waits for the broker before it takes the connection for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection of a device.
#[derive(Debug)]
struct EspClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u16,
    inbox: VecDeque<(String, String)>,
}

impl EspClient {
    /// Connects, with a Last Will that the broker keeps.
    fn connect(port: u16, id: &str, will: Option<(&str, &str)>) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(5)))?;
        let mut client = EspClient { stream, buffer: Vec::new(), next_id: 0, inbox: VecDeque::new() };
        // Clean session; a will at QoS 1, retained. Keep-alive 60 s: no test lasts that long without a message.
        let flags = 0x02 | if will.is_some() { 0x2c } else { 0 };
        let mut body = [text("MQTT"), vec![4, flags, 0, 60], text(id)].concat();
        for part in will.into_iter().flat_map(|(topic, payload)| [topic, payload]) {
            body.extend(text(part));
        }
        client.send(0x10, &body)?;
        client.wait_for(|kind, body| kind >> 4 == 2 && body.get(1) == Some(&0))?;
        Ok(client)
    }

    /// Subscribes at QoS 1.
    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let id = self.id();
        self.send(0x82, &[id.to_vec(), text(filter), vec![1]].concat())?;
        self.wait_for(|kind, body| kind >> 4 == 9 && body.get(..2) == Some(&id))
    }

    /// Publishes at QoS 1, and waits until the broker has it.
    fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> io::Result<()> {
        let id = self.id();
        self.send(0x32 | u8::from(retain), &[text(topic), id.to_vec(), payload.as_bytes().to_vec()].concat())?;
        self.wait_for(|kind, body| kind >> 4 == 4 && body.get(..2) == Some(&id))
    }

    /// The next message, where one is there.
    fn hear(&mut self) -> io::Result<Option<(String, String)>> {
        if self.inbox.is_empty() {
            self.take()?;
        }
        Ok(self.inbox.pop_front())
    }

    /// Says farewell: no Last Will.
    fn part(mut self) {
        drop(self.send(0xe0, &[]));
    }

    fn id(&mut self) -> [u8; 2] {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        self.next_id.to_be_bytes()
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![kind];
        let mut length = body.len();
        loop {
            let digit = u8::try_from(length % 128).unwrap();
            length /= 128;
            packet.push(if length > 0 { digit | 0x80 } else { digit });
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.stream.write_all(&packet)
    }

    fn wait_for(&mut self, wanted: impl Fn(u8, &[u8]) -> bool) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some((kind, body)) = self.take()?
                && wanted(kind, &body)
            {
                return Ok(());
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }

    /// The next packet, where one is there; a message goes into the inbox.
    fn take(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if !self.is_whole() {
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        let Some((start, end)) = self.bounds() else { return Ok(None) };
        if self.buffer.len() < end {
            return Ok(None);
        }
        let packet: Vec<u8> = self.buffer.drain(..end).collect();
        let (kind, body) = (packet[0], packet[start..].to_vec());
        if kind >> 4 == 3 {
            let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8_lossy(&body[2..topic_end]).into_owned();
            let mut payload = &body[topic_end..];
            if kind & 0x06 != 0 {
                let (id, rest) = payload.split_at(2);
                self.send(0x40, id)?;
                payload = rest;
            }
            self.inbox.push_back((topic, String::from_utf8_lossy(payload).into_owned()));
        }
        Ok(Some((kind, body)))
    }

    fn is_whole(&self) -> bool {
        self.bounds().is_some_and(|(_, end)| self.buffer.len() >= end)
    }

    /// Where the body of the first packet begins and ends.
    fn bounds(&self) -> Option<(usize, usize)> {
        let (mut length, mut place) = (0, 1);
        loop {
            let byte = *self.buffer.get(place)?;
            length |= usize::from(byte & 0x7f) << (7 * (place - 1));
            place += 1;
            if byte & 0x80 == 0 {
                return Some((place, place + length));
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// What a device does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Obeys {
    /// What it is told, and says so.
    #[default]
    Yes,
    /// It says that it is off, whatever it is told.
    No,
    /// It says nothing.
    Silent,
}

/// What is shared with a device's thread.
#[derive(Debug, Default)]
struct Shared {
    /// It is switched on, or awake.
    runs: AtomicBool,
    /// It counts.
    counts: AtomicBool,
    /// The last number that the broker has acknowledged.
    acked: AtomicI64,
    ended: AtomicBool,
    connected: AtomicBool,
    obeys: Mutex<Obeys>,
    /// Commands, as they came.
    told: Mutex<Vec<(String, String)>>,
}

/// A device in a thread of its own, which connects again and again while it runs. It counts, and repeats a number until
/// the broker has acknowledged it.
#[derive(Debug)]
pub(crate) struct Esp {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Esp {
    /// A plug with Tasmota, switched on: `tele/plug/LWT`, `…/SENSOR`, `…/STATE`, `stat/plug/RESULT`, `…/POWER`,
    /// `cmnd/plug/POWER`.
    pub(crate) fn tasmota(port: u16) -> Self {
        let esp = Self::start(port, tasmota);
        esp.shared.runs.store(true, Ordering::SeqCst);
        esp
    }

    /// A node with ESPHome, asleep: `weather/status`, `weather/sensor/count/state`, `weather/switch/heater/state`,
    /// `…/command`.
    pub(crate) fn esphome(port: u16) -> Self {
        Self::start(port, esphome)
    }

    fn start(port: u16, life: fn(u16, &Shared) -> io::Result<()>) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !of_thread.ended.load(Ordering::SeqCst) {
                if of_thread.runs.load(Ordering::SeqCst) {
                    // The broker may be away: that is what is tested.
                    drop(life(port, &of_thread));
                    of_thread.connected.store(false, Ordering::SeqCst);
                }
                pause();
            }
        });
        Esp { shared, thread: Some(thread) }
    }

    /// Switches it on, or wakes it up; or off.
    #[track_caller]
    pub(crate) fn run(&self, runs: bool) {
        self.shared.runs.store(runs, Ordering::SeqCst);
        wait::until("the device to do so", || self.shared.connected.load(Ordering::SeqCst) == runs);
    }

    /// Whether it counts.
    pub(crate) fn count(&self, counts: bool) {
        self.shared.counts.store(counts, Ordering::SeqCst);
    }

    /// The last number that its broker has acknowledged.
    pub(crate) fn acked(&self) -> i64 {
        self.shared.acked.load(Ordering::SeqCst)
    }

    /// Waits until it has counted so much further.
    #[track_caller]
    pub(crate) fn count_on(&self, more: i64) {
        let goal = self.acked() + more;
        wait::until("the device to count on", || self.acked() >= goal);
    }

    /// What it does with commands from now on.
    pub(crate) fn obeys(&self, obeys: Obeys) {
        *self.shared.obeys.lock().unwrap() = obeys;
    }

    /// The commands that it got.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        self.shared.told.lock().unwrap().clone()
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        self.runs.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst)
    }

    /// Publishes the next number.
    fn count(&self, mut publish: impl FnMut(i64) -> io::Result<()>) -> io::Result<()> {
        if self.counts.load(Ordering::SeqCst) {
            let next = self.acked.load(Ordering::SeqCst) + 1;
            publish(next)?;
            self.acked.store(next, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The command that came, and what is said of it.
    fn told(&self, topic: String, payload: &str) -> Option<&'static str> {
        self.told.lock().unwrap().push((topic, payload.to_owned()));
        let asked = if ["1", "ON"].contains(&payload) { "ON" } else { "OFF" };
        match *self.obeys.lock().unwrap() {
            Obeys::Yes => Some(asked),
            Obeys::No => Some("OFF"),
            Obeys::Silent => None,
        }
    }
}

/// As its documents say (Tasmota, "MQTT" and "Counter"), at QoS 1. It ends as a plug that loses power does.
fn tasmota(port: u16, shared: &Shared) -> io::Result<()> {
    let mut client = EspClient::connect(port, "DVES_plug", Some(("tele/plug/LWT", "Offline")))?;
    client.subscribe("cmnd/plug/#")?;
    client.publish("tele/plug/LWT", "Online", true)?;
    client.publish("tele/plug/STATE", r#"{"Time":"2026-11-23T17:00:00","POWER":"OFF","Wifi":{"RSSI":46}}"#, false)?;
    shared.connected.store(true, Ordering::SeqCst);
    while shared.goes_on() {
        while let Some((topic, payload)) = client.hear()? {
            if let Some(power) = shared.told(topic, &payload) {
                client.publish("stat/plug/RESULT", &format!(r#"{{"POWER":"{power}"}}"#), false)?;
                client.publish("stat/plug/POWER", power, false)?;
            }
        }
        shared.count(|n| {
            let sensor = format!(r#"{{"Time":"2026-11-23T17:00:00","COUNTER":{{"C1":{n}}}}}"#);
            client.publish("tele/plug/SENSOR", &sensor, false)
        })?;
        pause();
    }
    Ok(())
}

/// As its documents say (ESPHome, "MQTT Client Component"), at QoS 1: birth, states (retained), will; and before it goes to
/// sleep its farewell.
fn esphome(port: u16, shared: &Shared) -> io::Result<()> {
    let mut client = EspClient::connect(port, "weather-a1b2c3", Some(("weather/status", "offline")))?;
    client.subscribe("weather/switch/heater/command")?;
    client.publish("weather/status", "online", true)?;
    shared.connected.store(true, Ordering::SeqCst);
    shared.count(|n| client.publish("weather/sensor/count/state", &n.to_string(), true))?;
    while shared.goes_on() {
        while let Some((topic, payload)) = client.hear()? {
            if let Some(state) = shared.told(topic, &payload) {
                client.publish("weather/switch/heater/state", state, true)?;
            }
        }
    }
    client.publish("weather/status", "offline", true)?;
    client.part();
    Ok(())
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "a device has a pace of its own")]
    std::thread::sleep(Duration::from_millis(10));
}
