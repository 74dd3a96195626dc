//! The table `[gateway]`: who this gateway is, and where it keeps its state.

use std::path::{Path, PathBuf};

use super::error::Finding;
use super::{Instance, Sources};
use crate::model::{self, Fault, GatewayId};

/// Names that boards have before somebody gives them one. A hundred gateways of one id would throw each other off the
/// broker without end.
const GENERIC: [&str; 27] = [
    "alarm",
    "alpine",
    "archlinux",
    "armbian",
    "bananapi",
    "beaglebone",
    "buildroot",
    "colibri",
    "debian",
    "dietpi",
    "fedora",
    "lede",
    "linaro",
    "linux",
    "localhost",
    "nixos",
    "none",
    "odroid",
    "openwrt",
    "orangepi",
    "poky",
    "raspberry",
    "raspberrypi",
    "raspbian",
    "ubuntu",
    "verdin",
    "yocto",
];

/// What generic names begin with.
const GENERIC_PREFIXES: [&str; 2] = ["qemu", "localhost"];

/// What the names of machines begin with, by which images of OpenEmbedded and Armbian call their hosts: `raspberrypi4-64`,
/// `imx6qdlsabresd`, `beaglebone-yocto`.
const MACHINES: [&str; 16] = [
    "apalis",
    "bananapi",
    "beaglebone",
    "colibri",
    "cubieboard",
    "imx",
    "nanopi",
    "odroid",
    "olinuxino",
    "orangepi",
    "phyboard",
    "raspberrypi",
    "rock",
    "var-som",
    "verdin",
    "visionfive",
];

/// Words of such a name that hold no digit.
const MODELS: [&str; 8] = ["yocto", "zero", "plus", "lite", "pro", "evk", "mini", "nano"];

/// Whether a host is called as its machine. A word of a person's own makes a name of it.
fn is_machine(name: &str) -> bool {
    let is_model = |word: &str| MODELS.contains(&word) || word.contains(|c: char| c.is_ascii_digit());
    let rest = MACHINES.iter().find_map(|machine| name.strip_prefix(machine));
    rest.is_some_and(|rest| rest.split('-').filter(|word| !word.is_empty()).all(is_model))
}

/// What is said where nobody has given the gateway an id yet.
pub(super) const NO_ID: &str = "it has no id yet";

const EXPECTED: &str = "expected an id of its own such as \"pump-house-7\"";

/// Where the state is kept when neither the config nor systemd says so: below this, by the name of the unit.
const STATE_DIRECTORIES: &str = "/var/lib";

/// Who this gateway is, and where it keeps its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Its id, unlike that of any other gateway at the broker.
    pub id: GatewayId,
    /// The file that holds it, where one does.
    pub id_file: Option<PathBuf>,
    /// Holds the queue and the journal; an absolute path.
    pub state_directory: PathBuf,
    /// What the unit's `RuntimeDirectory=` makes, for those who are not run by it.
    pub runtime_directory: PathBuf,
}

/// The table as it is written.
#[derive(Debug)]
pub(super) struct Keys {
    /// The id, or `{ file = "…" }` that holds it; default: the host name up to its first dot, and the
    /// name of the instance.
    id: Option<Id>,
    /// An absolute path, which may hold `{id}`; default: `$STATE_DIRECTORY`, else that of the unit,
    /// `/var/lib/sluicegate` or `/var/lib/sluicegate@NAME`.
    state_directory: Option<PathBuf>,
}

#[derive(Debug)]
enum Id {
    Text(String),
    File(PathBuf),
}

impl Keys {
    /// Reads the table.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = model::Keys::of(table);
        let id = Id::read(&mut keys);
        let state_directory = keys.string("state_directory").map(PathBuf::from);
        keys.end(Keys { id, state_directory })
    }

    /// Completes the table with what the system says.
    pub(super) fn complete(self, sources: &Sources, findings: &mut Vec<Finding>) -> Option<Gateway> {
        let wrong = |key: &str, text: String| Finding::value(&["gateway", key], text);
        let id_file = match &self.id {
            Some(Id::File(path)) => Some(path.clone()),
            _ => None,
        };
        let id = self.id(sources).map_err(|text| findings.push(wrong("id", text))).ok();
        let from_systemd = || {
            // systemd lists several with colons between them; the first is the unit's own.
            let value = sources.environment.get("STATE_DIRECTORY")?;
            value.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        let folder = self
            .state_directory
            .or_else(from_systemd)
            .unwrap_or_else(|| Path::new(STATE_DIRECTORIES).join(sources.unit()));
        if !folder.is_absolute() {
            let text = format!("`{}`: expected an absolute path such as \"/var/lib/sluicegate\"", folder.display());
            findings.push(wrong("state_directory", text));
            return None;
        }
        let id = id?;
        let folder = folder.to_str().map_or_else(|| folder.clone(), |text| text.replace("{id}", id.as_str()).into());
        Some(Gateway { id, id_file, state_directory: folder, runtime_directory: sources.runtime_directory() })
    }

    fn id(&self, sources: &Sources) -> Result<GatewayId, String> {
        let generic = |origin: &str, name: &str| {
            format!(
                "{origin}`{name}` is generic, and two gateways of one id throw each other off the broker: {EXPECTED}"
            )
        };
        let (text, origin) = match &self.id {
            Some(Id::Text(text)) => (text.clone(), ""),
            Some(Id::File(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        format!("{NO_ID}: there is no `{}`, which holds it", path.display())
                    }
                    _ => format!("can't read the id from `{}`: {error}", path.display()),
                })?;
                (text.trim().to_owned(), "in the file, ")
            }
            None => {
                let host = sources.host_name.split('.').next().unwrap_or_default();
                if host.is_empty() {
                    return Err(format!("{NO_ID}: this host has no name to take for one: {EXPECTED}"));
                }
                if is_machine(&host.to_ascii_lowercase()) {
                    return Err(generic(&format!("{NO_ID}: the host name "), host));
                }
                (host.to_owned(), "the host name ")
            }
        };
        let lower = text.to_ascii_lowercase();
        if GENERIC.contains(&lower.as_str()) || GENERIC_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
            let none = if self.id.is_none() { format!("{NO_ID}: {origin}") } else { origin.to_owned() };
            return Err(generic(&none, &text));
        }
        // An id that the image has for all gateways of the board is not an instance's own.
        let text = match &sources.instance {
            Some(Instance(name)) if !sources.instance_says(&["gateway", "id"]) => format!("{text}-{name}"),
            _ => text,
        };
        GatewayId::new(&text).map_err(|error| format!("{origin}{error}"))
    }
}

