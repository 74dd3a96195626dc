//! Which lines there are, as config. They are only asked about, never requested.

use std::collections::BTreeSet;
use std::io;

use super::cdev;
use super::chips::{self, Base, is_called};
use crate::device::discover::{Board, quoted, unique};
use crate::device::pattern;
use gpiocdev::line::Direction;

/// A chip with more lines than this is the SoC's own. Its pins may serve a UART, a display or a bus, which asking for them
/// as GPIO would cut off; so a person picks those that are wired.
const MANY: usize = 16;

/// Small chips whose lines are all the board's own, by their labels in Raspberry Pi's kernels: LEDs, the camera's power,
/// the USB hub's reset.
const BOARDS_OWN: [&str; 2] = ["raspberrypi-exp-gpio", "brcmvirt-gpio"];

/// A chip with a character device.
#[derive(Debug)]
struct Chip {
    /// `/dev/gpiochipN`.
    path: String,
    label: String,
    lines: Vec<Line>,
}

/// A line as its chip tells of it.
#[derive(Debug)]
struct Line {
    name: String,
    /// Who has it.
    user: Option<String>,
    is_output: bool,
}

/// Adds the lines to what the board has.
pub(super) fn discover(board: &mut Board) {
    board.part("GPIO");
    let nodes: Vec<String> =
        board.entries("sys/bus/gpio/devices").into_iter().filter(|name| name.starts_with("gpiochip")).collect();
    let mut found = Vec::new();
    for node in &nodes {
        let path = board.path(&format!("dev/{node}"));
        match chip(node, &path) {
            Ok(chip) => found.push(chip),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                board.note(&format!("{node} has no /dev/{node}: is /dev a devtmpfs, or does udev run?"));
            }
            Err(error) => board.note(&cdev::refusal(&path, &error)),
        }
    }
    let bases = chips::bases(&board.path("sys/class/gpio"));
    match (nodes.is_empty(), bases.is_empty()) {
        (false, _) => show(board, &found),
        (true, false) => show_sysfs(board, &bases),
        (true, true) => board.note("There is no GPIO chip: neither /dev/gpiochip0 nor one in /sys/class/gpio."),
    }
}

fn chip(node: &str, path: &std::path::Path) -> io::Result<Chip> {
    std::fs::metadata(path)?;
    let chip = gpiocdev::Chip::from_path(path).map_err(|error| cdev::cause(&error))?;
    let info = chip.info().map_err(|error| cdev::cause(&error))?;
    let line = |offset| {
        let info = chip.line_info(offset).map_err(|error| cdev::cause(&error))?;
        let user = if info.consumer.is_empty() { "the kernel".to_owned() } else { info.consumer };
        let is_output = info.direction == Direction::Output;
        Ok(Line { name: info.name, user: info.used.then_some(user), is_output })
    };
    let lines = (0..info.num_lines).map(line).collect::<io::Result<_>>()?;
    Ok(Chip { path: format!("/dev/{node}"), label: info.label, lines })
}

fn show(board: &mut Board, chips: &[Chip]) {
    if chips.is_empty() {
        return;
    }
    board.note(
        "An input tells of each change. An output is { line = …, direction = \"out\", safe = false }, and must say",
    );
    board.note("what level is safe. `sluicegate list-kinds gpio` shows all keys.");
    for chip in chips {
        show_chip(board, chip, chips);
    }
}

