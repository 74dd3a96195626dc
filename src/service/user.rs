//! The user that the service runs as, and what its unit lets it open: for who asks as root, who may open all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Its name, and the groups that the unit adds to those it is a member of, where the unit itself does not say
/// (`systemd/sluicegate.service`).
const NAME: &str = "sluicegate";
const SUPPLEMENTARY_GROUPS: [&str; 2] = ["gpio", "dialout"];

/// Folders that the unit hides, and by what.
const HIDDEN: [(&str, &str); 5] = [
    ("/home", "ProtectHome="),
    ("/root", "ProtectHome="),
    ("/run/user", "ProtectHome="),
    ("/tmp", "PrivateTmp="),
    ("/var/tmp", "PrivateTmp="),
];

/// Where units are, the first before the others.
const PLACES: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// What is needed of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To read it.
    Read,
    /// To read and write it: a device.
    Device,
    /// To write below it: a folder.
    Keep,
}

/// The user of a unit of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    id: u32,
    groups: BTreeSet<u32>,
    unit: Unit,
}

/// What a unit says, by the names of its settings; several of one name in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Unit(BTreeMap<String, Vec<String>>);

impl Unit {
    /// Reads a unit and its drop-ins, as systemd finds them below this root; nothing where there is none. systemd itself is
    /// not asked: to start a program takes 50 kB of this one.
    fn find(root: &Path, name: &str) -> Self {
        // Of an instance: the template, and what is for it alone.
        let template = name.split_once('@').map(|(stem, _)| format!("{stem}@"));
        let names: Vec<&str> = template.iter().map(String::as_str).chain([name]).collect();
        let places = PLACES.map(|place| root.join(place));
        let whole =
            names.iter().rev().flat_map(|name| places.iter().map(move |place| place.join(format!("{name}.service"))));
        let text = whole.filter_map(|path| fs::read_to_string(path).ok()).next().unwrap_or_default();
        let mut drop_ins = BTreeMap::new();
        for name in &names {
            for place in places.iter().rev() {
                let folder = fs::read_dir(place.join(format!("{name}.service.d")));
                let paths = folder.into_iter().flatten().flatten().map(|entry| entry.path());
                let conf = paths.filter(|path| path.extension().is_some_and(|end| end == "conf"));
                // By their names, whatever the folder; one of the owner's takes the place of the system's.
                drop_ins.extend(conf.filter_map(|path| Some((path.file_name()?.to_owned(), path))));
            }
        }
        let more = drop_ins.into_values().filter_map(|path| fs::read_to_string(path).ok());
        Self::parse(&std::iter::once(text).chain(more).collect::<Vec<_>>().join("\n"))
    }

    fn parse(text: &str) -> Self {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
        for (name, value) in lines.filter_map(|line| line.split_once('=')) {
            let values = settings.entry(name.to_owned()).or_default();
            // An empty one forgets those before.
            if value.is_empty() { values.clear() } else { values.push(value.to_owned()) }
        }
        Unit(settings)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// What counts of a setting that has one value.
    fn says(&self, name: &str, value: &str) -> bool {
        self.values(name).last() == Some(value)
    }
}

impl ServiceUser {
    /// That of this unit. `None` where this process is not root's, or there is no such user. Reads `/etc/passwd`,
    /// `/etc/group` and the unit's files.
    pub fn seen_by_root(unit: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let unit = Unit::find(Path::new("/"), unit);
        Self::parse(&fs::read_to_string("/etc/passwd").ok()?, &fs::read_to_string("/etc/group").ok()?, unit)
    }

