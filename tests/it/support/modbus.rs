//! Slaves made of libmodbus, and the line between them and the agent, which the test plays: a pty is point to point, so a
//! thread carries what the agent says to the slave that it is for, and what that says back, with the faults that a line
//! has. It records all of it. The others hear only what is said to all: a slave of libmodbus that hears a question to
//! another one takes what comes next for the answer to that, and so misses its own question where that slave is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::{Killed, free_port, wait};

/// What a slave that is late takes for the question behind: others are asked meanwhile.
const NEXT: Duration = Duration::from_millis(50);

/// What the line does to what it carries.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// Units that hear nothing.
    pub(crate) dead: BTreeSet<u8>,
    /// Each so many answers one comes later than this.
    pub(crate) late: Option<(usize, Duration)>,
    /// Each so many answers one never comes.
    pub(crate) lost: Option<usize>,
    /// What is refused is refused so much later.
    pub(crate) late_refusals: Option<Duration>,
    /// Each so many answers one has a wrong bit.
    pub(crate) flip: Option<usize>,
    /// There is noise before and behind each answer.
    pub(crate) noise: bool,
    /// Answers to writes are lost.
    pub(crate) deaf_to_writes: bool,
    /// Answers to writes come so much later.
    pub(crate) late_writes: Option<Duration>,
    /// Slaves say nothing to a question for one of these registers, as some do where they have none.
    pub(crate) ignored: BTreeSet<u16>,
    /// What the agent says comes back to it first, as on a pair whose receiver stays on.
    pub(crate) echo: bool,
    /// How long an answer takes at this rate, besides 2 ms for the slave; without it, no time.
    pub(crate) baud_rate: Option<u32>,
}

/// What went over the line.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) at: Instant,
    /// The agent's, or an answer as the slave said it.
    pub(crate) is_request: bool,
    pub(crate) bytes: Vec<u8>,
    /// Of an answer: what the line did to it.
    pub(crate) fate: &'static str,
}

impl Carried {
    pub(crate) fn unit(&self) -> u8 {
        self.bytes[0]
    }

    pub(crate) fn is_write(&self) -> bool {
        [5, 6, 15, 16].contains(&self.bytes[1])
    }
}

/// A line with slaves.
#[derive(Debug)]
pub(crate) struct Line {
    link: PathBuf,
    shared: Arc<Mutex<Shared>>,
    carrier: Option<JoinHandle<()>>,
    _slaves: Vec<Killed>,
}

#[derive(Debug)]
struct Shared {
    faults: Faults,
    /// So many questions are refused yet, by exception 2.
    refusals: usize,
    record: Vec<Carried>,
    /// The agent's end; `None`: pulled out.
    agent: Option<File>,
    over: bool,
}