fn show_chip(board: &mut Board, chip: &Chip, chips: &[Chip]) {
    let free = |line: &&Line| line.user.is_none();
    let is_soc = chip.lines.len() > MANY || BOARDS_OWN.contains(&chip.label.as_str());
    board.gap();
    board.note(&format!("{} `{}`: {} lines", chip.path, chip.label, chip.lines.len()));
    if chip.lines.iter().any(|line| free(&line)) {
        if is_soc {
            board.note(
                "Only a few of these are free for you: the others serve the board itself. Choose those that are wired.",
            );
        }
        let is_on = !is_soc && chip.lines.iter().any(|line| free(&line) && !line.is_output);
        let node = chip.path.rsplit('/').next().unwrap_or_default();
        // Not by its bus, whose number is not always the same.
        let wish = pattern::of_i2c(&chip.label).map(|label| label.replace('*', "expander"));
        let device = board.name(wish.as_deref().unwrap_or(&chip.label), node);
        let is_by_node =
            |(offset, line): (usize, &Line)| free(&line) && place(chip, offset, chips).contains(&quoted(&chip.path));
        if chip.lines.iter().enumerate().any(is_by_node) {
            board.note(
                "Its number may be another one's after the next boot, and its label tells it from no other: names of",
            );
            board.note("lines in the device tree (gpio-line-names) would.");
        }
        board.config(is_on, &format!("[device.{device}]"), "");
        board.config(is_on, "kind = \"gpio\"", "");
        board.config(is_on, &format!("[device.{device}.point]"), "");
    }
    let mut points = BTreeSet::new();
    for (offset, line) in chip.lines.iter().enumerate() {
        let name = if line.name.is_empty() { String::new() } else { format!(" `{}`", line.name) };
        match &line.user {
            Some(user) if user.starts_with("sluicegate") => {
                board.note(&format!("line {offset}{name}: the running gateway has it (`{user}`)"));
            }
            Some(user) => board.note(&format!("line {offset}{name}: in use by `{user}`")),
            None => {
                let point = unique(&line.name, &format!("line{offset}"), &mut points);
                let place = place(chip, offset, chips);
                if line.is_output {
                    let text = format!("{point} = {{ line = {place}, direction = \"out\", safe = false }}");
                    board.config(false, &text, &format!("line {offset}, is an output now: say what is safe"));
                } else {
                    board.config(!is_soc, &format!("{point} = {{ line = {place} }}"), &format!("line {offset}"));
                }
            }
        }
    }
}

/// A line by its name where that is the only one, else by its chip: by the label where that is the only one.
fn place(chip: &Chip, offset: usize, chips: &[Chip]) -> String {
    // What is not UTF-8 was replaced.
    let is_whole = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '\u{fffd}');
    let name = &chip.lines.get(offset).map(|line| line.name.clone()).unwrap_or_default();
    if is_whole(name) && chips.iter().flat_map(|chip| &chip.lines).filter(|line| line.name == *name).count() == 1 {
        return quoted(name);
    }
    // An expander's label has the number of its bus, which is another one when the kernel finds the buses in another order.
    let label = pattern::of_i2c(&chip.label).unwrap_or_else(|| chip.label.clone());
    let is_only = chips.iter().filter(|other| is_called(&other.label, &label)).count() == 1;
    let by_label = is_only && is_whole(&label) && !label.contains('/');
    let chip = quoted(if by_label { &label } else { &chip.path });
    format!("{{ chip = {chip}, offset = {offset} }}")
}

