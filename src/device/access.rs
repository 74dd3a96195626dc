//! What to do when a device file can't be opened or written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why a file can't be had, with what mends it.
pub(super) fn refusal(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => denied(path),
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "{} is read-only for the service: its drop-in sysfs.conf opens /sys (docs/SERVICE.md)",
            path.display()
        ),
        _ => format!("{}: {error}", path.display()),
    }
}

/// Permission was denied: who has it.
pub(super) fn denied(path: &Path) -> String {
    let shown = path.display();
    let Ok(file) = fs::metadata(path) else {
        return format!("permission denied for {shown}: let the gateway's user into its folder");
    };
    let (owner, mode) = (file.gid(), file.mode());
    match group(&fs::read_to_string("/etc/group").unwrap_or_default(), owner) {
        Some(name) if mode & 0o060 == 0o060 && owner != 0 => format!(
            "permission denied for {shown}: add the gateway's user to the group `{name}` (usermod -aG {name} USER) and restart it"
        ),
        _ => format!(
            "permission denied for {shown} (owner {}, group {owner}, mode {:03o}): a udev rule must let a group of the gateway's user read and write it",
            file.uid(),
            mode & 0o777
        ),
    }
}

/// The group's name in the text of `/etc/group`.
fn group(groups: &str, id: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_number() {
        let groups = "root:x:0:\n# a comment\ndialout:x:20:pi,anna\nbroken\ngpio:x:997:pi\n";
        assert_eq!(group(groups, 20), Some("dialout"));
        assert_eq!(group(groups, 997), Some("gpio"));
        assert_eq!(group(groups, 2), None);
    }
}
