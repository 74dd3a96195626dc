//! `sluicegate decode` of frames of serial devices.

use super::{example, gateway, gga, hex};
use crate::support::Agent;

#[test]
fn a_frame_is_decoded_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    let more = "[device.s]\nkind = \"sim\"\n[device.s.point.x]\nwave = \"sine\"\ntype = \"float\"\n\
                [device.hall]\nkind = \"serial\"\nport = \"/dev/x\"\ndecode = { kind = \"key-value\" }\n\
                [device.hall.point.t]\nfrom = \"T\"\ntype = \"float\"\nmax = 50\nunit = \"Cel\"\n";
    let text = gateway(1)
        + &example("mhz19", "/dev/x", &[])
        + "\n"
        + &example("dlt645", "/dev/x", &[])
        + "\n"
        + &example("nmea", "/dev/x", &[])
        + "\n"
        + more;
    Agent::configure(folder.path(), &text);
    let dlt = "68 25 04 03 02 01 00 68 91 08 33 33 34 33 75 39 45 33 8b 16";
    let short = "68 25 04 03 02 01 00 68 91 04 33 33 34 33 00 16";
    let short = {
        let mut bytes: Vec<u8> = short.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes[14] = bytes[..14].iter().fold(0, |sum, byte| sum.wrapping_add(*byte));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (gga, flipped) = (hex(&gga(8)), hex(&gga(8).replacen("46.9", "46.8", 1)));
    let cases: &[(&str, &str, i32, &[&str])] = &[
        (
            "room",
            "ff 86 02 20 00 00 00 00 58",
            0,
            &[
                "frame: bytes 0 to 8, 9 bytes: ff 86 02 20 00 00 00 00 58",
                "check: sum, complement of two of bytes 1 to 7: expected 58, found 58 at byte 8: right",
                "co2: at 2 0220 (u16): 544 -> 544 ppm",
            ],
        ),
        (
            "room",
            "ff8602200000000059",
            69,
            &["failed: frame: bytes 0 to 8, 9 bytes: ", "expected 58, found 59 at byte 8: wrong"],
        ),
        ("room", "ff 86 02", 69, &["failed: frame: bytes 0 to 2: its end is missing: ff 86 02"]),
        (
            "room",
            "00 ff8602200000000058",
            69,
            &["failed: frame: bytes 0 to 0: no frame begins there", "co2: at 2 0220"],
        ),
        ("room", "ff 01 86 00 00 00 00 00 79", 0, &["co2: not in this frame, by its `when`"]),
        // Options stand where they like.
        ("room", "ff 86 02 20 00 00 00 00 58 --log warn", 0, &["co2: at 2 0220 (u16): 544 -> 544 ppm"]),
        ("room", "ff 8g", 69, &["expected the bytes of a frame in hexadecimal digits"]),
        ("meter", dlt, 0, &["energy: at 14 75394533 (bcd32 little minus 0x33): 120642 -> 1206.42 kWh"]),
        (
            "meter",
            &short,
            69,
            &["failed: energy: at 14 (bcd32 little minus 0x33): the frame ends before, it has 16 bytes"],
        ),
        (
            "mast",
            &gga,
            0,
            &[
                "check: xor of bytes 1 to ",
                "satellites: column 8: 8 -> 8",
                "pressure: not in this frame, by its `when`",
            ],
        ),
        ("mast", &flipped, 69, &["failed: frame: ", "check: xor of bytes 1 to ", ": wrong"]),
        (
            "hall",
            "543d32312e350a",
            0,
            &["frame: bytes 0 to 5, 6 bytes: 54 3d 32 31 2e 35 `T=21.5`", "t: \"T\": 21.5 -> 21.5 Cel"],
        ),
        ("hall", "543d39390a", 0, &["t: \"T\": 99 -> 99 Cel (bad: out of range"]),
        ("hall", "543d780a", 69, &["failed: t: \"T\": x is not a number"]),
        ("hall", "780a", 69, &["failed: decode: it has no pair of key and value"]),
        ("hall", "543d32312e35", 69, &["failed: frame: the last 6 bytes have no end"]),
        ("hall", "0a", 69, &["failed: frame: there is none in these bytes"]),
        ("s", "00", 69, &["`s` is of kind `sim`, which has no frames of its own"]),
        ("nobody", "00", 69, &["there is no device `nobody`"]),
    ];
    for (device, bytes, status, expected) in cases {
        let mut arguments = vec!["decode", device];
        arguments.extend(bytes.split(' '));
        let output = Agent::ask(folder.path(), &arguments);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{device} {bytes}: {text}");
        for part in *expected {
            assert!(text.contains(part), "{device} {bytes}: no `{part}` in\n{text}");
        }
    }
}