impl Id {
    fn read(keys: &mut model::Keys<'_>) -> Option<Self> {
        if keys.has_table("id") {
            return keys.inner("id", Id::in_file);
        }
        let text = |value: &toml::Value| value.as_str().map(|text| Id::Text(text.to_owned()));
        keys.any("id", text, "an id such as \"pump-house-7\", or { file = \"…\" }")
    }

    fn in_file(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = model::Keys::of(table);
        keys.needs("file");
        let file = keys.string("file").unwrap_or_default();
        keys.end(Id::File(file.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(text: &str, host_name: &str, state: Option<&str>) -> Result<Gateway, Vec<String>> {
        instance(None, text, host_name, state)
    }

    fn instance(name: Option<&str>, text: &str, host_name: &str, state: Option<&str>) -> Result<Gateway, Vec<String>> {
        let mut sources = Sources::text("test", "");
        sources.instance = name.map(|name| name.parse().unwrap());
        host_name.clone_into(&mut sources.host_name);
        sources.environment.extend(state.map(|path| ("STATE_DIRECTORY".to_owned(), path.to_owned())));
        let mut findings = Vec::new();
        let keys = Keys::read(&text.parse().unwrap()).unwrap();
        keys.complete(&sources, &mut findings).ok_or_else(|| findings.into_iter().map(|f| f.text).collect())
    }

    #[test]
    fn the_system_completes_what_the_config_leaves_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        std::fs::write(&file, "from-file\n").unwrap();
        let in_file = format!("id = {{ file = \"{}\" }}", file.display());
        for (text, host_name, state, id, directory) in [
            ("", "pump-house-7.example.com", None, "pump-house-7", "/var/lib/sluicegate"),
            ("id = \"a\"", "localhost", Some("/var/lib/private/x:/y"), "a", "/var/lib/private/x"),
            ("id = \"a\"\nstate_directory = \"/data/{id}\"", "", Some("/x"), "a", "/data/a"),
            (&in_file, "", None, "from-file", "/var/lib/sluicegate"),
        ] {
            let (state_directory, runtime_directory) = (directory.into(), "/run/sluicegate".into());
            let id_file = (id == "from-file").then(|| file.clone());
            let expected = Gateway { id: GatewayId::new(id).unwrap(), id_file, state_directory, runtime_directory };
            assert_eq!(gateway(text, host_name, state), Ok(expected));
        }
    }

    #[test]
    fn an_instance_has_an_id_and_directories_of_its_own() {
        let found = instance(Some("pumps"), "", "house-7.example.com", None).unwrap();
        assert_eq!(found.id.as_str(), "house-7-pumps");
        assert_eq!(found.state_directory, Path::new("/var/lib/sluicegate@pumps"));
        assert_eq!(found.runtime_directory, Path::new("/run/sluicegate@pumps"));
        let faults = instance(Some("pumps"), "", "raspberrypi", None).unwrap_err();
        assert!(faults.concat().starts_with("it has no id yet: the host name `raspberrypi` is generic"), "{faults:?}");
        for wrong in ["", "a.b", "a/b", "sluicegate", "conf"] {
            assert!(wrong.parse::<crate::config::Instance>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_generic_name_is_no_id() {
        for name in ["raspberrypi", "RaspberryPi", "localhost.localdomain", "OpenWrt", "qemux86-64", "debian"] {
            assert!(gateway("", name, None).unwrap_err()[0].starts_with("it has no id yet: the host name `"), "{name}");
        }
        for name in
            ["raspberrypi4-64", "imx6qdlsabresd", "beaglebone-yocto", "OrangePiZero3", "colibri-imx6", "rock-5b"]
        {
            assert!(gateway("", name, None).is_err(), "{name}");
            assert!(gateway(&format!("id = \"{name}\""), "", None).is_ok(), "{name}: somebody has chosen it");
        }
        for name in ["raspberrypi-garden", "rockland-plant", "imx-hall-3b-pump", "max"] {
            assert!(gateway("", name, None).is_ok(), "{name}");
        }
        let missing = gateway("id = { file = \"/nowhere/id\" }", "", None).unwrap_err();
        assert_eq!(missing, ["it has no id yet: there is no `/nowhere/id`, which holds it"]);
        assert_eq!(
            gateway("id = \"Debian\"", "pump-house-7", None),
            Err(vec![
                "`Debian` is generic, and two gateways of one id throw each other off the broker: expected an id of its \
                 own such as \"pump-house-7\""
                    .to_owned()
            ])
        );
        assert!(gateway("id = \"debian-12\"", "", None).is_ok());
    }
}