/// sysfs says nothing of a line before it is exported.
fn show_sysfs(board: &mut Board, bases: &[Base]) {
    board.note(
        "This kernel has no GPIO character device; sysfs knows the lines by their numbers only. Choose those that",
    );
    board.note("are wired. `sluicegate list-kinds gpio` shows all keys.");
    let folder = board.path("sys/class/gpio");
    for base in bases {
        let last = base.base.saturating_add(base.lines.saturating_sub(1));
        board.gap();
        board.note(&format!("`{}`: lines {} to {last}", base.label, base.base));
        let device = board.name(&base.label, &format!("gpiochip{}", base.base));
        board.config(false, &format!("[device.{device}]"), "");
        board.config(false, "kind = \"gpio\"", "");
        board.config(false, &format!("[device.{device}.point]"), "");
        for number in base.base..=last {
            let exported = super::super::discover::read(&folder.join(format!("gpio{number}/direction")));
            let (more, note) = match exported.as_deref() {
                Some("out") => (", direction = \"out\", safe = false", "somebody has exported it as an output"),
                Some(_) => ("", "somebody has exported it as an input"),
                None => ("", ""),
            };
            board.config(false, &format!("line{number} = {{ line = {{ number = {number} }}{more} }}"), note);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::device::testing::{tree, uncommented_is_right};

    fn line(name: &str, user: Option<&str>, is_output: bool) -> Line {
        Line { name: name.to_owned(), user: user.map(str::to_owned), is_output }
    }

    fn chip(number: usize, label: &str, lines: Vec<Line>) -> Chip {
        Chip { path: format!("/dev/gpiochip{number}"), label: label.to_owned(), lines }
    }

    fn shown(chips: &[Chip]) -> String {
        let root = tree(&[]);
        let mut board = Board::new(root.path());
        show(&mut board, chips);
        uncommented_is_right(board.text());
        board.text().to_owned()
    }

    #[test]
    fn free_inputs_are_proposed_and_outputs_only_as_comments() {
        let lines = vec![
            line("door", None, false),
            line("pump", None, true),
            line("reset", Some("phy \"x\"\n[mqtt]"), true),
            line("", None, false),
            line("set", None, false),
            line("lamp", Some("sluicegate:lamp"), true),
        ];
        let text = shown(&[chip(0, "panel", lines)]);
        let expected = "\
[device.panel]
kind = \"gpio\"
[device.panel.point]
door = { line = \"door\" }                           # line 0
#pump = { line = \"pump\", direction = \"out\", safe = false } # line 1, is an output now: say what is safe
# line 2 `reset`: in use by `phy \"x\"\\n[mqtt]`
line3 = { line = { chip = \"panel\", offset = 3 } }  # line 3
set-2 = { line = \"set\" }                           # line 4
# line 5 `lamp`: the running gateway has it (`sluicegate:lamp`)
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn of_a_soc_nothing_is_switched_on() {
        let text =
            shown(&[chip(0, "pinctrl-bcm2711", (0..58).map(|n| line(&format!("GPIO{n}"), None, false)).collect())]);
        assert!(
            text.contains("\n#[device.pinctrl-bcm2711]\n") && text.contains("\n#GPIO17 = { line = \"GPIO17\" } "),
            "{text}"
        );
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        // The Pi's firmware has eight more, which are no header's.
        let text =
            shown(&[chip(0, "raspberrypi-exp-gpio", vec![line("BT_ON", None, true), line("CAM_GPIO", None, false)])]);
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    }

    #[test]
    fn what_has_no_name_of_its_own_is_named_by_its_place() {
        let lines = || vec![line("same", None, false), line("odd\u{fffd}", None, false), line("a\"b\\", None, false)];
        let text = shown(&[chip(0, "twin", lines()), chip(1, "twin", lines()), chip(2, "a/b\n", lines())]);
        for expected in [
            "\n[device.twin]\n",
            "\n[device.twin-2]\n",
            "\nsame = { line = { chip = \"/dev/gpiochip1\", offset = 0 } }",
            "\nodd = { line = { chip = \"/dev/gpiochip0\", offset = 1 } }",
            "\n[device.a-b]\n",
            "\nsame = { line = { chip = \"/dev/gpiochip2\", offset = 0 } }",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        // An expander on I2C by its address alone, where that is the only one.
        for (others, expected) in [("panel", "*-0020"), ("1-0020", "/dev/gpiochip0")] {
            let text = shown(&[chip(0, "0-0020", lines()), chip(1, others, lines())]);
            let expected = format!("\nsame = {{ line = {{ chip = \"{expected}\", offset = 0 }} }}");
            assert!(text.contains(&expected) && text.contains("\n[device.expander-0020]\n"), "{expected}: {text}");
            assert_eq!(text.contains("after the next boot"), others == "1-0020", "{text}");
        }
        let text = shown(&[chip(0, "one", lines())]);
        assert!(text.contains("\na-b = { line = 'a\"b\\' }"), "{text}");
    }

    #[test]
    fn where_there_is_only_sysfs_its_numbers_are_shown() {
        let root = tree(&[
            ("sys/class/gpio/gpiochip32/base", "32\n"),
            ("sys/class/gpio/gpiochip32/ngpio", "3\n"),
            ("sys/class/gpio/gpiochip32/label", "ath79\n"),
            ("sys/class/gpio/gpio33/direction", "out\n"),
            ("sys/devices/soc/uevent", ""),
        ]);
        symlink("../../../devices/soc", root.path().join("sys/class/gpio/gpiochip32/device")).unwrap();
        let mut board = Board::new(root.path());
        discover(&mut board);
        let text = board.text();
        uncommented_is_right(text);
        assert!(
            text.contains("\n#line32 = { line = { number = 32 } }\n#line33 = { line = { number = 33 }, direction"),
            "{text}"
        );
        assert!(text.contains("# `ath79`: lines 32 to 34\n#[device.ath79]\n"), "{text}");
    }

    #[test]
    fn a_board_without_chips_or_nodes_says_so() {
        for (files, expected) in [
            (&[][..], "There is no GPIO chip"),
            (&[("sys/bus/gpio/devices/gpiochip0/uevent", "")][..], "gpiochip0 has no /dev/gpiochip0"),
        ] {
            let root = tree(files);
            let mut board = Board::new(root.path());
            discover(&mut board);
            assert!(board.text().contains(expected), "{}", board.text());
        }
    }
}
