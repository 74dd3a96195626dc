//! Which ports there are, as config. None is opened: that alone may reset what is behind it (DTR).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::device::access::denied;
use crate::device::discover::{Board, entries, quoted, read};
use crate::device::port::rivals;
use crate::device::port::usb::{self, Usb};

/// The parts of the kernel's serial core that newer kernels put between a port and its driver.
const CORE: [&str; 2] = ["port", "ctrl"];

/// Adds the ports to what the board has.
pub(super) fn discover(board: &mut Board) {
    board.part("serial ports");
    let ttys: Vec<String> =
        board.entries("sys/class/tty").into_iter().filter(|tty| is_port(board.root(), tty)).collect();
    if ttys.is_empty() {
        board.note("There is none: no UART that the kernel has a driver for, and no USB adapter.");
        return;
    }
    board
        .note("Each line is taken as text at first. `sluicegate list-kinds serial` shows how JSON, CSV, key=value and");
    board.note("others are read, and `sluicegate try DEVICE` what comes.");
    for tty in &ttys {
        show(board, tty, &ttys);
    }
}

/// Whether there is hardware behind it: consoles and pseudo-terminals belong to no device, and a UART that was not found
/// is of no type.
fn is_port(root: &Path, tty: &str) -> bool {
    let folder = root.join("sys/class/tty").join(tty);
    folder.join("device").exists() && read(&folder.join("type")).is_none_or(|kind| kind != "0")
}

fn show(board: &mut Board, tty: &str, ttys: &[String]) {
    let root = board.root().to_owned();
    let usb = usb::usb(&root, tty);
    let is_twin = |other: &String| match (&usb, usb::usb(&root, other)) {
        (Some(one), Some(two)) => one.is_twin(&two),
        _ => false,
    };
    let is_one_of_many = ttys.iter().any(is_twin);
    board.gap();
    board.note(&format!("{tty}: {}", about(&root, tty, usb.as_ref())));
    let port = port(&root, tty, is_one_of_many);
    if is_one_of_many {
        board.note(
            "Another adapter has the same name and no serial number: known by its place, it must stay where it is.",
        );
    }
    let node = root.join("dev").join(tty);
    match access(&node, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => {}
        Err(rustix::io::Errno::ACCESS) => board.note(&denied(&node)),
        Err(error) => board.note(&format!("/dev/{tty} can't be used: {}", io::Error::from(error))),
    }
    let rivals = rivals::of_tty(&root, tty);
    for rival in &rivals {
        match rival.is_gateway() {
            true => board.note("The running gateway has it."),
            false => board.note(&rival.to_string()),
        }
    }
    let is_on = !rivals.iter().any(rivals::Rival::holds);
    let wish = usb.as_ref().map_or(tty, |usb| usb.product.as_str());
    let device = board.name(wish, tty);
    board.config(is_on, &format!("[device.{device}]"), "");
    board.config(is_on, "kind = \"serial\"", "");
    board.config(is_on, &format!("port = {}", quoted(&port)), "");
    board.config(is_on, "baud_rate = 9600", "as the sensor's manual says");
    board.config(is_on, &format!("[device.{device}.point]"), "");
    board.config(is_on, "line = { type = \"text\" }", "");
}

fn about(root: &Path, tty: &str, usb: Option<&Usb>) -> String {
    let driver = driver(root, tty).map(|driver| format!(", driver {driver}")).unwrap_or_default();
    match usb {
        Some(Usb { vendor, model, maker, product, serial, .. }) => {
            let serial = serial.as_ref().map(|serial| format!(", serial number {serial}")).unwrap_or_default();
            let name = [maker.as_str(), product].join(" ");
            format!("USB, {} ({vendor}:{model}){serial}{driver}", name.trim())
        }
        None => format!("a UART of the board{driver}"),
    }
}

fn driver(root: &Path, tty: &str) -> Option<String> {
    let device = fs::canonicalize(root.join("sys/class/tty").join(tty).join("device")).ok()?;
    let named = |folder: &Path| {
        let at = fs::read_link(folder.join("driver")).ok()?;
        let name = at.file_name()?.to_str()?.to_owned();
        (!CORE.contains(&name.as_str())).then_some(name)
    };
    device.ancestors().find_map(named)
}

