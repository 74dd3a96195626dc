//! Totals of the kernel's counters, over starts.

use std::fs;
use std::path::Path;

use crate::device::testing::{Rig, faults};
use crate::model::{Answer, Quality, Value};

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

#[tokio::test]
async fn a_total_is_set_to_the_pulse_that_is_nearest_to_what_the_meter_shows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    count(folder, "a", 1000);
    // 450 pulses a kWh.
    let text = format!(
        "[device.c]\nkind = \"counter\"\n[device.c.point.x]\npath = {:?}\nsettable = true\ntype = \"float\"\n\
         scale = 0.00222222\nround = 3\n",
        folder.join("a/count")
    );
    let mut rig = Rig::start_in(&text, &folder.join("state"));
    assert_eq!(rig.value().await.1, Some(Value::Float(0.0)));
    let Answer::Ended { result, .. } = rig.write(&[("x", Value::Float(4711.501))]).await else { panic!("no end") };
    let values = result.unwrap().into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    assert_eq!(values, [Value::Float(4711.502)]);
    assert_eq!(rig.value().await.1, Some(Value::Float(4711.502)));
    for wrong in [-1.0, 3e13] {
        let Answer::Ended { result, .. } = rig.write(&[("x", Value::Float(wrong))]).await else { panic!("no end") };
        let text = result.unwrap_err().to_string();
        assert!(text.ends_with("is no number of pulses: expected 0 to 2^53"), "{text}");
    }
    rig.stop().await;
}

#[test]
fn a_total_has_no_safe_value() {
    let text = "[device.c]\nkind = \"counter\"\n[device.c.point.x]\npath = \"/a/count\"\nsettable = true\ntype = \"int\"\nsafe = 0\n";
    let expected = "point.x.safe: a total is no output, and would begin there again after a crash: remove it";
    assert_eq!(faults(text), [expected]);
}
