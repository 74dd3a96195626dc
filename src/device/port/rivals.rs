//! Who else has a serial port, or may take it, and how to end that. The kernel lets two open a port and share out its
//! bytes between them, so that opening it proves nothing.
//!
//! Only reads procfs and sysfs. What a sandbox or another user's privacy hides is not found.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::device::discover::{entries, read};

/// Who else has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Rival {
    /// The port, below `/dev`.
    tty: String,
    who: Who,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// The kernel writes its messages to it. By which argument, where it can be seen.
    Console(Option<String>),
    /// It is the terminal of a process: somebody may log in there.
    Login(Process),
    /// A process has it open.
    Program(Process),
    /// It runs, and tries out whether a modem answers there.
    ModemManager {
        /// What udev would know the adapter by.
        rule: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    name: String,
    pid: u32,
}

/// What procfs says of a process.
struct Seen {
    process: Process,
    /// The device number of its terminal, as the kernel packs it.
    terminal: u64,
}

impl Rival {
    /// Whether it is a gateway.
    pub(in crate::device) fn is_gateway(&self) -> bool {
        matches!(&self.who, Who::Program(process) if process.name == "sluicegate")
    }

    /// Whether it takes bytes now.
    pub(in crate::device) fn holds(&self) -> bool {
        !matches!(self.who, Who::ModemManager { .. })
    }
}

/// Everybody who has this port, by any of its names. Nobody for what is no tty of a driver.
pub(super) fn of(root: &Path, port: &Path) -> Vec<Rival> {
    let Ok(device) = fs::canonicalize(port) else { return Vec::new() };
    let Some(tty) = device.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    // `/dev/pts/4` has no folder there.
    if device.parent() != Some(&fs::canonicalize(root.join("dev")).unwrap_or_default()) {
        return Vec::new();
    }
    of_tty(root, tty)
}

/// Everybody who has this tty.
pub(in crate::device) fn of_tty(root: &Path, tty: &str) -> Vec<Rival> {
    let Some((major, minor)) = number(root, tty) else { return Vec::new() };
    let rival = |who| Rival { tty: tty.to_owned(), who };
    let mut rivals: Vec<Rival> = console(root, tty).map(rival).into_iter().collect();
    let packed = (major << 8) | (minor & 0xff) | ((minor & !0xff) << 12);
    let mut manager = false;
    let mut has_login = false;
    for pid in entries(&root.join("proc")).iter().filter_map(|name| name.parse().ok()) {
        if pid == std::process::id() {
            continue;
        }
        let Some(seen) = seen(root, pid) else { continue };
        manager |= seen.process.name == "ModemManager";
        if seen.terminal == packed {
            // One is enough: the others are its children.
            if !has_login {
                rivals.push(rival(Who::Login(seen.process)));
            }
            has_login = true;
        } else if has_open(root, pid, tty) {
            rivals.push(rival(Who::Program(seen.process)));
        }
    }
    let known = read(&root.join(format!("run/udev/data/c{major}:{minor}"))).unwrap_or_default();
    let is = |mark: &str| known.lines().any(|line| line == format!("E:{mark}=1"));
    let is_left_alone = is("ID_MM_PORT_IGNORE") || is("ID_MM_DEVICE_IGNORE") || is("ID_MM_TTY_BLACKLIST");
    if manager && is("ID_MM_CANDIDATE") && !is_left_alone {
        rivals.push(rival(Who::ModemManager { rule: rule(root, tty) }));
    }
    rivals
}

