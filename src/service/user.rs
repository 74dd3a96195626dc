//! The user that the service runs as, for who asks as root: root may open what the service may not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Its name, and the groups that the unit adds to those it is a member of (`systemd/sluicegate.service`).
const NAME: &str = "sluicegate";
const SUPPLEMENTARY_GROUPS: [&str; 2] = ["gpio", "dialout"];

/// What is needed of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To read it.
    Read,
    /// To read and write it: a device.
    ReadWrite,
}

/// The user `sluicegate` of this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    id: u32,
    groups: BTreeSet<u32>,
}

impl ServiceUser {
    /// `None` where this process is not root's, or there is no such user. Reads `/etc/passwd` and `/etc/group`.
    pub fn seen_by_root() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        Self::parse(&fs::read_to_string("/etc/passwd").ok()?, &fs::read_to_string("/etc/group").ok()?)
    }

    /// From the texts of `/etc/passwd` and `/etc/group`.
    fn parse(users: &str, groups: &str) -> Option<Self> {
        let (id, own_group) = users.lines().find_map(|line| {
            let mut fields = line.strip_prefix(NAME)?.strip_prefix(':')?.split(':');
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })?;
        let others = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            let member = fields.next().is_some_and(|members| members.split(',').any(|member| member == NAME));
            (member || SUPPLEMENTARY_GROUPS.contains(&name)).then_some(id)
        });
        Some(ServiceUser { id, groups: others.chain([own_group]).collect() })
    }

    /// Why it may not do this with a file, and how that is mended; `None`: it may, or there is no such file.
    pub fn refused(&self, path: &Path, need: Need) -> Option<String> {
        let path = path.canonicalize().ok()?;
        for folder in path.ancestors().skip(1) {
            if !self.has(folder, 0o1)? {
                return Some(format!(
                    "the service's user `{NAME}` may not look into {}: keep the file in /etc/sluicegate",
                    folder.display()
                ));
            }
        }
        let (bits, word) = match need {
            Need::Read => (0o4, "read"),
            Need::ReadWrite => (0o6, "read and write"),
        };
        if self.has(&path, bits)? {
            return None;
        }
        let remedy = match need {
            Need::Read => format!("`chgrp {NAME} {0} && chmod 640 {0}`", path.display()),
            Need::ReadWrite => "a udev rule must give it to the group gpio or dialout, with mode 0660".to_owned(),
        };
        Some(format!("the service's user `{NAME}` may not {word} {}: {remedy}", path.display()))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GROUPS: &str = "root:x:0:\ndialout:x:20:pi\nadm:x:4:pi,sluicegate\nbroken\ngpio:x:997:\nvideo:x:44:pi\n";

    #[test]
    fn its_groups_are_its_own_those_it_is_in_and_the_units() {
        let users = "root:x:0:0::/root:/bin/sh\nsluicegate:x:990:989::/var/lib/sluicegate:/usr/sbin/nologin\n";
        let user = ServiceUser::parse(users, GROUPS).unwrap();
        assert_eq!((user.id, user.groups), (990, BTreeSet::from([989, 4, 20, 997])));
        assert_eq!(ServiceUser::parse("pi:x:1000:1000:::\nsluicegate:x\n", GROUPS), None);
    }

    #[test]
    fn what_it_may_not_do_is_told_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(folder.path(), 0o755);
        let group = fs::metadata(&path).unwrap().gid();
        let nobody = ServiceUser { id: u32::MAX, groups: BTreeSet::new() };
        let member = ServiceUser { id: u32::MAX, groups: BTreeSet::from([group]) };
        mode(&path, 0o640);
        let told = nobody.refused(&path, Need::Read).unwrap();
        assert!(told.contains("may not read ") && told.contains("chmod 640"), "{told}");
        assert_eq!(member.refused(&path, Need::Read), None);
        assert!(member.refused(&path, Need::ReadWrite).unwrap().contains("udev"));
        mode(&path, 0o606);
        assert!(member.refused(&path, Need::Read).is_some(), "the kernel asks the group before the others");
        assert_eq!(nobody.refused(&path, Need::ReadWrite), None);
        mode(folder.path(), 0o700);
        assert!(nobody.refused(&path, Need::Read).unwrap().contains("may not look into"));
        assert_eq!(nobody.refused(&folder.path().join("none"), Need::Read), None);
    }
}