    /// From the texts of `/etc/passwd` and `/etc/group`.
    fn parse(users: &str, groups: &str, unit: Unit) -> Option<Self> {
        let user = unit.values("User").last().unwrap_or(NAME);
        let (id, own_group) = users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(user)?.strip_prefix(':')?.split(':');
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })?;
        let mut of_unit: Vec<&str> = unit.values("SupplementaryGroups").flat_map(str::split_whitespace).collect();
        if of_unit.is_empty() {
            of_unit = SUPPLEMENTARY_GROUPS.to_vec();
        }
        let others = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            let member = fields.next().is_some_and(|members| members.split(',').any(|member| member == user));
            (member || of_unit.contains(&name)).then_some(id)
        });
        Some(ServiceUser { id, groups: others.chain([own_group]).collect(), unit })
    }

    /// Why it may not do this with a file, and how that is mended; `None`: it may, or there is no such file.
    pub fn refused(&self, path: &Path, need: Need) -> Option<String> {
        let path = path.canonicalize().ok()?;
        self.hidden(&path).or_else(|| self.forbidden(&path, need)).or_else(|| self.not_permitted(&path, need))
    }

    /// By the unit, which hides folders of people.
    fn hidden(&self, path: &Path) -> Option<String> {
        let (folder, by) = HIDDEN.iter().find(|(folder, _)| path.starts_with(folder))?;
        let is_off = by.starts_with("ProtectHome") && self.unit.says("ProtectHome", "no");
        let text =
            || format!("{} is hidden from the service ({by} for {folder}): keep it in /etc/sluicegate", path.display());
        (!is_off).then(text)
    }

    /// By the unit, which lets it write only below its own folders, and open only some classes of devices.
    fn forbidden(&self, path: &Path, need: Need) -> Option<String> {
        match need {
            Need::Read => None,
            Need::Device if path.starts_with("/sys") => self
                .unit
                .says("ProtectKernelTunables", "yes")
                .then(|| format!("{} is read-only for the service: its drop-in sysfs.conf opens /sys", path.display())),
            Need::Device => {
                let file = fs::metadata(path).ok().filter(|file| file.file_type().is_char_device())?;
                let devices = fs::read_to_string("/proc/devices").ok()?;
                let class = class(&devices, rustix::fs::major(file.rdev()))?;
                let mut allowed = self.unit.values("DeviceAllow").filter_map(|rule| rule.split(' ').next()).peekable();
                allowed.peek()?;
                let is_it = |rule: &str| rule == format!("char-{class}") || Path::new(rule) == path;
                (!allowed.any(is_it)).then(|| {
                    format!(
                        "the unit does not let the service open {0}: a drop-in with DeviceAllow=char-{class} rw does",
                        path.display()
                    )
                })
            }
            Need::Keep => {
                let mut own = self.unit.values("ReadWritePaths").flat_map(str::split_whitespace);
                let is_own = path.starts_with("/var/lib/sluicegate")
                    || path.to_str().is_some_and(|path| path.starts_with("/var/lib/sluicegate@"))
                    || own.any(|folder| path.starts_with(folder.trim_start_matches(['-', '+'])));
                (!is_own).then(|| {
                    format!("the service may not write below {0}, and would keep all in memory: a drop-in with ReadWritePaths={0} lets it", path.display())
                })
            }
        }
    }

    /// By the files' owners and modes.
    fn not_permitted(&self, path: &Path, need: Need) -> Option<String> {
        for folder in path.ancestors().skip(1) {
            if !self.has(folder, 0o1)? {
                return Some(format!(
                    "the service's user may not look into {}: keep the file in /etc/sluicegate",
                    folder.display()
                ));
            }
        }
        let shown = path.display();
        let (bits, word, remedy) = match need {
            Need::Read => (0o4, "read", format!("`chgrp {NAME} {shown} && chmod 640 {shown}`")),
            // The kernel lets nobody read some of its files.
            Need::Device if path.starts_with("/sys") => {
                (0o2, "write", "a udev rule must let one of its groups".to_owned())
            }
            Need::Device => (
                0o6,
                "read and write",
                "a udev rule must give it to the group gpio or dialout, with mode 0660".to_owned(),
            ),
            Need::Keep => (0o7, "write below", format!("`chown {NAME}: {shown}`")),
        };
        let text = || format!("the service's user may not {word} {shown}: {remedy}");
        (!self.has(path, bits)?).then(text)
    }

    /// Whether it has these permissions, as in the last digit of a mode.
    fn has(&self, path: &Path, bits: u32) -> Option<bool> {
        let file = fs::metadata(path).ok()?;
        let shift = if file.uid() == self.id {
            6
        } else if self.groups.contains(&file.gid()) {
            3
        } else {
            0
        };
        Some(file.mode() >> shift & bits == bits)
    }
}

