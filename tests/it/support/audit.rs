//! Completeness, order and copies, from nothing but what is on the wire and a counter that the sensor puts into it.

use std::collections::{HashMap, HashSet};

use super::Heard;

/// What an outside observer sees of one counting point.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// First copies of the sensor's own counter, in the order in which they came.
    pub(crate) values: HashSet<i64>,
    pub(crate) duplicates: usize,
    /// The last first copy of each stream.
    last: HashMap<bool, (u64, u64)>,
}

impl Audit {
    /// Each stream has to come in order.
    pub(crate) fn of(heard: &[Heard], topic: &str) -> Self {
        Self::except(heard, topic, &[])
    }

    /// The same, but for these values, which the broker wanted to have later.
    pub(crate) fn except(heard: &[Heard], topic: &str, later: &[i64]) -> Self {
        let mut audit = Audit::default();
        for heard in heard.iter().filter(|heard| heard.topic == topic && !heard.retained) {
            audit.take(&heard.json(), later);
        }
        audit
    }

    fn take(&mut self, reading: &serde_json::Value, later: &[i64]) {
        if reading["repeat"] == true {
            return;
        }
        let value = reading["value"].as_i64().unwrap();
        if !self.values.insert(value) {
            self.duplicates += 1;
            return;
        }
        if later.contains(&value) {
            return;
        }
        let number = (reading["epoch"].as_u64().unwrap(), reading["seq"].as_u64().unwrap());
        let stream = reading["late"] == true;
        if let Some(last) = self.last.insert(stream, number) {
            assert!(last < number, "{number:?} came after {last:?} in the stream late={stream}");
        }
    }
}