impl Line {
    /// A line whose near end is this symbolic link, with slaves of these units.
    pub(crate) fn new(link: &Path, units: &[u8]) -> Self {
        let program = compiled(link.parent().unwrap());
        let mut far_ends = Vec::new();
        let mut slaves = Vec::new();
        for unit in units {
            let (master, path) = pty();
            let mut command = Command::new(&program);
            command.args(["rtu", &path, &unit.to_string()]).stdin(Stdio::null());
            slaves.push(Killed(command.spawn().unwrap()));
            far_ends.push((*unit, master));
        }
        for (_, master) in &mut far_ends {
            let mut ready = Vec::new();
            wait::until("libmodbus to listen", || {
                read_into(master, &mut ready);
                !ready.is_empty()
            });
        }
        let (master, path) = pty();
        std::os::unix::fs::symlink(path, link).unwrap();
        let shared =
            Shared { faults: Faults::default(), refusals: 0, record: Vec::new(), agent: Some(master), over: false };
        let shared = Arc::new(Mutex::new(shared));
        let carrier = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || carry(&shared, &mut far_ends)
        });
        Line { link: link.to_owned(), shared, carrier: Some(carrier), _slaves: slaves }
    }

    /// Where the agent finds it.
    pub(crate) fn path(&self) -> &str {
        self.link.to_str().unwrap()
    }

    /// From now on the line does this.
    pub(crate) fn set(&self, faults: Faults) {
        self.shared.lock().unwrap().faults = faults;
    }

    /// The next questions are refused, each by exception 2, whatever they ask for.
    pub(crate) fn refuse(&self, count: usize) {
        self.shared.lock().unwrap().refusals = count;
    }

    /// All that went over it so far.
    pub(crate) fn record(&self) -> Vec<Carried> {
        self.shared.lock().unwrap().record.clone()
    }

    /// What the agent asked to be written.
    pub(crate) fn writes(&self) -> Vec<Vec<u8>> {
        let writes = self.record().into_iter().filter(|carried| carried.is_request && carried.is_write());
        writes.map(|carried| carried.bytes).collect()
    }

    /// Forgets what went over it.
    pub(crate) fn forget(&self) {
        self.shared.lock().unwrap().record.clear();
    }

    /// A converter from TCP to this line, which knows nothing of what it carries; its port.
    pub(crate) fn converter(&self) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut line = File::options().read(true).write(true).open(&self.link).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut back) = (stream.unwrap(), line.try_clone().unwrap());
                let mut there = stream.try_clone().unwrap();
                std::thread::spawn(move || std::io::copy(&mut back, &mut there));
                // Either ends with the test.
                drop(std::io::copy(&mut stream, &mut line));
            }
        });
        port
    }

    pub(crate) fn unplug(&self) {
        self.shared.lock().unwrap().agent = None;
    }

    pub(crate) fn plug(&self) {
        let (master, path) = pty();
        drop(std::fs::remove_file(&self.link));
        std::os::unix::fs::symlink(path, &self.link).unwrap();
        self.shared.lock().unwrap().agent = Some(master);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.lock().unwrap().over = true;
        drop(self.carrier.take().map(JoinHandle::join));
    }
}

/// A slave by TCP, and its port.
pub(crate) fn tcp_slave(folder: &Path, unit: u8) -> (Killed, u16) {
    let (program, port) = (compiled(folder), free_port());
    let mut command = Command::new(program);
    command.args(["tcp", &port.to_string(), &unit.to_string()]).stdin(Stdio::null());
    let slave = Killed(command.spawn().unwrap());
    wait::until("the slave to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (slave, port)
}

fn compiled(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("modbus_server.c"), folder.join("modbus_server"));
    if !program.exists() {
        std::fs::write(&source, include_str!("modbus_server.c")).unwrap();
        let mut command = Command::new("cc");
        command.args(["-O1", "-I/usr/include/modbus", "-o"]).args([&program, &source]).arg("-lmodbus");
        assert!(command.status().expect("cc is installed").success(), "is libmodbus-dev installed?");
    }
    program
}

/// A pty in raw mode: the end that is kept, and the path of the other one.
fn pty() -> (File, String) {
    let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let mut attributes = tcgetattr(&master).unwrap();
    attributes.make_raw();
    tcsetattr(&master, OptionalActions::Now, &attributes).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().to_str().unwrap().to_owned();
    rustix::io::ioctl_fionbio(&master, true).unwrap();
    (File::from(master), path)
}

