//! Buses that devices share, and profiles that they are laid over.

use super::*;

const BUS: &str = "[bus.line]\nport = \"/dev/ttyUSB0\"\n[bus.hall]\naddress = \"10.0.0.5:502\"\n";

fn meter(name: &str, keys: &str) -> String {
    format!("[device.{name}]\nkind = \"modbus\"\n{keys}\n[device.{name}.point.x]\ntable = \"input\"\naddress = 0\n")
}

fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    layered(files, &[]).err().unwrap_or_default()
}

fn text(parts: &[&str]) -> String {
    format!("{RIGHT}{}", parts.concat())
}

#[test]
fn devices_share_a_bus_and_have_it_in_their_tables() {
    let (a, b) = (meter("a", "bus = \"line\"\nunit = 1"), meter("b", "bus = \"line\"\nunit = 2"));
    let c = meter("c", "bus = \"hall\"\nunit = 1");
    let of = |bus: &str| layered(&[(MAIN, &text(&[bus, &a, &b, &c]))], &[]).unwrap().outline();
    let before = of(BUS);
    let after = of(&BUS.replace("/dev/ttyUSB0", "/dev/ttyUSB1"));
    let fates: Vec<(String, Fate)> =
        before.compare(&after).devices.iter().map(|(name, fate)| (name.to_string(), *fate)).collect();
    assert_eq!(fates, [("a".to_owned(), Fate::Changed), ("b".to_owned(), Fate::Changed)]);
}

#[test]
fn what_is_wrong_with_a_bus_is_told_in_its_table() {
    let a = meter("a", "bus = \"line\"\nunit = 1");
    let b = meter("b", "bus = \"line\"\nunit = 2");
    let hall = meter("c", "bus = \"hall\"\nunit = 1");
    let at = |needle: &str, file: &str| file.lines().position(|line| line.contains(needle)).unwrap() + 1;
    for (file, needle, column, expected) in [
        (
            text(&["[bus.line]\nport = \"/dev/a\"\nbaud_rate = 0\n", &a, &b]),
            "baud_rate",
            13,
            "bus.line.baud_rate: expected bits per second, such as 9600",
        ),
        (
            text(&["[bus.line]\nport = \"/dev/a\"\nbaudrate = 1\n", &a, &b]),
            "baudrate",
            1,
            "bus.line.baudrate: unknown key (did you mean `baud_rate`?)",
        ),
        (
            text(&["[bus.line]\nparity = \"none\"\n", &a, &b]),
            "[bus.line]",
            6,
            "bus.line.port: this key is missing: expected the path of a port, or `address`",
        ),
        (text(&[BUS, &a]), "[bus.hall]", 6, "bus.hall: no device has this bus: remove it, or name it in a device"),
        (
            text(&[BUS, &hall, &a.replace("\"line\"", "\"lime\"")]),
            "\"lime\"",
            7,
            "device.a.bus: there is no table [bus.lime] (did you mean `line`?)",
        ),
        (
            text(&[BUS, &a, &hall, &meter("d", "unit = 1\nbus = { port = \"/dev/ttyUSB0\" }")]),
            "bus = {",
            16,
            "device.d.bus.port: `/dev/ttyUSB0`: [bus.line] has it too: expected one table [bus.NAME], which several \
             devices may name",
        ),
        (
            text(&[BUS, &a, &hall, &meter("d", "unit = 1 # too\nbus = \"line\"")]),
            "# too",
            8,
            "device.d.unit: `1`: [device.a] is this slave of the bus: expected all its points there",
        ),
        (
            text(&[BUS, &a, &hall, "[device.b]\nkind = \"modbus\"\nbus = \"line\"\nunit = 2\npoint.x = false\n"]),
            "point.x = false",
            11,
            "device.b.point.x: `false` leaves out a point of a profile, and this device names none: remove it",
        ),
        // What is said of the bus beside it would mislead.
        (
            text(&["[bus.line]\nport = \"/dev/a\"\n", "[device.b]\nprofile = \"acme\"\nbus = \"line\"\nunit = 2\n"]),
            "profile =",
            11,
            "device.b.profile: there is no profile `acme`: expected acme.toml in \
             etc/sluicegate/profiles, usr/share/sluicegate/profiles",
        ),
        (
            text(&[BUS, &a, &hall, "[device.s]\nkind = \"serial\"\nport = \"/dev/ttyUSB0\"\n"]),
            "[device.s]",
            0,
            "device.s.port: `/dev/ttyUSB0`: [bus.line] has it too: expected one table [bus.NAME], which several \
             devices may name",
        ),
    ] {
        let line = at(needle, &file);
        // Of a device, the key stands two lines below its name.
        let (line, column) = if column == 0 { (line + 2, 8) } else { (line, column) };
        assert_eq!(wrong(&[(MAIN, &file)]), [format!("{MAIN}:{line}:{column}: {expected}")], "{file}");
    }
}