/// The name that the port keeps longest.
fn port(root: &Path, tty: &str, is_one_of_many: bool) -> String {
    let link = |folder: &str| {
        let names: BTreeSet<String> = entries(&root.join(folder)).into_iter().collect();
        let leads = |name: &String| {
            let at = fs::read_link(root.join(folder).join(name)).ok();
            at.is_some_and(|at| at.file_name().is_some_and(|name| name == tty))
        };
        names.into_iter().find(leads).map(|name| format!("/{folder}/{name}"))
    };
    // A Raspberry Pi calls the UART on its pins /dev/serial0, whichever of its UARTs that is.
    let alias = || {
        let names = ["dev/serial0", "dev/serial1"];
        names.into_iter().find(|name| fs::read_link(root.join(name)).is_ok_and(|at| at.ends_with(tty)))
    };
    let by_id = if is_one_of_many { None } else { link("dev/serial/by-id") };
    by_id
        .or_else(|| alias().map(|name| format!("/{name}")))
        .or_else(|| link("dev/serial/by-path"))
        .unwrap_or_else(|| format!("/dev/{tty}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::device::testing::{tree, uncommented_is_right};

    fn board(files: &[(&str, &str)], links: &[(&str, &str)]) -> TempDir {
        let root = tree(files);
        for (path, target) in links {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }
        root
    }

    fn shown(root: &TempDir) -> String {
        let mut board = Board::new(root.path());
        discover(&mut board);
        uncommented_is_right(board.text());
        board.text().to_owned()
    }

    #[test]
    fn a_uart_is_shown_where_it_is_real_and_off_where_a_console_is_on_it() {
        let root = board(
            &[
                ("sys/class/tty/ttyS0/type", "0\n"),
                ("sys/class/tty/ttyAMA0/type", "32\n"),
                ("sys/class/tty/ttyAMA0/dev", "204:64\n"),
                ("sys/class/tty/tty1/dev", "4:1\n"),
                ("sys/class/tty/console/active", "tty1 ttyAMA0\n"),
                ("proc/cmdline", "console=ttyAMA0,115200 console=tty1\n"),
                ("sys/devices/soc/serial/ctrl/port/uevent", ""),
                ("dev/ttyAMA0", ""),
            ],
            &[
                ("sys/class/tty/ttyS0/device", "../../../devices/soc"),
                ("sys/class/tty/ttyAMA0/device", "../../../devices/soc/serial/ctrl/port"),
                ("sys/devices/soc/serial/driver", "../../bus/amba/drivers/uart-pl011"),
                ("sys/devices/soc/serial/ctrl/driver", "../../bus/serial-base/drivers/ctrl"),
                ("sys/devices/soc/serial/ctrl/port/driver", "../../bus/serial-base/drivers/port"),
                ("dev/serial0", "ttyAMA0"),
            ],
        );
        let text = shown(&root);
        for expected in [
            "\n# ttyAMA0: a UART of the board, driver uart-pl011\n# the kernel's console is on ttyAMA0: take `console=",
            "\n#[device.ttyAMA0]\n#kind = \"serial\"\n#port = \"/dev/serial0\"\n#baud_rate",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("tty1:") && !text.contains("ttyS0"), "{text}");
    }

    #[test]
    fn adapters_have_their_ids_and_twins_their_places() {
        let usb = |n: u32, serial: Option<&str>, product: &str| {
            let folder = format!("sys/devices/usb1/1-{n}");
            let mut files = vec![
                (format!("{folder}/idVendor"), "1a86\n".to_owned()),
                (format!("{folder}/idProduct"), "7523\n".to_owned()),
                (format!("{folder}/product"), format!("{product}\n")),
                (format!("{folder}/1-{n}:1.0/ttyUSB{n}/uevent"), String::new()),
                (format!("sys/class/tty/ttyUSB{n}/dev"), format!("188:{n}\n")),
                (format!("dev/ttyUSB{n}"), String::new()),
            ];
            files.extend(serial.map(|serial| (format!("{folder}/serial"), format!("{serial}\n"))));
            files
        };
        let files = [usb(0, None, "USB Serial"), usb(1, None, "USB Serial"), usb(2, Some("A1"), "x\"\n[mqtt]\nurl=1")];
        let files: Vec<(String, String)> = files.concat();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let links = [
            ("sys/class/tty/ttyUSB0/device", "../../../devices/usb1/1-0/1-0:1.0/ttyUSB0"),
            ("sys/class/tty/ttyUSB1/device", "../../../devices/usb1/1-1/1-1:1.0/ttyUSB1"),
            ("sys/class/tty/ttyUSB2/device", "../../../devices/usb1/1-2/1-2:1.0/ttyUSB2"),
            ("sys/devices/usb1/1-2/1-2:1.0/driver", "../../bus/usb/drivers/ch341"),
            ("dev/serial/by-id/usb-1a86_USB_Serial-if00-port0", "../../ttyUSB1"),
            ("dev/serial/by-id/usb-1a86_A1-if00-port0", "../../ttyUSB2"),
            ("dev/serial/by-path/pci-0-port0", "../../ttyUSB0"),
            ("dev/serial/by-path/pci-1-port0", "../../ttyUSB1"),
        ];
        let text = shown(&board(&files, &links));
        for expected in [
            "\n[device.USB-Serial]\nkind = \"serial\"\nport = \"/dev/serial/by-path/pci-0-port0\"\n",
            "\n[device.USB-Serial-2]\nkind = \"serial\"\nport = \"/dev/serial/by-path/pci-1-port0\"\n",
            "\n# ttyUSB2: USB, x\"\\n[mqtt]\\nurl=1 (1a86:7523), serial number A1, driver ch341\n[device.x-mqtt-url-1]\n",
            "\nport = \"/dev/serial/by-id/usb-1a86_A1-if00-port0\"\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert_eq!(text.matches("known by its place").count(), 2, "{text}");
    }

    #[test]
    fn a_board_without_ports_says_so() {
        let root = board(&[("sys/class/tty/tty1/dev", "4:1")], &[]);
        assert!(shown(&root).contains("There is none"));
    }
}
