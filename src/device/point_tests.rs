use proptest::prelude::*;

use super::*;
use crate::model::{DeviceName, PointName};

fn point(value_type: Option<ValueType>) -> Point {
    Point {
        device: DeviceName::new("tank").unwrap(),
        name: PointName::new("level").unwrap(),
        value_type,
        unit: None,
        min: Some(-100.0),
        max: Some(100.0),
        safe: None,
        writable: true,
    }
}

fn read(config: &str) -> Result<Config, Vec<Fault>> {
    Config::read(&config.parse().unwrap())
}

fn rules(value_type: Option<ValueType>, config: &str, holds: bool) -> Rules {
    Rules::new(point(value_type), read(config).unwrap(), holds)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(n: u64) -> Timestamp {
    Timestamp { uptime: secs(n), wall: Duration::ZERO, synced: false, boot: crate::model::BootId::UNKNOWN }
}

fn good(value: Value) -> Cooked {
    Cooked { value: Some(value), quality: Quality::Good, passed: None }
}

#[test]
fn a_raw_value_is_scaled_rounded_named_and_checked() {
    let bad = |value| Cooked { value, quality: Quality::Bad, passed: None };
    for (value_type, config, raw, expected) in [
        (None, "", Value::Int(3), good(Value::Int(3))),
        (None, "scale = 0.1\noffset = -1\nround = 1", Value::text("215"), good(Value::Float(20.5))),
        (Some(ValueType::Int), "scale = 0.1", Value::Int(210), good(Value::Int(21))),
        (Some(ValueType::Float), "", Value::text("1.5"), good(Value::Float(1.5))),
        (Some(ValueType::Float), "", Value::text("broken"), bad(None)),
        (None, "", Value::Float(f64::NAN), bad(None)),
        (None, "", Value::Int(101), bad(Some(Value::Int(101)))),
        (None, "map = { 0 = \"closed\", 1 = \"open\" }", Value::Int(1), good(Value::text("open"))),
        (None, "map = { 0 = \"closed\", 1 = \"open\" }", Value::Bool(true), good(Value::text("open"))),
        // How it is told to be on, and that it is.
        (Some(ValueType::Bool), "map = { 0 = false, 255 = true }", Value::Int(255), good(Value::Bool(true))),
        (Some(ValueType::Bool), "map = { 0 = false, 255 = true }", Value::Bool(true), good(Value::Bool(true))),
        (Some(ValueType::Bool), "map = { 1 = false, 0 = true }", Value::Bool(true), good(Value::Bool(false))),
        (None, "map = { false = \"closed\" }", Value::Bool(false), good(Value::text("closed"))),
        (Some(ValueType::Text), "map = { 0 = \"closed\" }", Value::Int(7), bad(None)),
    ] {
        assert_eq!(rules(value_type, config, false).cook(&raw), expected, "{raw:?} by {config:?}");
    }
}

#[test]
fn a_change_is_sent_and_noise_is_not() {
    let mut rules = rules(None, "report = { change = 0.5 }", false);
    assert_eq!(rules.offer(&Value::Float(1.0), at(0)), Some(good(Value::Float(1.0))));
    assert_eq!(rules.offer(&Value::Float(1.4), at(1)), None);
    assert_eq!(rules.offer(&Value::Float(1.5), at(2)), Some(good(Value::Float(1.5))));
    assert_eq!(rules.offer_bad(at(3)), Some(Cooked { value: None, quality: Quality::Bad, passed: None }));
    assert_eq!(rules.next_due(), None);
}

#[test]
fn a_change_may_be_a_share() {
    let mut rules = rules(None, "report = { change = \"10%\" }", false);
    for (value, is_sent) in
        [(50.0, true), (54.0, false), (45.0, true), (49.0, false), (0.0, true), (0.0, false), (0.1, true)]
    {
        assert_eq!(rules.offer(&Value::Float(value), at(0)).is_some(), is_sent, "{value}");
    }
    let expected = "expected a number, or a share such as \"5%\", found \"5\"";
    assert_eq!(read("report = { change = \"5\" }"), Err(vec![Fault::at("report.change", expected)]));
}

#[test]
fn filters_see_the_scaled_numbers_that_are_in_range() {
    let config = "scale = 0.1\nround = 1\nfilter = [{ kind = \"median\", of = 3 }, { kind = \"mean\", of = 2 }]";
    let mut rules = rules(None, config, false);
    for (raw, expected) in [
        (Value::Int(200), good(Value::Float(20.0))),
        (Value::text("210"), good(Value::Float(20.3))),
        (Value::Int(99_999), Cooked { value: Some(Value::Float(9999.9)), quality: Quality::Bad, passed: None }),
        (Value::Int(-220), good(Value::Float(20.3))),
        (Value::text("broken"), bad(None)),
        (Value::Int(220), good(Value::Float(20.5))),
    ] {
        assert_eq!(rules.offer(&raw, at(0)), Some(expected), "{raw:?}");
    }
    let mut whole =
        Rules::new(point(Some(ValueType::Int)), read("filter = [{ kind = \"mean\", of = 2 }]").unwrap(), false);
    assert_eq!(whole.offer(&Value::Int(1), at(0)), Some(good(Value::Int(1))));
    assert_eq!(whole.offer(&Value::Int(4), at(0)), Some(good(Value::Int(3))));
}

#[test]
fn a_window_ends_by_itself_and_its_beginning_goes_out_at_the_stop() {
    let config = "window = { every = \"10s\", take = \"mean\" }\nreport = { at_least = \"60s\" }";
    let mut rules = rules(None, config, false);
    assert_eq!(rules.offer(&Value::Int(2), at(0)), None);
    assert_eq!(rules.offer(&Value::Int(4), at(5)), None);
    assert_eq!(rules.next_due(), Some(secs(10)));
    assert_eq!(rules.due(at(9)), None);
    assert_eq!(rules.due(at(10)), Some((good(Value::Float(3.0)), at(10))));
    // The next one begins with the next number.
    assert_eq!(rules.next_due(), Some(secs(70)));
    assert_eq!(rules.offer(&Value::Int(8), at(20)), None);
    assert_eq!(rules.take_held(at(25)).collect::<Vec<_>>(), [(good(Value::Float(8.0)), at(25))]);
    assert_eq!(rules.take_held(at(25)).next(), None);
    assert_eq!(rules.offer(&Value::Int(1), at(30)), None);
    rules.reset();
    assert_eq!(rules.next_due(), None);
}

#[test]
fn filters_that_can_not_work_are_a_fault() {
    for (value_type, config, expected) in [
        (
            Some(ValueType::Text),
            "window = { every = \"1s\", take = \"min\" }",
            "window: only a point of type int or float has it",
        ),
        (
            None,
            "map = { 0 = \"a\" }\nfilter = [{ kind = \"rate\" }]",
            "filter: expected either `map` or this, which is for numbers, not both",
        ),
        (None, "limits = {}", "limits: expected `high`, `low` or both"),
        (
            None,
            "limits = { high = 10, low = 5, hysteresis = 5 }",
            "limits.hysteresis: expected less than what is between `low` and `high`: nothing would be normal again",
        ),
        (
            None,
            "limits = { high = 120, low = -100 }",
            "limits.high: no alarm ever, for what is out of range is bad: expected -100 to 100",
        ),
        (None, "limits = { high = 5, low = 10 }", "limits.high: expected more than `low`"),
        (
            None,
            "limits = { high = 10, hysteresis = -1 }",
            "limits.hysteresis: expected numbers, and `hysteresis` of at least 0",
        ),
        (Some(ValueType::Bool), "limits = { high = 10 }", "limits: only a point of type int or float has it"),
        (None, "filter = [{ kind = \"rate\" }, { kind = \"mean\", of = 0 }]", "filter[1].of: `0`: expected 2 to 1000"),
    ] {
        let mut point = point(value_type);
        point.writable = false;
        let faults: Vec<_> = read(config).unwrap().check(&point);
        let said: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.path.join("."), fault.text)).collect();
        assert_eq!(said, [expected], "{config}");
    }
    let faults = read("filter = [{ kind = \"rate\" }]").unwrap().check(&point(None));
    assert_eq!(faults, [Fault::at("filter", "only a point that is not written has it")]);
}

