//! Counts what arrives at the broker, in a thread of the benchmark.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

use crate::wait;

/// A subscriber that counts.
pub(crate) struct Counter {
    count: Arc<AtomicUsize>,
    client: Client,
}

impl Counter {
    /// Subscribes, and counts from then on.
    pub(crate) fn start(port: u16) -> Self {
        let (client, mut connection) = Client::new(MqttOptions::new("counter", "127.0.0.1", port), 10);
        connection.eventloop.network_options.set_tcp_nodelay(true);
        let (count, ready) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, subscribed) = (Arc::clone(&count), Arc::clone(&ready));
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::Publish(_))) => drop(counted.fetch_add(1, Ordering::SeqCst)),
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(subscribed.fetch_add(1, Ordering::SeqCst)),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        client.subscribe("sluicegate/g/meter/n", QoS::AtMostOnce).unwrap();
        wait::until("the counter to be subscribed", || ready.load(Ordering::SeqCst) > 0);
        Counter { count, client }
    }

    /// Messages so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // The thread ends with the connection; a broker that is gone ended it already.
        drop(self.client.disconnect());
    }
}
