//! `sluicegate try --from` and `decode`: what a site has recorded, on the desk.

use std::path::Path;
use std::pin::pin;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::record::device;
use super::{ANSWERS, ARRIVALS, WRITES, answers};
use crate::config::Config;
use crate::device::{Event, Finding, Rules, Supervisor, Tape, Wiring, read_recording, sum};
use crate::model::{Arrival, DeviceState, Quality, time};
use crate::task::TaskSet;

/// Plays a recording to the driver of a device, and shows its readings, a line each, as [`super::try_device`] does. On a
/// runtime whose clock is paused it takes no longer than the driver works.
///
/// # Errors
/// When the file is no recording of such a device, or the driver does other things than it did.
pub async fn replay(config: Config, name: &str, file: &Path, mut line: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
    let device = device(config, name)?;
    let text = std::fs::read_to_string(file).with_context(|| format!("{} can't be read", file.display()))?;
    let (head, events) = read_recording(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    if head.kind != device.plan.kind {
        let (was, is) = (&head.kind, device.plan.kind);
        bail!("{} was recorded of a device of kind `{was}`, and `{name}` is of kind `{is}`", file.display());
    }
    let on = head.start.rfc3339().map(|date| format!(" on {date}")).unwrap_or_default();
    line(&format!("# {} as sluicegate {} recorded it{on}", head.device, head.version));
    match events.last().and_then(Event::end) {
        None => drop(line("# the recording has no end: the gateway or its file system went away")),
        Some(end) => {
            let lines: Vec<&str> = text.lines().collect();
            let before = lines.iter().rposition(|line| Event::is_end(line)).and_then(|place| lines.get(..place));
            if before.is_none_or(|before| sum(before.iter().copied()) != end) {
                line("# the file is not as it was recorded: it was edited, or is damaged");
            }
        }
    }
    let tape = Tape::play(head, events);
    let player = tape.player().context("a tape that plays has a player")?;
    time::stand_in(player.clock());
    let stop = CancellationToken::new();
    let supervisor = Supervisor::on_desk(tape.clone(), stop.clone());
    let mut tasks = TaskSet::new();
    let (arrivals, mut readings) = mpsc::channel(ARRIVALS);
    let (writes, written) = mpsc::channel(WRITES);
    let (answers, mut answered) = mpsc::channel(ANSWERS);
    let mut states = supervisor.states();
    supervisor.start(&mut tasks, device.plan, Wiring { arrivals, writes: written, answers });
    let mut played = pin!(player.run(&writes));
    let mut shown = None;
    loop {
        let text = tokio::select! {
            biased;
            Ok(()) = states.changed() => {
                let now = states.borrow_and_update().values().next().cloned();
                if now == shown {
                    continue;
                }
                shown = now;
                match &shown {
                    Some(DeviceState::Online) => "# online".to_owned(),
                    Some(DeviceState::Offline { why, .. }) => format!("# offline: {why}"),
                    Some(DeviceState::Starting) | None => continue,
                }
            }
            Some(_) = answered.recv() => continue,
            Some(arrival) = readings.recv() => match arrival {
                Arrival::Reading(reading) => answers::show(&reading),
                Arrival::Lost { count, .. } => format!("# {count} readings came too fast"),
                Arrival::Outcome(_) => continue,
            },
            () = &mut played => break,
        };
        if !line(&text) {
            return Ok(());
        }
    }
    stop.cancel();
    let (differences, count) = player.differences();
    for difference in &differences {
        line(&format!("# {difference}"));
    }
    match count {
        0 => Ok(()),
        1 => bail!("what the driver does here differs from the recording at 1 place"),
        _ => bail!("what the driver does here differs from the recording at {count} places"),
    }
}

/// Shows how a device's driver reads one frame, step by step. False: it does not.
///
/// # Errors
/// When there is no such device, its kind has no frames, or the digits are none.
pub fn decode(config: Config, name: &str, digits: &str, mut line: impl FnMut(&str)) -> anyhow::Result<bool> {
    let device = device(config, name)?;
    let plan = device.plan;
    let bytes = bytes(digits)?;
    let Some(findings) = plan.driver.examine(&bytes) else {
        bail!("`{name}` is of kind `{}`, which has no frames of its own: only `serial` and `modbus` have", plan.kind);
    };
    let mut good = true;
    for finding in findings {
        match finding {
            Finding::Step(text) => line(&text),
            Finding::Fault(text) => {
                good = false;
                line(&format!("failed: {text}"));
            }
            Finding::Value { point, place, raw } => {
                let Some((of, rules, holds)) = plan.points.iter().find(|(of, ..)| of.name == point) else { continue };
                let cooked = Rules::new(of.clone(), rules.clone(), *holds).cook(&raw);
                let unit = of.unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
                match cooked.value {
                    Some(value) => {
                        let bad =
                            if cooked.quality == Quality::Good { "" } else { " (bad: out of range, or not in `map`)" };
                        line(&format!("{point}: {place}: {raw} -> {value}{unit}{bad}"));
                    }
                    None => {
                        good = false;
                        let wanted = of.value_type.map_or("in `map`, or finite", |wanted| wanted.expected());
                        line(&format!("failed: {point}: {place}: {raw} is not {wanted}"));
                    }
                }
            }
        }
    }
    Ok(good)
}

/// Bytes out of hexadecimal digits, as people and programs write them.
fn bytes(text: &str) -> anyhow::Result<Vec<u8>> {
    let mut digits = String::new();
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, ':' | ',' | ';')) {
        digits.push_str(word.strip_prefix("0x").or_else(|| word.strip_prefix("\\x")).unwrap_or(word));
    }
    match base16ct::mixed::decode_vec(&digits) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => bail!("expected the bytes of a frame in hexadecimal digits, such as `ff 86 02 20`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        for text in ["ff0a", "FF 0A", "0xff, 0x0a", "ff:0a\n", "\\xff \\x0a"] {
            assert_eq!(bytes(text).unwrap(), [0xff, 0x0a], "{text}");
        }
        for text in ["", "f", "xyz", "ff 0"] {
            assert!(bytes(text).unwrap_err().to_string().contains("hexadecimal digits"), "{text}");
        }
    }
}