/// A tty's device number.
fn number(root: &Path, tty: &str) -> Option<(u64, u64)> {
    let text = read(&root.join("sys/class/tty").join(tty).join("dev"))?;
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn console(root: &Path, tty: &str) -> Option<Who> {
    let line = read(&root.join("proc/cmdline")).unwrap_or_default();
    let of = |word: &&str| word.strip_prefix("console=").is_some_and(|rest| rest.split(',').next() == Some(tty));
    let argument = line.split_whitespace().find(of).map(str::to_owned);
    let active = match read(&root.join("sys/class/tty/console/active")) {
        Some(active) => active.split_whitespace().any(|name| name == tty),
        None => argument.is_some(),
    };
    active.then_some(Who::Console(argument))
}

fn seen(root: &Path, pid: u32) -> Option<Seen> {
    // PID (NAME) STATE PPID PGRP SESSION TERMINAL …, where the name may hold anything.
    let text = read(&root.join(format!("proc/{pid}/stat")))?;
    let (start, rest) = text.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let terminal = rest.split_whitespace().nth(4)?.parse::<i32>().ok()?;
    let process = Process { name: name.to_owned(), pid };
    Some(Seen { process, terminal: u64::from(terminal.cast_unsigned()) })
}

fn has_open(root: &Path, pid: u32, tty: &str) -> bool {
    let folder = root.join(format!("proc/{pid}/fd"));
    let node = PathBuf::from(format!("/dev/{tty}"));
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|at| at == node))
}

