//! What can be set: LEDs, and channels of PWM. Nothing is switched on: a person says what is wired, and what is safe.

use super::{NUMBERED, place};
use crate::device::discover::{Board, quoted, read, unique};
use std::collections::BTreeSet;

/// More channels than this are those of a chip of which few are wired: they are not listed.
const CHANNELS: u32 = 16;

/// Adds them to the points of a device; `names` are those given away.
pub(super) fn show(board: &mut Board, device: &str, names: &mut BTreeSet<String>) {
    leds(board, device, names);
    pwm(board, device, names);
}

/// Whether there are any.
pub(super) fn has(board: &Board) -> bool {
    !board.entries("sys/class/leds").is_empty()
        || board.entries("sys/class/pwm").iter().any(|e| e.starts_with("pwmchip"))
}

fn leds(board: &mut Board, device: &str, names: &mut BTreeSet<String>) {
    for led in board.entries("sys/class/leds") {
        let folder = format!("/sys/class/leds/{led}");
        let of = |file: &str| read(&board.path(&format!("{folder}/{file}")));
        let most = of("max_brightness").and_then(|most| most.parse::<u32>().ok()).unwrap_or(1);
        // `none [heartbeat] timer`: whoever drives it now stops when a command comes.
        let trigger = of("trigger").and_then(|all| Some(all.split_once('[')?.1.split_once(']')?.0.to_owned()));
        let trigger = trigger.filter(|trigger| trigger != "none");
        let note =
            trigger.map_or_else(|| "an LED".to_owned(), |trigger| format!("an LED, which `{trigger}` drives now"));
        let name = unique(&led, "led", names);
        board.gap();
        board.config(false, &format!("[device.{device}.point.{name}]"), &note);
        board.config(false, &format!("path = {}", quoted(&format!("{folder}/brightness"))), "");
        board.config(false, "direction = \"out\"", "");
        if most > 1 {
            board.config(false, "type = \"int\"", "or \"bool\": on is as bright as it can be");
            board.config(false, &format!("max = {most}"), "");
            board.config(false, "safe = 0", "");
        } else {
            board.config(false, "type = \"bool\"", "");
            board.config(false, "safe = false", "");
        }
    }
}

fn pwm(board: &mut Board, device: &str, names: &mut BTreeSet<String>) {
    for chip in board.entries("sys/class/pwm").into_iter().filter(|entry| entry.starts_with("pwmchip")) {
        let folder = format!("/sys/class/pwm/{chip}");
        let channels = read(&board.path(&format!("{folder}/npwm"))).and_then(|count| count.parse().ok()).unwrap_or(0);
        let place = place(board, &folder, "pwmchip");
        let wish = place.device.unwrap_or(chip);
        for channel in 0..channels.min(CHANNELS) {
            let wish = if channels > 1 { format!("{wish}-{channel}") } else { wish.clone() };
            let name = unique(&wish, "pwm", names);
            board.gap();
            let note = if place.is_numbered { NUMBERED } else { "" };
            let note = format!("PWM, in percent; unless a driver has it{note}");
            board.config(false, &format!("[device.{device}.point.{name}]"), &note);
            board.config(false, &format!("path = {}", quoted(&place.pattern)), "");
            board.config(false, &format!("pwm = {{ channel = {channel}, period = \"20ms\" }}"), "");
            board.config(false, "safe = 0", "");
        }
    }
}
