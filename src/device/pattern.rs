//! Names with what the kernel numbers left out: `*` stands for any characters, `?` for one.

/// Whether a name fits a pattern.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            tails.any(|at| name.get(at..).is_some_and(|tail| fits(rest.as_str(), tail)))
        }
        Some(wanted) => {
            let mut characters = name.chars();
            characters.next().is_some_and(|found| wanted == '?' || wanted == found)
                && fits(rest.as_str(), characters.as_str())
        }
    }
}

/// The pattern of what the kernel calls a chip by its bus, which it numbers: `*-0020` for the chip at 0x20 of any I2C bus.
pub(super) fn of_i2c(name: &str) -> Option<String> {
    let (bus, address) = name.split_once('-')?;
    let is_bus = !bus.is_empty() && bus.bytes().all(|byte| byte.is_ascii_digit());
    (is_bus && address.len() == 4 && address.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| format!("*-{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_what_the_kernel_numbers() {
        for (pattern, name, expected) in [
            ("hwmon*", "hwmon0", true),
            ("hwmon*", "hwmon", true),
            ("hwmon?", "hwmon12", false),
            ("iio:device?", "iio:device0", true),
            ("*_input", "temp1_input", true),
            ("*_input", "temp1_label", false),
            ("t*1*t", "temp1_input", true),
            ("*", "", true),
            ("?", "", false),
            ("28-*", "28-0316ä", true),
            ("28-?", "28-ä", true),
            ("*-0020", "12-0020", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_chip_on_i2c_is_known_by_its_address() {
        for (name, expected) in [
            ("0-0020", Some("*-0020")),
            ("12-004a", Some("*-004a")),
            ("28-0316a279b0ff", None),
            ("panel-0020", None),
            ("-0020", None),
            ("0-00ä", None),
        ] {
            assert_eq!(of_i2c(name).as_deref(), expected, "{name}");
        }
    }
}