#[test]
fn a_limit_is_passed_once_until_the_value_is_well_away_from_it() {
    use Limit::{High, Low, Normal};
    let limits = "limits = { high = 80, low = 20, hysteresis = 5 }\nreport = { change = 1000, at_most = \"1h\" }";
    let mut rules = rules(None, limits, false);
    let first = Cooked { passed: Some(Normal), ..good(Value::Int(50)) };
    assert_eq!(rules.offer(&Value::Int(50), at(0)), Some(first), "an alarm of before the start may be over");
    for (second, number, expected) in [
        (1, 79, None),
        (2, 80, Some(High)),
        (3, 90, None),
        (4, 76, None),
        (5, 80, None),
        (6, 75, Some(Normal)),
        (7, 19, Some(Low)),
        (8, 24, None),
        (9, 80, Some(High)),
        (10, 20, Some(Low)),
        (11, 25, Some(Normal)),
        (12, 25, None),
    ] {
        let sent = rules.offer(&Value::Int(number), at(second));
        let passed = sent.as_ref().map(|cooked| (cooked.value.clone(), cooked.passed));
        assert_eq!(passed, expected.map(|limit| (Some(Value::Int(number)), Some(limit))), "{number}");
    }
    assert_eq!(rules.offer(&Value::Int(1000), at(13)), None, "out of its range, no alarm: held back as any value");
}