/// A rule of udev that keeps ModemManager away from this adapter.
fn rule(root: &Path, tty: &str) -> String {
    let usb = super::usb::usb(root, tty);
    let by = usb.map_or_else(
        || format!("KERNEL==\"{tty}\""),
        |usb| format!("ATTRS{{idVendor}}==\"{}\", ATTRS{{idProduct}}==\"{}\"", usb.vendor, usb.model),
    );
    format!("SUBSYSTEM==\"tty\", {by}, ENV{{ID_MM_PORT_IGNORE}}=\"1\"")
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rival { tty, who } = self;
        match who {
            Who::Console(Some(argument)) => write!(
                f,
                "the kernel's console is on {tty}: take `{argument}` out of the kernel's command line (Raspberry Pi: \
                 /boot/firmware/cmdline.txt, or raspi-config, Interface Options, Serial Port), and restart the board"
            ),
            Who::Console(None) => write!(
                f,
                "the kernel's console is on {tty}: give it another one by console= on the kernel's command line, and \
                 restart the board"
            ),
            Who::Login(process) => write!(
                f,
                "{tty} is for logging in ({process}): systemctl mask --now serial-getty@{tty}.service, or without \
                 systemd take it out of /etc/inittab"
            ),
            Who::Program(process) if process.name == "ModemManager" => write!(
                f,
                "{tty} is held by ModemManager ({process}): systemctl disable --now ModemManager, or keep it away by a \
                 rule of udev"
            ),
            Who::Program(process) => write!(f, "{tty} is in use by another program ({process}): end that"),
            Who::ModemManager { rule } => write!(
                f,
                "ModemManager tries out whether {tty} is a modem when it is plugged in: systemctl disable --now \
                 ModemManager, or in /etc/udev/rules.d/99-no-modem.rules: {rule}"
            ),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`, process {}", self.name, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::device::testing::tree;

    /// Who is found besides this, on a board with a UART `ttyS0` and an adapter `ttyUSB0`.
    fn found(tty: &str, more: &[(&str, &str)]) -> Vec<String> {
        let base = [
            ("dev/ttyS0", ""),
            ("sys/class/tty/ttyS0/dev", "4:64\n"),
            ("sys/class/tty/ttyUSB0/dev", "188:0\n"),
            ("sys/class/tty/console/active", "tty0\n"),
            ("proc/1/stat", "1 (systemd) S 0 1 1 0 -1 4194560"),
            ("proc/300/stat", "300 (of another) S 1 300 300 34816 300 0"),
        ];
        let root = tree(&[&base, more].concat());
        of_tty(root.path(), tty).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_console_is_found_with_its_argument_or_without() {
        let active = ("sys/class/tty/console/active", "tty0 ttyS0\n");
        assert_eq!(found("ttyS0", &[]), [""; 0]);
        let line = ("proc/cmdline", "console=ttyS0,115200 console=tty1 root=/dev/mmcblk0p2");
        let texts = found("ttyS0", &[active, line]);
        assert!(texts.len() == 1 && texts[0].contains("take `console=ttyS0,115200` out of"), "{texts:?}");
        let texts = found("ttyS0", &[active, ("proc/cmdline", "console=ttyS01")]);
        assert!(texts.len() == 1 && texts[0].contains("give it another one by console="), "{texts:?}");
        assert_eq!(found("ttyUSB0", &[active, line]), [""; 0]);
    }

    #[test]
    fn a_login_is_found_by_its_terminal_and_counts_once() {
        let getty = ("proc/512/stat", "512 (agetty) S 1 512 512 1088 512 4194560");
        let shell = ("proc/600/stat", "600 ((a) b) S 512 600 512 1088 600 4194304");
        let texts = found("ttyS0", &[getty, shell]);
        assert!(
            texts.len() == 1 && texts[0].starts_with("ttyS0 is for logging in (`agetty`, process 512)"),
            "{texts:?}"
        );
        // The kernel's way to pack a minor above 255.
        let far = ("proc/512/stat", "512 (agetty) S 1 512 512 1048580 512 0");
        let texts = found("ttyS300", &[("sys/class/tty/ttyS300/dev", "0:260"), far]);
        assert!(texts.len() == 1, "{texts:?}");
    }

    #[test]
    fn a_program_is_found_by_what_it_has_open() {
        for (name, expected) in [
            ("minicom", "ttyUSB0 is in use by another program (`minicom`, process 700): end that"),
            ("ModemManager", "ttyUSB0 is held by ModemManager (`ModemManager`, process 700)"),
        ] {
            let root = tree(&[
                ("sys/class/tty/ttyUSB0/dev", "188:0\n"),
                ("proc/700/stat", &format!("700 ({name}) S 1 700 700 0 -1")),
                ("proc/700/fd/0", ""),
            ]);
            symlink("/dev/ttyUSB0", root.path().join("proc/700/fd/1")).unwrap();
            let rivals = of_tty(root.path(), "ttyUSB0");
            assert!(rivals.len() == 1 && rivals[0].to_string().starts_with(expected), "{rivals:?}");
            assert!(rivals[0].holds() && !rivals[0].is_gateway());
        }
    }

    #[test]
    fn modem_manager_is_told_of_where_it_would_look() {
        let runs = ("proc/700/stat", "700 (ModemManager) S 1 700 700 0 -1");
        let candidate = "run/udev/data/c188:0";
        let texts = found("ttyUSB0", &[runs, (candidate, "E:ID_MM_CANDIDATE=1\nE:ID_VENDOR_ID=0403\n")]);
        assert!(
            texts.len() == 1 && texts[0].contains("KERNEL==\"ttyUSB0\", ENV{ID_MM_PORT_IGNORE}=\"1\""),
            "{texts:?}"
        );
        for left_alone in ["", "E:ID_MM_CANDIDATE=1\nE:ID_MM_PORT_IGNORE=1\n"] {
            assert_eq!(found("ttyUSB0", &[runs, (candidate, left_alone)]), [""; 0]);
        }
        assert_eq!(found("ttyUSB0", &[(candidate, "E:ID_MM_CANDIDATE=1\n")]), [""; 0]);
    }

    #[test]
    fn a_port_is_known_by_any_of_its_names_and_a_pty_is_nobodys() {
        let root = tree(&[
            ("dev/ttyS0", ""),
            ("dev/pts/4", ""),
            ("sys/class/tty/ttyS0/dev", "4:64"),
            ("sys/class/tty/console/active", "ttyS0"),
        ]);
        symlink("ttyS0", root.path().join("dev/serial0")).unwrap();
        assert_eq!(of(root.path(), &root.path().join("dev/serial0")).len(), 1);
        assert_eq!(of(root.path(), &root.path().join("dev/pts/4")), []);
        assert_eq!(of(root.path(), &root.path().join("dev/ttyS7")), []);
    }
}
