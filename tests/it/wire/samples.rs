//! The auditor notices what it should: messages written by hand, and what it has to say of them.

use serde_json::json;

use crate::support::audit_lines;

const G: &str = "sluicegate/g";

/// Epoch of the fourth start.
const E: u64 = (4 << 16) + 7;
/// And of the fifth.
const NEXT: u64 = (5 << 16) + 9;

fn line(topic: &str, payload: &str) -> String {
    json!({ "topic": format!("{G}/{topic}"), "payload": payload, "retain": false }).to_string() + "\n"
}

/// The same, as the broker had kept it.
fn kept(line: &str) -> String {
    line.replace(r#""retain":false"#, r#""retain":true"#)
}

/// A telemetry record of a point that counts up with its numbers.
fn record(epoch: u64, seq: u64) -> String {
    record_in("telemetry", epoch, seq, "")
}

fn late(epoch: u64, seq: u64) -> String {
    record_in("telemetry", epoch, seq, r#","late":true"#)
}

fn record_in(lane: &str, epoch: u64, seq: u64, more: &str) -> String {
    let number = format!(r#""lane":"{lane}","epoch":{epoch},"seq":{seq}"#);
    line("m/count", &format!(r#"{{"ts":"2026-11-22T10:00:00.123Z","value":{seq},"quality":"good",{number}{more}}}"#))
}

fn records(epoch: u64, range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|seq| record(epoch, seq)).collect()
}

/// A gap of telemetry. `None`: open at its end.
fn gap(n: u64, epoch: u64, from: u64, to: Option<(u64, u64)>) -> String {
    let (to, count, cause) = (to.map(|to| to.0), to.map(|to| to.1), if to.is_some() { "bytes" } else { "stop" });
    let gap = json!({ "n": n, "lane": "telemetry", "epoch": epoch, "from": from, "to": to, "count": count,
        "cause": cause, "ts": "2026-11-22T10:00:00.123Z" });
    line("gap", &gap.to_string())
}

/// What a health says of telemetry.
struct Telemetry {
    at_start: u64,
    next_seq: u64,
    published: u64,
    dropped: u64,
    depth: u64,
}

fn health(epoch: u64, lane: &Telemetry) -> String {
    let Telemetry { at_start, next_seq, published, dropped, depth } = lane;
    let idle = json!({ "depth": 0, "at_start": 0, "next_seq": 1, "published": 0 });
    let lanes = json!({ "alarm": idle, "telemetry": { "depth": depth, "at_start": at_start, "next_seq": next_seq,
        "published": published, "dropped_bytes": dropped, "damaged": 0, "refused": 0 } });
    line("health", &json!({ "epoch": epoch, "lanes": lanes }).to_string())
}

fn info(session: u64, instance: &str) -> String {
    line("info", &json!({ "session": session, "instance": instance }).to_string())
}

/// The info of a start that tells how the one before ended.
fn info_after(session: u64, before: (u64, bool, u64)) -> String {
    let (epoch, clean, next_seq) = before;
    let before = json!({ "epoch": epoch, "clean": clean, "next_seq": { "telemetry": next_seq } });
    let info = json!({ "session": session, "instance": session.to_string(), "before": before });
    line("info", &info.to_string())
}

/// The messages, the auditor's arguments, how it ends, and what it says.
#[track_caller]
fn check(messages: &[impl AsRef<str>], arguments: &[&str], code: i32, sentence: &str) {
    let said = audit_lines(&messages.iter().map(AsRef::as_ref).collect::<String>(), arguments);
    said.assert_says(code, sentence);
}

const EPOCH: &str = "telemetry, epoch 262151 (start 4)";

#[test]
fn numbers_that_came_are_complete() {
    let all = [info(4, "a"), records(E, 1..=20), late(E, 7)];
    check(&all, &[], 0, &format!("{EPOCH}, 1..20: 20 came; 1 duplicates"));
    // Repeated values, bare ones, a person's own commands and other people's topics are no records.
    let other = record(E, 3).replace("sluicegate/g/", "elsewhere/");
    let repeat = record_in("telemetry", E, 3, r#","repeat":true"#).replace(r#"\"value\":3"#, r#"\"value\":4"#);
    let set = record(E, 9).replace("m/count", "m/count/set") + &line("m/bare", "21.5") + &line("problem", "[]");
    check(&[records(E, 1..=3), other, repeat, set], &[], 0, &format!("{EPOCH}, 1..3: 3 came"));
    check(&[""; 0], &[], 1, "no gateway was heard");
    check(&[line("m/count/set", "{\"value\":1}"), line("status", "offline")], &[], 1, "no gateway was heard");
    check(&["{\"topic".to_owned()], &[], 1, "line 1 is no message: {\"topic");
}

#[test]
fn a_hole_is_an_error_unless_a_gap_tells_of_it() {
    let hole = records(E, 1..=4) + &records(E, 8..=20);
    check(&[&hole], &[], 1, &format!("{EPOCH}: 3 unexplained: 5..7"));
    let told = format!("{EPOCH}, 1..20: 17 came; 3 lost as told (bytes 3)");
    check(&[hole.clone(), gap(1, E, 2, Some((9, 3)))], &[], 0, &told);
    check(&[hole.clone(), gap(1, E, 2, Some((9, 2)))], &[], 1, &format!("{EPOCH}: 1 unexplained: 7"));
    check(&[hole.clone(), gap(1, NEXT, 2, Some((9, 3)))], &[], 1, &format!("{EPOCH}: 3 unexplained: 5..7"));
    check(&[hole.clone(), gap(1, E, 2, Some((6, 3)))], &[], 1, &format!("{EPOCH}: 1 unexplained: 7"));
    // Gaps may overlap: the one that ends first is used first.
    let two = gap(1, E, 2, Some((20, 1))) + &gap(2, E, 5, Some((6, 2)));
    check(&[hole.clone(), two.clone()], &[], 0, &told);
    check(&[hole.clone(), gap(1, E, 2, Some((20, 1))), gap(1, E, 2, Some((20, 1)))], &[], 1, "2 unexplained: 6..7");
    check(
        &[hole.clone(), gap(1, E, 2, Some((20, 1))), gap(1, E, 2, Some((20, 2)))],
        &[],
        1,
        "gap 1 came again with another content",
    );
    check(&[hole.clone(), gap(1, E, 5, Some((7, 4)))], &[], 1, "gap 1 tells of 4 numbers in 5..7");
    // What a gap tells may have arrived all the same, and what only a gap tells of was there.
    check(&[records(E, 1..=20), two], &[], 0, &format!("{EPOCH}, 1..20: 20 came"));
    check(&[records(E, 1..=4), gap(1, E, 5, Some((9, 4)))], &[], 1, "1 unexplained: 9");
}

#[test]
fn where_an_epoch_ends_is_told() {
    let four = records(E, 1..=4);
    let ended = |dropped| Telemetry { at_start: 0, next_seq: 7, published: 6 - dropped, dropped, depth: 0 };
    check(&[four.clone(), health(E, &ended(0))], &[], 1, &format!("{EPOCH}: 2 unexplained: 5..6"));
    check(&[four.clone(), info_after(5, (E, true, 7))], &[], 1, &format!("{EPOCH}: 2 unexplained: 5..6"));
    check(&[four.clone(), info_after(5, (E, false, 7))], &[], 1, &format!("{EPOCH}: 2 unexplained: 5..6"));
    check(&[four.clone(), info_after(5, (E, true, 4))], &[], 1, &format!("{EPOCH}: ended at 3, but is known up to 4"));
    check(&[four.clone(), info_after(5, (E, false, 4))], &[], 0, &format!("{EPOCH}, 1..4: 4 came"));
    let stop = four.clone() + &health(E, &ended(0)) + &info_after(5, (E, false, 3)) + &gap(9, E, 3, None);
    check(
        &[stop],
        &[],
        0,
        &format!(
            "{EPOCH}, 1..6: 4 came; 2 lost as told (stop 2); what there was from 3 on and did not come is told as lost"
        ),
    );
    let stop = records(E, 2..=4) + &health(E, &ended(0)) + &gap(9, E, 3, None);
    check(&[stop], &[], 1, &format!("{EPOCH}: 1 unexplained: 1"));
}

#[test]
fn what_waits_may_be_missing_while_the_gateway_runs() {
    let waits = |depth| health(E, &Telemetry { at_start: 0, next_seq: 10, published: 9 - depth, dropped: 0, depth });
    let live = records(E, 1..=4) + &records(E, 8..=9);
    check(&[live.clone(), waits(3)], &[], 1, &format!("{EPOCH}: 3 unexplained: 5..7"));
    check(&[live.clone(), waits(3)], &["--running"], 0, &format!("{EPOCH}, 1..9: 6 came; 3 wait"));
    // A counter's values may wait as well.
    let counting = ["--running", "--counter", "m/count"];
    check(&[live.clone(), waits(3)], &counting, 0, "counter m/count, 1..9: 6 came; 3 missing: 5..7");
    check(&[live, waits(2)], &["--running"], 1, &format!("{EPOCH}: 1 of 3 unexplained: 5..7"));
    // Dropped, and the gap comes within ten seconds; and what was numbered since.
    let dropped = health(E, &Telemetry { at_start: 0, next_seq: 10, published: 4, dropped: 3, depth: 2 });
    check(&[records(E, 1..=4), dropped, record(E, 12)], &["--running"], 0, &format!("{EPOCH}, 1..12: 5 came; 7 wait"));
}

#[test]
fn a_number_has_one_content_and_comes_in_order() {
    let reused = record(E, 3).replace(r#"\"value\":3"#, r#"\"value\":4"#);
    check(&[records(E, 1..=4), reused], &[], 1, "number reused: telemetry 262151/3 came again with another content");
    check(&[records(E, 1..=4), late(E, 3)], &[], 0, "4 came; 1 duplicates");
    let elsewhere = record(E, 3).replace("m/count", "m/other");
    check(&[records(E, 1..=4), elsewhere], &[], 1, "number reused: telemetry 262151/3 came again with another content");

    check(&[records(E, 1..=2), record(E, 4), record(E, 3)], &[], 1, "order: telemetry 262151/3 came after 262151/4");
    check(&[records(E, 1..=2), record(E, 4), record(E, 3)], &["--unordered"], 0, "complete: 4 numbers");
    // The backlog of telemetry is a stream of its own; alarms are one.
    check(&[record(E, 5), late(E, 1), late(E, 2), record(E, 6), late(E, 3), late(E, 4)], &[], 0, "1..6: 6 came");
    check(&[late(E, 2), late(E, 1)], &[], 1, "order: late telemetry 262151/1 came after 262151/2");
    let alarms = [record_in("alarm", E, 2, ""), record_in("alarm", E, 1, r#","late":true"#)];
    check(&alarms, &[], 1, "order: alarm 262151/1 came after 262151/2");
    // An earlier start's backlog, and a copy that the broker had kept.
    check(
        &[records(E, 1..=3), info(5, "b"), record(NEXT, 1), late(E, 4), late(NEXT, 2)],
        &[],
        0,
        "complete: 6 numbers",
    );
    // Each run has an order of its own.
    check(&[late(E, 2), info(5, "b"), late(E, 1)], &[], 0, "complete: 2 numbers");
    check(&[kept(&record(E, 3)), record(E, 1), record(E, 2)], &[], 0, "1..3: 3 came");
}

#[test]
fn a_health_that_does_not_add_up_is_an_error() {
    let health = |at_start, dropped| health(E, &Telemetry { at_start, next_seq: 5, published: 6, dropped, depth: 1 });
    check(&[records(E, 1..=4), health(3, 0)], &[], 0, "1..4: 4 came");
    check(&[records(E, 1..=4), health(4, 1)], &[], 0, "1..4: 4 came");
    check(
        &[records(E, 1..=4), health(4, 0)],
        &[],
        1,
        "health does not add up: telemetry: 4 at start and 4 since, but 6 ended and 1 wait",
    );
    check(&[records(E, 1..=5), health(3, 0)], &[], 1, "health knows telemetry 262151 up to 4, after 5 came");
}

#[test]
fn one_who_was_away_learns_it_from_the_totals() {
    let totals = |dropped, depth| {
        let published = 20 - dropped - depth;
        kept(&health(E, &Telemetry { at_start: 0, next_seq: 21, published, dropped, depth }))
    };
    let heard = kept(&info(4, "a")) + &records(E, 12..=15);
    let away = &["--away"];
    check(
        &[heard.clone(), totals(0, 0)],
        away,
        0,
        &format!("{EPOCH}, 1..20: 4 came; 16 not seen here, acknowledged by the broker"),
    );
    check(
        &[heard.clone(), totals(3, 0)],
        away,
        0,
        &format!(
            "{EPOCH}, 1..20: 4 came; 13 not seen here, acknowledged by the broker; 3 lost as told (in gaps not heard 3)"
        ),
    );
    check(
        &[heard.clone(), gap(1, E, 1, Some((9, 2))), totals(3, 0)],
        away,
        0,
        &format!(
            "{EPOCH}, 1..20: 4 came; 13 not seen here, acknowledged by the broker; 3 lost as told (bytes 2, in gaps not \
         heard 1)"
        ),
    );
    check(&[heard.clone(), totals(0, 2)], away, 1, &format!("{EPOCH}: 2 of 16 unexplained: 1..11, 16..20"));
    check(
        &[heard.clone(), totals(0, 2)],
        &["--away", "--running"],
        0,
        &format!("{EPOCH}, 1..20: 4 came; 14 not seen here, acknowledged by the broker; 2 wait"),
    );
    check(&[&heard], away, 1, &format!("{EPOCH}: 11 unexplained: 1..11"));
    // What came after the last health is not covered by it.
    check(
        &[heard.clone(), totals(0, 0), records(E, 21..=21), records(E, 23..=23)],
        away,
        1,
        &format!("{EPOCH}: 1 of 17 unexplained: 1..11, 16..20, 22"),
    );
    // An earlier epoch: at the end nothing of it waits any more.
    let next = |depth| health(NEXT, &Telemetry { at_start: 9, next_seq: 3, published: 11 - depth, dropped: 0, depth });
    check(
        &[heard.clone(), info(5, "b"), records(NEXT, 1..=2), next(0)],
        away,
        0,
        &format!("{EPOCH}, 1..15: 4 came; 11 not seen here, and none of them waits"),
    );
    check(&[heard.clone(), info(5, "b"), records(NEXT, 1..=2), next(3)], away, 1, "3 of 11 unexplained: 1..11");
    // What the broker had kept may be older than what was heard.
    let older = health(E, &Telemetry { at_start: 0, next_seq: 16, published: 10, dropped: 0, depth: 5 });
    check(&[heard.clone(), totals(0, 0), kept(&older)], away, 0, "complete: 20 numbers");
    // Copies that he was away for come again in an order that he can't know.
    check(
        &[heard.clone(), late(E, 16), kept(&info(4, "a")), late(E, 10), totals(0, 0)],
        away,
        0,
        "complete: 20 numbers",
    );
}

#[test]
fn a_state_that_was_wiped_restored_or_cloned_is_found() {
    let wiped = "the state directory was wiped or restored";
    let first = (1 << 16) + 3;
    check(
        &[info(4, "a"), records(E, 1..=3), info(1, "b"), records(first, 1..=3)],
        &[],
        2,
        &format!("{wiped}: start 1 came after start 4"),
    );
    check(&[records(E, 1..=3), records(first, 1..=3)], &[], 2, &format!("{wiped}: start 1 came after start 4"));
    check(
        &[records(NEXT, 1..=3), info(4, "b"), records(E, 1..=3)],
        &[],
        2,
        &format!("{wiped}: start 4 came after start 5"),
    );
    check(
        &[info(4, "a"), records(E, 1..=3), info(4, "b"), records(E + 1, 1..=3)],
        &[],
        2,
        &format!("{wiped}: start 4 came twice"),
    );
    check(
        &[kept(&info(4, "a")), info(1, "b"), records(first, 1..=3)],
        &[],
        2,
        &format!("{wiped}: start 1 came after start 4"),
    );
    check(
        &[info(4, "a"), records(E, 1..=3), kept(&info(1, "b"))],
        &["--away"],
        2,
        &format!("{wiped}: start 1 came after start 4"),
    );
    let turns = [info(4, "a"), records(E, 1..=2), info(4, "b"), records(E + 1, 1..=2), info(4, "a"), records(E, 3..=3)];
    check(&turns, &[], 2, "two gateways (a cloned card?): instances a and b take turns");
    check(&turns, &[], 2, "two gateways (a cloned card?): epochs 262151 and 262152 take turns");
    let turns = [records(E, 1..=2), records(E + 1, 1..=2), records(E, 3..=3)];
    check(&turns, &[], 2, "two gateways (a cloned card?): epochs 262151 and 262152 take turns");
    // A broker that came back from an older state shows the run before; the gateway then says that it is there.
    check(
        &[info(4, "a"), info(5, "b"), kept(&info(4, "a")), info(5, "b"), records(NEXT, 1..=2)],
        &[],
        0,
        "complete: 2 numbers",
    );
    check(&[info(5, "b"), kept(&info(4, "a")), info(5, "b"), records(NEXT, 1..=2)], &[], 0, "complete: 2 numbers");
    check(&[info(5, "b"), records(NEXT, 1..=2), late(E, 1), record(NEXT, 3)], &[], 0, "complete: 4 numbers");
}

#[test]
fn what_the_sensor_counts_must_be_there() {
    let counter = &["--counter", "m/count"];
    check(&[records(E, 1..=20)], counter, 0, "counter m/count, 1..20: 20 came");
    check(
        &[records(E, 1..=20)],
        &["--counter", "m/count", "--to", "21"],
        1,
        "counter m/count: 21 did not come, and the gaps there tell of 0 lost",
    );
    check(
        &[records(E, 1..=20)],
        &["--counter", "m/other"],
        1,
        "counter m/other: 1 did not come, and the gaps there tell of 0 lost",
    );
    // Values that have no numbers at all: nothing but the counter can know.
    let shifted: String = (1..=9).map(|seq| record(E, seq).replace("\\\"value\\\":", "\\\"value\\\":1")).collect();
    check(&[shifted], &["--counter", "m/count", "--from", "11"], 0, "counter m/count, 11..19: 9 came");
    let skipped = record(E, 1) + &record(E, 2).replace(r#"\"value\":2"#, r#"\"value\":5"#);
    check(&[&skipped], counter, 1, "counter m/count: 2..4 did not come, and the gaps there tell of 0 lost");
    let overflow = |count| json!({ "n": 1, "device": "m", "point": null, "count": count, "cause": "overflow" });
    check(&[skipped.clone(), line("gap", &overflow(3).to_string())], counter, 0, "2 came; 3 missing: 2..4");
    check(&[skipped.clone(), line("gap", &overflow(2).to_string())], counter, 1, "the gaps there tell of 2 lost");
    // What one hole took is not there for the next.
    let again = record(E, 3).replace(r#"\"value\":3"#, r#"\"value\":8"#);
    let twice = [skipped, again, line("gap", &overflow(4).to_string())];
    check(&twice, counter, 1, "counter m/count: 6..7 did not come, and the gaps there tell of 1 lost");
    check(&[records(E, 1..=2), records(E, 5..=9), gap(1, E, 1, Some((9, 2)))], counter, 0, "7 came; 2 missing: 3..4");
    let back = record(E, 1) + &record(E, 2) + &record(E, 3).replace(r#"\"value\":3"#, r#"\"value\":1"#);
    check(&[back], counter, 1, "counter m/count: 262151/3 has 1, after 2");
    // Between two starts, what was young at the end of the first.
    let restart = records(E, 1..=2) + &record(NEXT, 1).replace(r#"\"value\":1"#, r#"\"value\":5"#);
    check(&[&restart], counter, 1, "counter m/count: 3..4 did not come, and the gaps there tell of 0 lost");
    check(&[restart, gap(1, E, 2, None)], counter, 0, "3 came; 2 missing: 3..4");
}

#[test]
fn an_audit_is_called_right_or_told() {
    assert_eq!(audit_code(&["--nonsense"]), Some(64));
    assert_eq!(audit_code(&["--help"]), Some(0));
}

fn audit_code(arguments: &[&str]) -> Option<i32> {
    let auditor = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audit");
    std::process::Command::new(auditor).args(arguments).output().unwrap().status.code()
}