#[test]
fn an_alarm_is_not_one_again_when_its_value_is_repeated() {
    let mut rules = rules(None, "limits = { high = 80 }\nreport = { change = 1, at_least = \"1m\" }", true);
    assert_eq!(rules.offer(&Value::Int(90), at(0)).and_then(|cooked| cooked.passed), Some(Limit::High));
    assert_eq!(rules.due(at(60)), Some((good(Value::Int(90)), at(60))));
    rules.reset();
    assert_eq!(
        rules.offer(&Value::Int(90), at(61)),
        Some(good(Value::Int(90))),
        "it was high before the device was away"
    );
}

#[test]
fn the_newest_value_waits_for_its_turn() {
    let mut rules = rules(None, "report = { at_most = \"10s\" }", false);
    assert!(rules.offer(&Value::Int(1), at(0)).is_some());
    assert_eq!(rules.offer(&Value::Int(2), at(1)), None);
    assert_eq!(rules.offer(&Value::Int(3), at(2)), None);
    assert_eq!(rules.next_due(), Some(secs(10)));
    assert_eq!(rules.due(at(9)), None);
    assert_eq!(rules.due(at(10)), Some((good(Value::Int(3)), at(2))), "dated when it was taken");
    assert_eq!(rules.next_due(), None);
}

#[test]
fn a_value_that_holds_is_repeated_and_one_that_does_not_becomes_stale() {
    let config = "report = { change = 0, at_least = \"60s\" }";
    let mut line = rules(None, config, true);
    assert!(line.offer(&Value::Bool(true), at(0)).is_some());
    assert_eq!(line.due(at(60)), Some((good(Value::Bool(true)), at(60))));
    assert_eq!(line.next_due(), Some(secs(120)));

    let mut sensor = rules(None, config, false);
    assert!(sensor.offer(&Value::Int(1), at(0)).is_some());
    assert_eq!(sensor.offer(&Value::Int(1), at(50)), None);
    assert_eq!(sensor.next_due(), Some(secs(110)));
    assert_eq!(
        sensor.due(at(110)),
        Some((Cooked { value: Some(Value::Int(1)), quality: Quality::Stale, passed: None }, at(110)))
    );
    assert_eq!(sensor.next_due(), None);
    assert_eq!(sensor.offer(&Value::Int(1), at(111)), Some(good(Value::Int(1))), "good again at once");
}