/// The line itself, until it is over.
fn carry(shared: &Mutex<Shared>, slaves: &mut [(u8, File)]) {
    let mut heard = Vec::new();
    let mut due: Vec<(Instant, Vec<u8>)> = Vec::new();
    let mut answers = 0usize;
    // A slave answers one question after the other.
    let mut busy: BTreeMap<u8, Instant> = BTreeMap::new();
    loop {
        let faults = {
            let mut shared = shared.lock().unwrap();
            if shared.over {
                return;
            }
            let faults = shared.faults.clone();
            let Some(agent) = &mut shared.agent else {
                drop(shared);
                heard.clear();
                due.clear();
                take_time(Duration::from_millis(1));
                continue;
            };
            due.sort_by_key(|(at, _)| *at);
            while due.first().is_some_and(|(at, _)| *at <= Instant::now()) {
                // Nobody may be there to hear it.
                drop(agent.write_all(&due.remove(0).1));
            }
            read_into(agent, &mut heard);
            faults
        };
        let Some(request) = take_request(&mut heard) else {
            take_time(Duration::from_micros(300));
            continue;
        };
        let asked = Instant::now();
        note(shared, true, &request, "");
        let unit = request[0];
        if faults.echo {
            due.push((asked, request.clone()));
        }
        let is_read = (1..=4).contains(&request[1]);
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        if is_read && (0..word(4)).any(|offset| faults.ignored.contains(&(word(2) + offset))) {
            continue;
        }
        for (other, slave) in slaves.iter_mut() {
            if (*other == unit || unit == 0) && !faults.dead.contains(other) {
                slave.write_all(&request).unwrap();
            }
        }
        let Some((_, slave)) = slaves.iter_mut().find(|(other, _)| *other == unit && !faults.dead.contains(other))
        else {
            continue;
        };
        let mut answer = answer_of(slave, &request);
        let is_refused = is_read && {
            let mut shared = shared.lock().unwrap();
            let is_refused = shared.refusals > 0;
            shared.refusals = shared.refusals.saturating_sub(1);
            is_refused
        };
        if is_refused {
            answer = with_crc(vec![unit, request[1] | 0x80, 2]);
        }
        let on_line = faults.baud_rate.map_or(Duration::ZERO, |rate| {
            let bytes = u32::try_from(request.len() + answer.len()).unwrap();
            Duration::from_millis(2) + Duration::from_secs(1) * (11 * bytes) / rate
        });
        let whole = answer.clone();
        answers += 1;
        let nth = |every: Option<usize>| every.is_some_and(|every| answers.is_multiple_of(every));
        let mut at = asked + on_line;
        let is_write = [5, 6, 15, 16].contains(&request[1]);
        let fate = if faults.deaf_to_writes && is_write {
            answer.clear();
            "lost"
        } else if let Some(late) = faults.late_writes.filter(|_| is_write) {
            at += late;
            "late"
        } else if nth(faults.late.map(|(every, _)| every)) {
            at += faults.late.unwrap().1;
            "late"
        } else if let Some(late) = faults.late_refusals.filter(|_| is_refused) {
            at += late;
            "late"
        } else if nth(faults.lost) {
            answer.clear();
            "lost"
        } else if nth(faults.flip) {
            let place = answer.len() - 3;
            answer[place] ^= 0x10;
            "damaged"
        } else {
            "whole"
        };
        if faults.noise && !answer.is_empty() {
            // With the unit and the function in it, as noise may have.
            answer = [&[0xff, 0x00, unit, request[1]], &answer[..], &[unit, 0x7f]].concat();
        }
        if let Some(until) = busy.get(&unit).filter(|until| **until > asked) {
            at = at.max(*until + NEXT);
        }
        busy.insert(unit, at);
        note(shared, false, &whole, fate);
        due.push((at, answer));
    }
}

/// With the check of Modbus behind it (MODBUS over Serial Line V1.02, 6.2.2), as the standard computes it.
fn with_crc(mut frame: Vec<u8>) -> Vec<u8> {
    let crc = frame.iter().fold(0xffffu16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 })
    });
    frame.extend(crc.to_le_bytes());
    frame
}

fn note(shared: &Mutex<Shared>, is_request: bool, bytes: &[u8], fate: &'static str) {
    let carried = Carried { at: Instant::now(), is_request, bytes: bytes.to_vec(), fate };
    shared.lock().unwrap().record.push(carried);
}

/// A whole request off the front.
fn take_request(heard: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = match heard.get(1)? {
        15 | 16 => 9 + usize::from(*heard.get(6)?),
        _ => 8,
    };
    (heard.len() >= length).then(|| heard.drain(..length).collect())
}

/// What a slave says to that; nobody waits for it in vain, since it lives.
fn answer_of(slave: &mut File, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    wait::until("libmodbus to answer", || {
        read_into(slave, &mut answer);
        let length = match answer.get(1) {
            Some(function) if function & 0x80 != 0 => 5,
            Some(1..=4) => 5 + usize::from(*answer.get(2).unwrap_or(&255)),
            _ => 8,
        };
        answer.len() >= length
    });
    assert_eq!(answer[0], request[0]);
    answer
}

fn read_into(file: &mut File, bytes: &mut Vec<u8>) {
    let mut chunk = [0; 512];
    while let Ok(count @ 1..) = file.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Time in which others go on: what a slave takes, not what a test waits for.
pub(crate) fn take_time(time: Duration) {
    let nothing: &mut [PollFd<'_>] = &mut [];
    poll(nothing, Some(&Timespec::try_from(time).unwrap())).ok();
}