/// What the kernel calls the character devices of this number, by the text of `/proc/devices`.
fn class(devices: &str, major: u32) -> Option<&str> {
    let of_characters = devices.lines().take_while(|line| !line.starts_with("Block"));
    of_characters
        .filter_map(|line| line.trim().split_once(' '))
        .find_map(|(number, name)| (number.parse() == Ok(major)).then_some(name.trim()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GROUPS: &str = "root:x:0:\ndialout:x:20:pi\nadm:x:4:pi,sluicegate\nbroken\ngpio:x:997:\nvideo:x:44:pi\n";

    #[test]
    fn its_groups_are_its_own_those_it_is_in_and_the_units() {
        let users = "root:x:0:0::/root:/bin/sh\nsluicegate:x:990:989::/var/lib/sluicegate:/usr/sbin/nologin\n";
        let user = ServiceUser::parse(users, GROUPS, Unit::default()).unwrap();
        assert_eq!((user.id, user.groups), (990, BTreeSet::from([989, 4, 20, 997])));
        assert_eq!(ServiceUser::parse("pi:x:1000:1000:::\nsluicegate:x\n", GROUPS, Unit::default()), None);
        let unit = Unit::parse("User=pi\nSupplementaryGroups=video\nReadWritePaths=\n");
        let user = ServiceUser::parse("pi:x:1000:1001::/home/pi:\n", GROUPS, unit).unwrap();
        assert_eq!((user.id, user.groups), (1000, BTreeSet::from([1001, 4, 20, 44])));
    }

    #[test]
    fn what_it_may_not_do_is_told_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(folder.path(), 0o755);
        let group = fs::metadata(&path).unwrap().gid();
        let nobody = ServiceUser { id: u32::MAX, groups: BTreeSet::new(), unit: Unit::default() };
        let member = ServiceUser { id: u32::MAX, groups: BTreeSet::from([group]), unit: Unit::default() };
        mode(&path, 0o640);
        let told = nobody.not_permitted(&path, Need::Read).unwrap();
        assert!(told.contains("may not read ") && told.contains("chmod 640"), "{told}");
        assert_eq!(member.not_permitted(&path, Need::Read), None);
        assert!(member.not_permitted(&path, Need::Device).unwrap().contains("udev"));
        mode(&path, 0o606);
        assert!(member.not_permitted(&path, Need::Read).is_some(), "the kernel asks the group before the others");
        assert_eq!(nobody.not_permitted(&path, Need::Device), None);
        mode(folder.path(), 0o700);
        assert!(nobody.not_permitted(&path, Need::Read).unwrap().contains("may not look into"));
        assert_eq!(nobody.refused(&folder.path().join("none"), Need::Read), None);
    }

    #[test]
    fn what_the_unit_refuses_is_told() {
        let unit = "DeviceAllow=char-ttyUSB rw\nDeviceAllow=/dev/null rw\nReadWritePaths=/data -/srv/x\nProtectKernelTunables=yes\n";
        let user = ServiceUser { id: u32::MAX, groups: BTreeSet::new(), unit: Unit::parse(unit) };
        let said = |path: &str, need| user.hidden(Path::new(path)).or_else(|| user.forbidden(Path::new(path), need));
        for (path, need, expected) in [
            ("/home/pi/password", Need::Read, "hidden from the service (ProtectHome= for /home)"),
            ("/tmp/ca.pem", Need::Read, "PrivateTmp="),
            ("/dev/zero", Need::Device, "DeviceAllow=char-mem rw"),
            ("/sys/class/gpio/export", Need::Device, "sysfs.conf"),
            ("/data2", Need::Keep, "ReadWritePaths=/data2"),
        ] {
            assert!(said(path, need).is_some_and(|text| text.contains(expected)), "{path}: {:?}", said(path, need));
        }
        for (path, need) in [
            ("/etc/sluicegate/ca.pem", Need::Read),
            ("/dev/null", Need::Device),
            ("/data/queue", Need::Keep),
            ("/srv/x", Need::Keep),
            ("/var/lib/sluicegate@a", Need::Keep),
        ] {
            assert_eq!(said(path, need), None, "{path}");
        }
    }

    #[test]
    fn a_unit_is_read_with_its_drop_ins() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "usr/lib/systemd/system/s.service",
            "[Service]\n# User=no\nUser=s\nSupplementaryGroups=gpio\nProtectHome=yes\n",
        );
        write("usr/lib/systemd/system/s.service.d/a.conf", "[Service]\nSupplementaryGroups=no\n");
        write("etc/systemd/system/s.service.d/a.conf", "[Service]\nSupplementaryGroups=dialout video\n");
        write("etc/systemd/system/s.service.d/b.conf", "[Service]\nProtectHome=no\n");
        write("lib/systemd/system/s@.service", "[Service]\nReadWritePaths=/a\n");
        write("etc/systemd/system/s@x.service.d/c.conf", "[Service]\nReadWritePaths=\nReadWritePaths=/b\n");
        let unit = Unit::find(root.path(), "s");
        assert_eq!(unit.values("SupplementaryGroups").collect::<Vec<_>>(), ["gpio", "dialout video"]);
        assert!(unit.says("User", "s") && unit.says("ProtectHome", "no") && !unit.says("ProtectHome", "yes"));
        assert_eq!(Unit::find(root.path(), "s@x").values("ReadWritePaths").collect::<Vec<_>>(), ["/b"]);
        assert_eq!(Unit::find(root.path(), "t"), Unit::default());
    }

    #[test]
    fn the_kernel_says_what_a_device_is() {
        let devices = "Character devices:\n  1 mem\n  4 ttyS\n188 ttyUSB\n\nBlock devices:\n  7 loop\n";
        assert_eq!(class(devices, 188), Some("ttyUSB"));
        assert_eq!(class(devices, 7), None);
    }
}
