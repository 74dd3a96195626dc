//! For the fuzzer in `tests/fuzz`: a queue on files that nobody wrote. Checksums are all right in this build, or hardly
//! any input would come further than to them.

use super::*;
use crate::disk::fake::Fake;
use crate::model::{DeviceName, PointName, Quality, Rate, Value};

/// The files whose content is given, in this order, each as a length of 2 bytes and so many bytes.
const FILES: [&str; 6] = [
    "telemetry/0000000100000001.seg",
    "telemetry/0000000100000002.seg",
    "telemetry/cursor",
    "gaps.0",
    "gaps.1",
    "alarm/0000000100000001.seg",
];

/// Opens the queue, reads it, writes to it, drops of it, closes it, and opens it again.
///
/// # Panics
/// When the queue is wrong about itself.
pub fn open(mut bytes: &[u8]) {
    let disk = Fake::new();
    for name in FILES {
        let Some((length, rest)) = bytes.split_first_chunk() else { break };
        let (content, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        disk.replace(name, content.to_vec());
        bytes = rest;
    }
    let mut config = Config::default();
    config.telemetry.max_bytes = crate::model::Size(64 << 10);
    config.replay.rate = Rate::Off;
    let mut previous = None;
    for starts in [1_u64 << 20, (1 << 20) + 1] {
        let found = Found::open(&config, Box::new(disk.clone()));
        let opened = Opened { config: config.clone(), found };
        let epoch = starts << 16;
        if opened.highest_epoch() >= epoch {
            return;
        }
        let (queue, mut keeper, _) = opened.begin(epoch, previous, starts, watch::channel(Problems::new()).0);
        let mut reader = queue.reader(&config);
        let mut now = time::now();
        reader.begin();
        for turn in 0..4 {
            for value in 0..20 {
                let reading = Reading {
                    device: DeviceName::new("d").expect("a name"),
                    point: PointName::new("p").expect("a name"),
                    timestamp: now,
                    value: Some(Value::Int(value)),
                    unit: None,
                    quality: Quality::Good,
                    cause: None,
                };
                queue.push(Lane::Telemetry, &Body::Reading(reading), 0);
            }
            keeper.round(&now);
            while let Some(record) = reader.next(now.uptime) {
                if turn % 2 == 1 {
                    reader.acked(record.lane, record.number);
                }
            }
            _ = reader.next_gap(now.uptime);
            now.uptime += Duration::from_secs(40);
        }
        for status in queue.status() {
            let Totals { published, dropped_bytes, dropped_age, dropped_memory, dropped_disk, damaged, refused } =
                status.totals;
            let ended = published + dropped_bytes + dropped_age + dropped_memory + dropped_disk + damaged + refused;
            assert_eq!(status.at_start + status.next_seq - 1, ended + status.depth, "{status:?}");
        }
        keeper.close();
        previous = Some(Previous { epoch, clean: true });
    }
}
