//! A gate between the agent and its broker: it lets through, or it does not, and counts what is under way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What is shared with the gate's threads.
#[derive(Debug, Default)]
struct Shared {
    open: AtomicBool,
    ended: AtomicBool,
    connections: AtomicUsize,
    /// The last connection.
    last: Mutex<Arc<Counts>>,
    lines: Mutex<Vec<TcpStream>>,
}

/// What one connection carried.
#[derive(Debug, Default)]
struct Counts {
    /// What comes from the broker is lost in the gate.
    deaf: AtomicBool,
    publishes: AtomicUsize,
    acks: AtomicUsize,
    /// Bytes that went to the broker while nothing came back, of whatever protocol.
    unheard: AtomicUsize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Gate {
    /// An open gate to this port.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let shared = Arc::new(Shared { open: AtomicBool::new(true), ..Shared::default() });
        let gate = Gate { port: listener.local_addr().unwrap().port(), shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever comes to a closed gate is turned away.
                if !shared.open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let counts = Arc::new(Counts::default());
                *shared.last.lock().unwrap() = Arc::clone(&counts);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let keep = |stream: &TcpStream| stream.try_clone().unwrap();
                shared.lines.lock().unwrap().extend([keep(&near), keep(&far)]);
                carry(keep(&near), keep(&far), 3, Arc::clone(&counts));
                carry(far, near, 4, counts);
            }
        });
        gate
    }

    /// Lets connections through from now on.
    pub(crate) fn open(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }

    /// Lets nobody through, and cuts who is.
    pub(crate) fn close(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
        for line in self.shared.lines.lock().unwrap().drain(..) {
            // It may be gone already.
            drop(line.shutdown(Shutdown::Both));
        }
    }

    /// Loses what comes from the broker, until the next connection: a line that breaks in one direction first.
    pub(crate) fn deafen(&self) {
        self.last().deaf.store(true, Ordering::SeqCst);
    }

    /// Bytes that went to the broker since the gate is deaf, whatever is spoken through it.
    pub(crate) fn unheard(&self) -> usize {
        self.last().unheard.load(Ordering::SeqCst)
    }

    fn last(&self) -> Arc<Counts> {
        Arc::clone(&self.shared.last.lock().unwrap())
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Acknowledgements that came back, on the last connection.
    pub(crate) fn acknowledged(&self) -> usize {
        self.last().acks.load(Ordering::SeqCst)
    }

    /// Publishes that went to the broker and whose acknowledgement did not come back, on the last connection.
    pub(crate) fn under_way(&self) -> usize {
        let last = self.last();
        last.publishes.load(Ordering::SeqCst).saturating_sub(last.acks.load(Ordering::SeqCst))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.close();
        // Wakes the listener, so that its thread ends.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Carries bytes one way, and counts packets of this type: PUBLISH (3) or PUBACK (4).
fn carry(mut from: TcpStream, mut to: TcpStream, packet: u8, counts: Arc<Counts>) {
    std::thread::spawn(move || {
        drop((from.set_nodelay(true), to.set_nodelay(true)));
        let mut buffer = vec![0; 64 * 1024];
        let mut packets = Packets::default();
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if packet == 4 && counts.deaf.load(Ordering::SeqCst) {
                continue;
            }
            if counts.deaf.load(Ordering::SeqCst) {
                counts.unheard.fetch_add(count, Ordering::SeqCst);
            }
            let counter = if packet == 3 { &counts.publishes } else { &counts.acks };
            counter.fetch_add(packets.count(&buffer[..count], packet), Ordering::SeqCst);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    });
}

/// Finds MQTT's packets in a stream of bytes (MQTT 3.1.1, section 2.2).
#[derive(Debug, Default)]
struct Packets {
    /// Bytes of the current packet's body that are still to come.
    skip: usize,
    /// The header of the current packet as far as it came: its type, the length so far, and its shift.
    header: Option<(u8, usize, u32)>,
}

impl Packets {
    fn count(&mut self, mut bytes: &[u8], wanted: u8) -> usize {
        let mut found = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((&byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            self.header = match self.header {
                None => Some((byte >> 4, 0, 0)),
                Some((kind, length, shift)) => {
                    // What goes through need not be MQTT.
                    let length = length | usize::from(byte & 0x7f).wrapping_shl(shift);
                    if byte & 0x80 == 0 {
                        found += usize::from(kind == wanted);
                        self.skip = length;
                        None
                    } else {
                        Some((kind, length, shift.wrapping_add(7)))
                    }
                }
            };
        }
        found
    }
}
