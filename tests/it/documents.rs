//! What the documents say is so: their links lead somewhere, and their configs and rights are right.

use std::path::{Path, PathBuf};

use sluicegate::model::event;

use crate::support::Agent;

const DOCUMENTS: [&str; 20] = [
    "README.md",
    "ARCHITECTURE.md",
    "config/brokers/README.md",
    "docs/BROKERS.md",
    "docs/COMMANDS.md",
    "docs/LOCAL-DEVICES.md",
    "docs/MODBUS.md",
    "docs/SERIAL.md",
    "docs/WIRE.md",
    "docs/DURABILITY.md",
    "docs/FLASH.md",
    "docs/SERVICE.md",
    "docs/SYSFS.md",
    "docs/boards/BROKER.md",
    "docs/boards/GENERIC.md",
    "docs/boards/IMX6.md",
    "docs/boards/RASPBERRY-PI.md",
    "docs/boards/RUN.md",
    "tests/lab/README.md",
    "yocto/meta-sluicegate/README.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap()
}

#[test]
fn every_link_leads_somewhere() {
    for document in DOCUMENTS {
        let folder = root().join(document).parent().map(PathBuf::from).unwrap();
        for part in text(document).split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{document}: {target} is not there");
            }
        }
    }
}

#[test]
fn every_file_that_the_code_map_names_is_there() {
    let text = text("ARCHITECTURE.md");
    let sources: Vec<PathBuf> = files(&root().join("src"));
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")) {
        let found = root().join(name).exists() || sources.iter().any(|source| source.ends_with(name));
        assert!(found, "there is no {name}");
    }
}

/// `journalctl -x` explains an event by its id.
#[test]
fn every_event_of_the_journal_is_explained_and_happens() {
    let catalogue = text("systemd/sluicegate.catalog");
    let mut explained: Vec<&str> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
    let mut ids: Vec<&str> = event::ALL.iter().map(|(_, id)| *id).collect();
    explained.sort_unstable();
    ids.sort_unstable();
    assert_eq!(explained, ids, "catalogue and src/model/event.rs differ");
    assert!(ids.is_sorted_by(|one, two| one < two), "an id stands twice");
    let source: String = files(&root().join("src")).iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for (name, _) in event::ALL {
        assert!(source.contains(&format!("MESSAGE_ID = event::{name},")), "nothing says {name}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_config_is_right() {
    let text = text("README.md");
    let configs: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(configs.len() >= 2, "{}", configs.len());
    for config in configs {
        let folder = tempfile::tempdir().unwrap();
        Agent::configure(folder.path(), config);
        let checked = Agent::ask(folder.path(), &["check"]);
        let said = String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(0), "{said}\n{config}");
    }
}

#[test]
fn every_message_is_json() {
    for document in ["README.md", "docs/WIRE.md"] {
        let text = text(document);
        let blocks: Vec<&str> = text.split("```json\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
        assert!(blocks.len() >= 2, "{document}");
        for block in blocks {
            let read: Result<serde_json::Value, _> = serde_json::from_str(block);
            assert!(read.is_ok(), "{document}: {read:?}: {block}");
        }
    }
}

#[test]
fn the_rights_at_the_broker_are_those_of_the_tls_test() {
    let rights = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("topic write sluicegate/"));
        lines.take_while(|line| line.starts_with("topic ")).map(|line| line.replace("pump-house-7", "g")).collect()
    };
    let documented = rights(&text("README.md"));
    assert_eq!(documented.len(), 5);
    assert_eq!(documented, rights(include_str!("tls.rs")));
}

#[test]
fn the_tests_that_durability_names_are_there() {
    let document = text("docs/DURABILITY.md");
    let sources = [files(&root().join("tests/it")), files(&root().join("src/queue"))].concat();
    let sources: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let quoted = document.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = quoted.filter_map(|word| word.rsplit_once("::")).map(|(_, name)| name).collect();
    assert!(tests.len() > 15, "{tests:?}");
    for name in tests {
        assert!(name == "model_tests" || sources.contains(&format!("fn {name}(")), "{name} is no test");
    }
}