const PROFILE: &str = "etc/sluicegate/profiles/acme-1.toml";
const ACME: &str = "kind = \"modbus\"\nevery = \"5s\"\n[point.volts]\ntable = \"input\"\naddress = 0\nunit = \"V\"\n\
                    [point.amps]\ntable = \"input\"\naddress = 6\n";

fn acme(keys: &str) -> String {
    text(&["[device.m]\nprofile = \"acme-1\"\nbus = { address = \"h:502\" }\nunit = 1\n", keys])
}

#[test]
fn a_device_is_laid_over_its_profile() {
    let main = acme(
        "every = \"1s\"\n[device.m.point]\namps = false\nvolts.unit = \"kV\"\nextra = { table = \"coil\", address = 1 }\n",
    );
    for folder in ["etc/sluicegate", "usr/share/sluicegate", "etc/sluicegate/conf.d"] {
        let (profile, drop_in) = (format!("{folder}/profiles/acme-1.toml"), "etc/sluicegate/conf.d/a.toml");
        let config = layered(&[(MAIN, &main), (drop_in, ""), (&profile, ACME)], &[]).unwrap();
        let device = &config.devices[0];
        let points: Vec<_> =
            device.points.iter().map(|plan| (plan.point.name.as_str(), plan.point.unit.as_deref())).collect();
        assert_eq!(points, [("extra", None), ("volts", Some("kV"))]);
        assert_eq!(device.table["every"].as_str(), Some("1s"));
        assert_eq!(device.plan.kind, "modbus");
    }
}

#[test]
fn a_profile_that_changes_changes_its_device() {
    let of = |profile: &str| layered(&[(MAIN, &acme("")), (PROFILE, profile)], &[]).unwrap().outline();
    let difference = of(ACME).compare(&of(&ACME.replace("5s", "6s")));
    assert_eq!(difference.devices.values().collect::<Vec<_>>(), [&Fate::Changed]);
}

#[test]
fn what_is_wrong_with_a_profile_is_told_in_its_file() {
    for (main, profile, expected) in [
        (
            acme(""),
            ACME.replace("address = 6", "address = 70000"),
            format!(
                "{PROFILE}:9:11: device.m.point.amps.address: expected a whole number from 0 to 65535, found 70000"
            ),
        ),
        (
            acme(""),
            ACME.replace("[point.amps]\ntable = \"input\"", "[point.amps]"),
            format!(
                "{PROFILE}:7:8: device.m.point.amps.table: this key is missing: expected \"coil\", \"discrete\", \
                 \"holding\" or \"input\""
            ),
        ),
        (
            acme(""),
            ACME.replace("every", "evry"),
            format!("{PROFILE}:2:1: device.m.evry: unknown key (did you mean `every`?)"),
        ),
        // What the device says itself counts, and is wrong there.
        (
            acme("every = \"0s\""),
            ACME.to_owned(),
            format!("{MAIN}:7:9: device.m.every: `0s`: expected a duration from \"10ms\" to \"24h\""),
        ),
        (
            acme("point.amp = false"),
            ACME.to_owned(),
            format!("{MAIN}:7:7: device.m.point.amp: `acme-1` has no point of this name: nothing is left out"),
        ),
        (
            acme("").replace("acme-1", "acne-1"),
            ACME.to_owned(),
            format!("{MAIN}:4:11: device.m.profile: there is no profile `acne-1` (did you mean `acme-1`?)"),
        ),
        (
            acme("").replace("acme-1", "../x"),
            ACME.to_owned(),
            format!("{MAIN}:4:11: device.m.profile: `../x`: expected the name of a profile, of A-Z, a-z, 0-9, - and _"),
        ),
    ] {
        assert_eq!(wrong(&[(MAIN, &main), (PROFILE, &profile)]), [expected], "{main}\n{profile}");
    }
    let found = wrong(&[(MAIN, &acme("")), (PROFILE, "x = [")]);
    assert!(found.len() == 1 && found[0].starts_with(&format!("{PROFILE}:1:")), "{found:?}");
    assert!(found[0].contains("not TOML"), "{found:?}");
}
