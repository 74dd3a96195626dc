//! Derived points beside the devices that they are made of, as the supervisor runs them.

use super::*;
use crate::device::testing::{Rig, bad, faults, good};

fn check(point: &str, expected: &[&str]) {
    assert_eq!(faults(&format!("[device.d]\nkind = \"derived\"\n[device.d.point.x]\n{point}\n")), expected, "{point}");
}

#[test]
fn a_wrong_point_is_told_at_its_key() {
    check("sum = [\"a/x\", \"b/x\"]", &[]);
    check("integral = \"a/x\"\nper = \"1s\"\nevery = \"10s\"", &[]);
    check("", &["point.x: expected what it is made of: sum, difference, mean, smallest, largest or integral"]);
    check("sum = [\"a/x\"]", &["point.x.sum: expected two points or more, such as [\"a/power\", \"b/power\"]"]);
    check("integral = [\"a/x\", \"b/x\"]", &["point.x.integral: expected one point, such as \"meter/power\""]);
    check(
        "mean = [\"a\", \"b/x\"]",
        &["point.x.mean: `a`: expected the name of a device, a slash, and the name of its point"],
    );
    check(
        "sum = [\"a/x\", \"b/x\"]\nmean = [\"a/x\", \"b/x\"]",
        &["point.x.mean: expected one of them, and `sum` is there too"],
    );
    check("sum = [\"a/x\", \"b/x\"]\nevery = \"1s\"", &["point.x.every: only an integral has it: remove it"]);
    let safe = "point.x.safe: a total is no output, and would begin there again after a crash: remove it";
    check("integral = \"a/x\"\nsettable = true\ntype = \"float\"\nsafe = 0", &[safe]);
    check("integral = \"a/x\"\nsettable = true", &["point.x.type: a writable point needs a `type`: expected float"]);
    check(
        "integral = 7",
        &[
            "point.x.integral: expected text in quotes, or a list of them, found 7",
            "point.x: expected what it is made of: sum, difference, mean, smallest, largest or integral",
        ],
    );
}

const SIM: &str =
    "[device.a]\nkind = \"sim\"\n[device.a.point]\nx = { wave = \"switch\" }\ny = { wave = \"switch\" }\n";

#[tokio::test]
async fn values_are_made_of_what_comes_in_and_of_nothing_that_is_away() {
    let mut source = Rig::start(SIM);
    let mut derived = source.beside(
        "[device.d]\nkind = \"derived\"\n[device.d.point]\nsum = { sum = [\"a/x\", \"a/y\"] }\n\
         most = { largest = [\"a/x\", \"a/y\"] }\n",
    );
    source.online().await;
    source.write(&[("x", Value::Bool(true))]).await;
    source.write(&[("y", Value::Bool(true))]).await;
    let mut expected = vec![good("sum", Value::Float(2.0)), good("most", Value::Float(1.0))];
    while !expected.is_empty() {
        let value = derived.value().await;
        expected.retain(|expected| *expected != value);
    }
    source.stop().await;
    // A device that ends is away.
    derived.lose("a");
    let mut expected = vec![bad("sum"), bad("most")];
    while !expected.is_empty() {
        let value = derived.value().await;
        expected.retain(|expected| *expected != value);
    }
    derived.stop().await;
}

#[tokio::test]
async fn a_source_that_was_never_there_is_lost() {
    let source =
        Rig::start("[device.a]\nkind = \"counter\"\npoint.x.path = \"/nowhere/count\"\npoint.y.rate_of = \"x\"\n");
    let mut derived = source.beside("[device.d]\nkind = \"derived\"\npoint.sum.sum = [\"a/x\", \"a/y\"]\n");
    assert_eq!(derived.value().await, bad("sum"));
    source.stop().await;
    derived.stop().await;
}

#[tokio::test]
async fn an_integral_grows_while_its_source_is_there() {
    let mut source = Rig::start(SIM);
    let mut derived = source.beside(
        "[device.d]\nkind = \"derived\"\n[device.d.point]\n\
         on = { integral = \"a/x\", per = \"1s\", every = \"1s\", settable = true, type = \"float\" }\n",
    );
    assert_eq!(derived.value().await, good("on", Value::Float(0.0)));
    source.online().await;
    source.write(&[("x", Value::Bool(true))]).await;
    let number = |value: Option<Value>| value.and_then(|value| value.as_f64());
    while number(derived.value().await.1).is_none_or(|on| on < 0.5) {}
    derived.write(&[("on", Value::Float(100.0))]).await;
    let mut last = 0.0;
    while last <= 100.0 {
        let on = number(derived.value().await.1).unwrap_or(last);
        assert!(on >= last || on >= 100.0, "{on} behind {last}");
        last = on;
    }
    source.stop().await;
    derived.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_says_once_is_heard_whoever_starts_first() {
    const SUM: &str = "[device.d]\nkind = \"derived\"\n[device.d.point]\nsum = { sum = [\"a/x\", \"a/y\"] }\n";
    for round in 0..100 {
        // Each says what it is when it starts, and nothing after that.
        let source = Rig::start(SIM);
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        let mut derived = source.beside(SUM);
        assert_eq!(derived.value().await, good("sum", Value::Float(0.0)));
        source.stop().await;
        derived.stop().await;
    }
}

#[tokio::test]
async fn an_outage_while_nobody_listened_is_a_hole() {
    let keys = "integral = \"a/x\"\nper = \"1s\"".parse().unwrap();
    let declaration = crate::model::Declaration::default();
    let point = (PointName::new("e").unwrap(), PointConfig::read(&keys, &declaration).unwrap());
    let derived = Derived { points: vec![point] };
    let device = DeviceName::new("a").unwrap();
    let mut book = Book {
        sources: vec![vec![Source::Unknown]],
        integrals: BTreeMap::from([(0, Integral::from(0.0, Duration::ZERO))]),
        due: BTreeMap::new(),
        changed: BTreeSet::new(),
        tell_at: None,
        taken: None,
        online: BTreeSet::from([device.clone()]),
    };
    let value = || Reading {
        device: device.clone(),
        point: PointName::new("x").unwrap(),
        timestamp: time::now(),
        value: Some(Value::Float(2.0)),
        unit: None,
        quality: Quality::Good,
        cause: None,
    };
    let others = crate::device::others::Others::default();
    let mut live = others.listen();
    others.show(value());
    derived.hear(&mut book, &live.recv().await.unwrap());
    book.integrals.get_mut(&0).unwrap().take_hole();
    // Of its states nobody saw any but the last one, which is as before.
    others.forget(&device);
    others.show(value());
    while let Ok(reading) = live.try_recv() {
        derived.hear(&mut book, &reading);
    }
    assert!(book.integrals.get_mut(&0).unwrap().take_hole());
}