#[test]
fn a_value_is_written_by_its_raw_one() {
    let named = rules(None, "map = { 0 = \"closed\", 1 = \"open\" }", true);
    assert_eq!(named.raw(&Value::text("open")), Ok(Value::text("1")));
    assert!(named.raw(&Value::text("ajar")).is_err());
    let scaled = rules(None, "scale = 0.1", true);
    assert_eq!(scaled.raw(&Value::Float(21.5)), Ok(Value::Int(215)));
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(raw in -1000i64..1000, scale in prop::sample::select(vec![0.1, 0.5, 2.0, -3.0])) {
        let mut rules = rules(None, "", true);
        rules.config.scale = Some(scale);
        rules.config.offset = Some(4.0);
        let value = rules.cook(&Value::Int(raw)).value.unwrap();
        prop_assert_eq!(rules.raw(&value), Ok(Value::Int(raw)));
    }
}

#[test]
fn what_is_said_again_did_not_come_in() {
    let mut rules = rules(None, "report = { change = 100, at_least = \"10s\" }", true);
    rules.point.max = None;
    assert!(rules.offer(&Value::Int(10), at(0)).is_some() && rules.came() == Some(good(Value::Int(10))));
    assert!(rules.offer(&Value::Int(60), at(5)).is_none(), "too near to be sent");
    assert_eq!(rules.came(), Some(good(Value::Int(60))));
    assert!(rules.due(at(20)).is_some() && rules.came().is_none());
}

#[test]
fn a_new_beginning_silences_no_quiet_point() {
    let mut rules = rules(None, "report = { change = 5, at_least = \"10s\" }", true);
    assert!(rules.offer(&Value::Int(10), at(0)).is_some());
    rules.restart();
    assert_eq!(rules.due(at(10)).map(|(cooked, _)| cooked), Some(good(Value::Int(10))), "it still holds");
    assert!(rules.offer(&Value::Int(11), at(11)).is_some(), "the first one is news");
    assert!(rules.offer(&Value::Int(12), at(12)).is_none());
}

#[test]
fn what_was_bad_does_not_become_stale() {
    let mut rules = rules(None, "report = { at_least = \"60s\" }", false);
    let bad = |value| Some(Cooked { value, quality: Quality::Bad, passed: None });
    for (second, raw, sent) in [(0, Value::Int(9999), Some(Value::Int(9999))), (100, Value::text("broken"), None)] {
        rules.point.value_type = Some(ValueType::Int);
        assert_eq!(rules.offer(&raw, at(second)), bad(sent));
        assert_eq!((rules.next_due(), rules.due(at(second + 60))), (None, None), "a sensor's number for an error");
    }
}

#[test]
fn a_change_by_just_so_much_is_sent_whatever_its_digits() {
    let mut rules = rules(None, "scale = 0.1\nround = 1\nreport = { change = 0.1 }", false);
    for raw in -900..900 {
        assert!(rules.offer(&Value::Int(raw), at(0)).is_some(), "{raw}");
        assert!(rules.offer(&Value::Int(raw), at(0)).is_none(), "{raw} again");
    }
}

#[test]
fn a_tenth_of_a_whole_number_has_one_digit_behind_the_point() {
    for (scale, digits) in [("0.1", 1), ("0.01", 2), ("0.001", 3)] {
        let rules = rules(Some(ValueType::Float), &format!("scale = {scale}"), false);
        for raw in 0..100i64 {
            let expected: f64 = format!("{raw}e-{digits}").parse().unwrap();
            assert_eq!(rules.cook(&Value::Int(raw)), good(Value::Float(expected)), "{raw} by {scale}");
            assert_eq!(rules.raw(&Value::Float(expected)), Ok(Value::Int(raw)));
        }
    }
    let mut low = rules(None, "scale = 0.1\nlimits = { low = 0.3 }", false);
    assert_eq!(low.offer(&Value::Int(3), at(0)).and_then(|cooked| cooked.passed), Some(Limit::Low), "at it is low");
    assert_eq!(rules(None, "scale = 3\noffset = 0.5", false).cook(&Value::Int(2)), good(Value::Float(6.5)));
}

