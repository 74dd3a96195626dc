//! The manual pages and the shells' completions in `docs/`, held equal to what they are made of: the command line's own
//! definition, the shipped config, of which tests hold that it shows every key with its default, and the kinds' samples.
//!
//! `SLUICEGATE_WRITE=1 cargo test --test it manual` writes them anew. They are kept with the source since packages are
//! made for other processors than the one that makes them: so nobody has to build the gateway twice for its manual.

mod command;
mod config;
mod roff;

use std::path::Path;

use clap_complete::{Shell, generate};

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut sluicegate::cli::definition(), "sluicegate", &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_manual_and_the_completions_are_those_of_the_program() {
    for (file, made) in [
        ("docs/man/sluicegate.1", command::page()),
        ("docs/man/sluicegate.toml.5", config::page()),
        ("docs/completions/sluicegate.bash", completion(Shell::Bash)),
        ("docs/completions/sluicegate.fish", completion(Shell::Fish)),
        ("docs/completions/_sluicegate", completion(Shell::Zsh)),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("SLUICEGATE_WRITE").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "{file} is out of date: SLUICEGATE_WRITE=1 cargo test --test it manual");
    }
}

/// What is written by hand still says all that the program has.
#[test]
fn the_manual_names_every_exit_status_and_every_variable() {
    let source = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let page = command::page();
    let cli = source("src/cli.rs");
    let codes: Vec<&str> = cli.lines().filter_map(|line| line.strip_prefix("const ")?.split("u8 = ").nth(1)).collect();
    assert!(codes.len() > 3, "{codes:?}");
    for code in codes.iter().map(|code| code.trim_end_matches(';')) {
        assert!(page.contains(&format!(".TP\n.B {code}\n")), "exit status {code}");
    }
    for file in ["src/service/mod.rs", "src/config/gateway.rs", "src/link/secret.rs", "src/model/time.rs"] {
        let text = source(file);
        let names = text.split('"').filter(|word| {
            (word.ends_with("_DIRECTORY") || word.ends_with("_ID"))
                && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        });
        for name in names {
            assert!(page.contains(&format!(".B {name}\n")), "{name}, of {file}");
        }
    }
}
