//! Totals of the kernel's counters, over starts.

use std::fs;
use std::path::Path;

use crate::device::testing::Rig;
use crate::model::{Quality, Value};

/// The first reading of a start, and that the device ends.
async fn first(folder: &Path, counter: &str) -> (Quality, Option<Value>) {
    let path = folder.join(counter).join("count");
    let text = format!("[device.c]\nkind = \"counter\"\n[device.c.point.x]\npath = {path:?}\n");
    let mut rig = Rig::start_in(&text, &folder.join("state"));
    let reading = rig.reading().await;
    rig.stop().await;
    (reading.quality, reading.value)
}

fn count(folder: &Path, counter: &str, count: u64) {
    fs::create_dir_all(folder.join(counter)).unwrap();
    fs::write(folder.join(counter).join("count"), format!("{count}\n")).unwrap();
}

#[tokio::test]
async fn the_number_of_another_counter_is_not_taken_for_this_ones() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    count(folder, "a", 1000);
    count(folder, "b", 50_000);
    assert_eq!(first(folder, "a").await, (Quality::Good, Some(Value::Int(0))), "it begins here");
    count(folder, "a", 1010);
    assert_eq!(first(folder, "a").await, (Quality::Good, Some(Value::Int(10))), "it went on meanwhile");
    assert_eq!(first(folder, "b").await, (Quality::Stale, Some(Value::Int(10))), "nobody knows what came between");
    count(folder, "b", 50_005);
    assert_eq!(first(folder, "b").await, (Quality::Good, Some(Value::Int(15))));
}
