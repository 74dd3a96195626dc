//! The driver with files that look like the kernel's; with the kernel's own it runs in tests/lab.

use std::fs;
use std::time::Duration;

use crate::device::testing::{Rig, bad, faults, good, tree};
use crate::model::{Answer, Value, WriteError};

fn device(root: &std::path::Path, points: &str) -> String {
    format!("[device.board]\nkind = \"sysfs\"\nevery = \"10ms\"\n{points}")
        .replace("{root}", &root.display().to_string())
}

#[tokio::test]
async fn a_value_follows_its_file_when_the_kernel_numbers_anew() {
    let root = tree(&[("hwmon0/name", "lm75"), ("hwmon0/temp1_input", "21500\n"), ("hwmon1/name", "cpu")]);
    let config = "[device.board.point.cabinet]\npath = \"{root}/hwmon*/temp1_input\"\nmatch = { name = \"lm75\" }\n\
                  scale = 0.001\nreport = { change = 0 }\n";
    let mut rig = Rig::start(&device(root.path(), config));
    assert_eq!(rig.value().await, good("cabinet", Value::Float(21.5)));
    rig.online().await;
    // The next boot: by one name after the other, so that there are never two.
    fs::rename(root.path().join("hwmon0"), root.path().join("hwmon7")).unwrap();
    fs::write(root.path().join("hwmon7/temp1_input"), "22000").unwrap();
    loop {
        // It may have been looked for while it had no name.
        let next = rig.value().await;
        if next != bad("cabinet") {
            assert_eq!(next, good("cabinet", Value::Float(22.0)));
            break;
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn one_file_that_is_gone_is_bad_and_when_all_are_gone_the_device_is_lost() {
    let root = tree(&[("a", "1"), ("b", "2")]);
    let point =
        |name: &str| format!("[device.board.point.{name}]\npath = \"{{root}}/{name}\"\nreport = {{ change = 0 }}\n");
    let mut rig = Rig::start(&device(root.path(), &(point("a") + &point("b"))));
    let mut first = [rig.value().await, rig.value().await];
    first.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(first, [good("a", Value::Int(1)), good("b", Value::Int(2))]);
    fs::remove_file(root.path().join("a")).unwrap();
    assert_eq!(rig.value().await, bad("a"));
    fs::remove_file(root.path().join("b")).unwrap();
    let why = rig.offline().await;
    assert!(why.starts_with("there is no "), "{why}");
    fs::write(root.path().join("b"), "3").unwrap();
    rig.online().await;
    rig.stop().await;
}

#[tokio::test]
async fn an_output_is_written_and_read_back() {
    let root = tree(&[("leds/x:alarm/brightness", "7\n")]);
    let config = "[device.board.point.lamp]\npath = \"{root}/leds/*:alarm/brightness\"\ndirection = \"out\"\n\
                  type = \"int\"\nsafe = 0\n";
    let mut rig = Rig::start(&device(root.path(), config));
    rig.online().await;
    let file = root.path().join("leds/x:alarm/brightness");
    assert_eq!(rig.value().await, good("lamp", Value::Int(7)));
    let Answer::Ended { result, .. } = rig.write(&[("lamp", Value::Int(200))]).await else { panic!("no end") };
    assert_eq!(result.unwrap()[0].1, Value::Int(200));
    assert_eq!(fs::read_to_string(&file).unwrap(), "200");
    let folder = file.parent().unwrap().to_owned();
    fs::remove_dir_all(&folder).unwrap();
    let Answer::Ended { result, .. } = rig.write(&[("lamp", Value::Int(1))]).await else { panic!("no end") };
    assert!(matches!(&result, Err(WriteError::Failed(text)) if text.contains("there is no ")), "{result:?}");
    let why = rig.offline().await;
    assert!(why.contains("there is no "), "{why}");
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "0").unwrap();
    rig.online().await;
    rig.stop().await;
}

#[test]
fn what_reads_otherwise_was_not_taken() {
    let (int, float) = (Value::Int, Value::Float);
    for (wanted, is, expected) in [
        (int(1), int(1), true),
        (int(255), int(1), false),
        (float(60.0), float(0.0), false),
        (float(0.0), float(60.0), false),
        (float(33.3), float(33.299_999), true),
        (Value::Bool(true), int(1), true),
        (Value::Bool(true), Value::Bool(false), false),
        (int(5), Value::text("5"), true),
        (Value::text("none"), Value::text("[none] timer"), true),
    ] {
        assert_eq!(super::outputs::is_taken(&wanted, &is), expected, "{wanted} {is}");
    }
}

#[tokio::test]
async fn what_a_window_has_when_its_device_is_lost_goes_out() {
    let root = tree(&[("a", "7")]);
    let point = "[device.board.point.a]\npath = \"{root}/a\"\nwindow = { every = \"1h\", take = \"max\" }\n";
    let mut rig = Rig::start(&device(root.path(), point));
    rig.online().await;
    fs::remove_file(root.path().join("a")).unwrap();
    assert_eq!(rig.value().await, bad("a"));
    assert_eq!(rig.value().await, good("a", Value::Float(7.0)));
    rig.stop().await;
}

/// A named pipe that nobody writes to: opening it waits, as a file of a bus that hangs.
fn hang(path: &std::path::Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
}

/// Lets all threads go that wait for it.
fn unhang(path: &std::path::Path) {
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
}

#[tokio::test]
async fn a_file_that_hangs_costs_one_thread_and_no_other_point() {
    let root = tree(&[("a", "1")]);
    let file = root.path().join("b");
    hang(&file);
    let point = |name: &str| format!("[device.board.point.{name}]\npath = \"{{root}}/{name}\"\n");
    let text = device(root.path(), &(point("a") + &point("b")));
    let hanging = source(&file);
    let asked = super::ask(&hanging, super::Source::read);
    assert!(asked.is_some() && super::ask(&hanging, super::Source::read).is_none());
    let mut rig = Rig::start(&text);
    for _ in 0..5 {
        assert_eq!(rig.value().await, good("a", Value::Int(1)));
    }
    rig.stop().await;
    // As often as needed: a thread may be about to open it.
    while hanging.busy.load(std::sync::atomic::Ordering::Acquire) {
        unhang(&file);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(super::ask(&hanging, |_| Ok(Value::Int(1))).is_some());
    fs::remove_file(&file).unwrap();
}

/// A source of this file.
fn source(path: &std::path::Path) -> std::sync::Arc<super::Source> {
    let attribute = super::Attribute::new(path.to_owned(), std::collections::BTreeMap::new(), None, None).unwrap();
    let (what, every, busy) = (super::What::File(attribute), Duration::from_secs(1), false.into());
    std::sync::Arc::new(super::Source { what, every, output: false, busy })
}

#[tokio::test]
async fn who_writes_a_file_that_is_looked_at_waits_for_that() {
    let root = tree(&[("brightness", "0")]);
    let source = source(&root.path().join("brightness"));
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let looking = super::ask(&source, move |source| {
        held.recv().unwrap();
        source.read()
    });
    let write = super::ask_in_turn(&source, Duration::from_secs(60), |source| source.write(&Value::Int(7)));
    // Only who waits for its turn gets it.
    let (written, ()) = tokio::join!(write, async {
        tokio::task::yield_now().await;
        let_go.send(()).unwrap();
    });
    assert_eq!(written, Ok(Value::Int(7)));
    assert_eq!(looking.unwrap().await.unwrap(), Ok(Value::Int(0)));
    // A file that never answers is given up, and was not written.
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let hanging = super::ask(&source, move |source| {
        held.recv().unwrap();
        source.read()
    });
    let late = super::ask_in_turn(&source, Duration::from_millis(20), |source| source.write(&Value::Int(9))).await;
    assert_eq!(late, Err(super::Trouble::Busy));
    let_go.send(()).unwrap();
    assert_eq!(hanging.unwrap().await.unwrap(), Ok(Value::Int(7)));
}

#[tokio::test]
async fn a_channel_of_pwm_keeps_running_or_starts_at_nothing() {
    let root = tree(&[
        ("pwmchip0/npwm", "2"),
        ("pwmchip0/pwm0/period", "20000000"),
        ("pwmchip0/pwm0/duty_cycle", "5000000"),
        ("pwmchip0/pwm0/enable", "1"),
        ("pwmchip0/pwm1/period", "0"),
        ("pwmchip0/pwm1/duty_cycle", "0"),
        ("pwmchip0/pwm1/enable", "0"),
    ]);
    let point = |number: u8| {
        format!(
            "[device.board.point.p{number}]\npath = \"{{root}}/pwmchip*\"\n\
             pwm = {{ channel = {number}, period = \"20ms\" }}\nsafe = 0\n"
        )
    };
    let mut rig = Rig::start(&device(root.path(), &(point(0) + &point(1))));
    let mut first = [rig.value().await, rig.value().await];
    first.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(first, [good("p0", Value::Float(25.0)), good("p1", Value::Float(0.0))]);
    let Answer::Ended { result, .. } = rig.write(&[("p1", Value::Float(7.5))]).await else { panic!("no end") };
    assert_eq!(result.unwrap()[0].1, Value::Float(7.5));
    let said = |file: &str| fs::read_to_string(root.path().join("pwmchip0").join(file)).unwrap();
    assert_eq!(
        (said("pwm1/period"), said("pwm1/duty_cycle"), said("pwm1/enable")),
        ("20000000".into(), "1500000".into(), "1".into())
    );
    assert_eq!(said("pwm0/duty_cycle"), "5000000");
    rig.stop().await;
}

#[tokio::test]
async fn an_output_that_hangs_at_the_start_holds_up_nobody() {
    let root = tree(&[("a", "1"), ("c", "3")]);
    let file = root.path().join("b");
    hang(&file);
    let output = |name: &str| {
        format!(
            "[device.board.point.{name}]\npath = \"{{root}}/{name}\"\ndirection = \"out\"\ntype = \"int\"\nsafe = 0\n"
        )
    };
    let input = "[device.board.point.a]\npath = \"{root}/a\"\n";
    let mut rig = Rig::start(&device(root.path(), &(input.to_owned() + &output("b") + &output("c"))));
    // What the other output is, is known first.
    assert_eq!(rig.value().await, good("c", Value::Int(3)));
    for _ in 0..5 {
        assert_eq!(rig.value().await, good("a", Value::Int(1)));
    }
    let Answer::Ended { result, .. } = rig.write(&[("b", Value::Int(1))]).await else { panic!("no end") };
    assert!(matches!(&result, Err(WriteError::Failed(text)) if text.contains("has not answered")), "{result:?}");
    let Answer::Ended { result, .. } = rig.write(&[("c", Value::Int(4))]).await else { panic!("no end") };
    assert_eq!(result.unwrap()[0].1, Value::Int(4));
    // It answers after all.
    let written = file.clone();
    tokio::task::spawn_blocking(move || fs::write(written, "5")).await.unwrap().unwrap();
    while rig.value().await != good("b", Value::Int(5)) {}
    fs::remove_file(&file).unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_channel_that_somebody_unexports_is_exported_again_and_safe() {
    let root = tree(&[("pwmchip0/npwm", "1")]);
    let chip = root.path().join("pwmchip0");
    // As the kernel does, once it is asked for.
    let export = || {
        for (file, text) in [("enable", "0"), ("period", "0"), ("duty_cycle", "0")] {
            fs::create_dir_all(chip.join("pwm0")).unwrap();
            fs::write(chip.join("pwm0").join(file), text).unwrap();
        }
    };
    let said = |file: &str| fs::read_to_string(chip.join(file)).unwrap();
    let config = "[device.board.point.fan]\npath = \"{root}/pwmchip*\"\npwm = { period = \"1ms\" }\nscale = 10\nsafe = 300\n\
                  max = 1000\ntype = \"float\"\n";
    export();
    let mut rig = Rig::start(&device(root.path(), config));
    assert_eq!(rig.value().await, good("fan", Value::Float(300.0)));
    let Answer::Ended { result, .. } = rig.write(&[("fan", Value::Float(1000.0))]).await else { panic!("no end") };
    assert_eq!(result.unwrap()[0].1, Value::Float(1000.0));
    assert_eq!(rig.value().await, good("fan", Value::Float(1000.0)));
    fs::remove_dir_all(chip.join("pwm0")).unwrap();
    let why = rig.offline().await;
    assert!(why.contains("somebody has unexported the channel"), "{why}");
    while !chip.join("export").exists() {
        tokio::task::yield_now().await;
    }
    export();
    rig.online().await;
    assert_eq!(rig.value().await, good("fan", Value::Float(300.0)));
    assert_eq!(
        (said("export"), said("pwm0/duty_cycle"), said("pwm0/enable")),
        ("0".into(), "300000".into(), "1".into())
    );
    rig.stop().await;
}

#[test]
fn what_can_not_work_is_a_fault() {
    for (point, expected) in [
        ("path = \"temp\"", "point.x.path: expected a path from / on, such as \"/sys/class/hwmon/hwmon*/temp1_input\""),
        ("path = \"/a\"\nevery = \"1us\"", "point.x.every: `1us`: expected a duration from \"10ms\" to \"24h\""),
        ("path = \"/a\"\npattern = \"x\"", "point.x.pattern: expected one group, such as \"t=(-?[0-9]+)\""),
        (
            "path = \"/a\"\nmatch = { \"/etc/passwd\" = \"x\" }",
            "point.x.match: expected names of files beside this one, such as { name = \"lm75\" }",
        ),
        (
            "path = \"/a\"\ndirection = \"out\"\ntype = \"int\"",
            "point.x.safe: an output needs a safe state: expected a value, such as `safe = 0`",
        ),
        (
            "path = \"/a\"\ndirection = \"out\"\nsafe = 0",
            "point.x.type: a writable point needs a `type`: expected bool, int, float or text",
        ),
        (
            "path = \"/a\"\npwm = { period = \"1m\" }\nsafe = 0",
            "point.x.pwm.period: expected a duration from \"1us\" to \"10s\"",
        ),
        (
            "path = \"/a\"\npwm = { period = \"1ms\" }\nsafe = 0\ntype = \"bool\"",
            "point.x.type: PWM has a number of percent: expected float or int",
        ),
    ] {
        let text = format!("[device.board]\nkind = \"sysfs\"\n[device.board.point.x]\n{point}\n");
        assert_eq!(faults(&text), [expected], "{text}");
    }
    let text = "[device.board]\nkind = \"sysfs\"\nevery = \"2days\"\n";
    assert_eq!(faults(text), ["every: `2days`: expected a duration from \"10ms\" to \"24h\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_folder_that_hangs_holds_nobody_up() {
    let root = tree(&[("a", "1"), ("leds/brightness", "0"), ("leds/name", "x"), ("name", "x")]);
    let config = "[device.board.point.a]\npath = \"{root}/a\"\n[device.board.point.lamp]\npath = \"{root}/leds/brightness\"\n\
                  match = { name = \"x\" }\ndirection = \"out\"\ntype = \"int\"\nsafe = 0\n";
    let mut rig = Rig::start(&device(root.path(), config));
    rig.online().await;
    assert_eq!(rig.value().await, good("lamp", Value::Int(0)));
    // By this file it is told whether the lamp is still there.
    let (name, other) = (root.path().join("leds/name"), root.path().join("leds/other"));
    hang(&other);
    fs::hard_link(&other, root.path().join("link")).unwrap();
    fs::rename(root.path().join("link"), &name).unwrap();
    let Answer::Ended { result, .. } = rig.write(&[("lamp", Value::Int(1))]).await else { panic!("no end") };
    assert!(matches!(&result, Err(WriteError::Failed(text)) if text.contains("kernel")), "{result:?}");
    for _ in 0..20 {
        assert_eq!(rig.value().await, good("a", Value::Int(1)));
    }
    rig.stop().await;
    // Who waits looks once more, to say what there is.
    fs::rename(root.path().join("name"), &name).unwrap();
    let (flags, mode) = (rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK, rustix::fs::Mode::empty());
    while rustix::fs::open(&other, flags, mode).is_err() {
        tokio::task::yield_now().await;
    }
}