#[test]
fn a_window_that_is_cut_off_may_be_an_alarm() {
    let mut rules = rules(None, "window = { every = \"1m\", take = \"max\" }\nlimits = { high = 80 }", false);
    assert_eq!(rules.offer(&Value::Int(90), at(0)), None);
    let high = Cooked { passed: Some(Limit::High), ..good(Value::Float(90.0)) };
    assert_eq!(rules.take_held(at(10)).collect::<Vec<_>>(), [(high, at(10))], "its device is lost");
    rules.reset();
    assert_eq!(rules.offer(&Value::Int(20), at(60)), None);
    assert_eq!(rules.due(at(120)).and_then(|(cooked, _)| cooked.passed), Some(Limit::Normal), "and is back");
}

#[test]
fn a_value_that_holds_is_not_good_behind_filters_while_it_can_not_be_believed() {
    let quality = |sent: Option<Cooked>| sent.map(|cooked| (cooked.value, cooked.quality));
    let stale = |number| Some((Some(Value::Float(number)), Quality::Stale));
    let mut mean = rules(None, "filter = [{ kind = \"mean\", of = 2 }]\nreport = { at_least = \"1m\" }", true);
    assert_eq!(mean.offer_stale(&Value::Int(7), at(0)), None, "they have made nothing yet");
    assert!(mean.offer(&Value::Int(9), at(0)).is_some());
    assert_eq!(quality(mean.offer_stale(&Value::Int(9), at(1))), stale(9.0));
    assert_eq!(mean.came().map(|came| came.quality), Some(Quality::Stale));
    assert_eq!(quality(mean.due(at(61)).map(|(cooked, _)| cooked)), stale(9.0));
    let mut window = rules(None, "window = { every = \"1m\", take = \"mean\" }", true);
    assert_eq!(window.offer(&Value::Int(8), at(0)), None);
    assert_eq!(quality(window.offer_bad(at(1))), Some((None, Quality::Bad)));
    assert_eq!(window.offer(&Value::Int(6), at(2)), None);
    assert_eq!(window.due(at(60)).map(|(cooked, _)| cooked), Some(good(Value::Float(7.0))), "it was good again");
    for lost in [Value::Int(999), Value::text("broken")] {
        assert_eq!(window.offer(&Value::Int(6), at(70)), None);
        assert_eq!(quality(window.offer(&lost, at(71))).map(|(_, quality)| quality), Some(Quality::Bad));
        assert_eq!((window.due(at(130)), window.next_due()), (None, None), "its sources are lost");
    }
    assert_eq!(window.offer(&Value::Int(6), at(140)), None);
    assert_eq!(quality(window.offer_stale(&Value::Int(6), at(141))).map(|(_, quality)| quality), Some(Quality::Bad));
    assert_eq!(window.take_held(at(150)).next(), None, "nor at the stop");
}

#[test]
fn a_report_that_never_ends_is_a_fault() {
    let faults = read("report = { at_least = \"0s\" }").unwrap().check(&point(None));
    let text = "without a pause it never ends: expected a time such as \"5m\", or no such key";
    assert_eq!(faults, [Fault::at("report.at_least", text)]);
}

#[test]
fn an_alarm_ends_at_just_its_hysteresis_whatever_the_digits() {
    for tenths in -900..900 {
        let config = format!("limits = {{ high = {}, hysteresis = 0.1 }}", f64::from(tenths) / 10.0);
        let mut rules = rules(None, &config, false);
        let mut passed = |tenths: i32| {
            let cooked = rules.offer(&Value::Float(f64::from(tenths) / 10.0), at(0));
            cooked.and_then(|cooked| cooked.passed)
        };
        assert_eq!([passed(tenths), passed(tenths - 1)], [Some(Limit::High), Some(Limit::Normal)], "{tenths}");
    }
}
