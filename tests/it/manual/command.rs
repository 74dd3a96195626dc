//! sluicegate(1).

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use clap_mangen::Man;

use super::roff::{bold, entry, prose};

/// The whole page.
pub(super) fn page() -> String {
    let mut command = sluicegate::cli::definition().disable_help_subcommand(true).subcommand_value_name("COMMAND");
    command.build();
    let man = Man::new(command.clone())
        .title("SLUICEGATE")
        .source(format!("sluicegate {}", env!("CARGO_PKG_VERSION")))
        .manual("Sluicegate");
    let mut head = Vec::new();
    man.render_title(&mut head).unwrap();
    man.render_name_section(&mut head).unwrap();
    man.render_synopsis_section(&mut head).unwrap();
    let mut options = Vec::new();
    man.render_options_section(&mut options).unwrap();
    let mut page = String::from_utf8(head).unwrap();
    writeln!(page, ".SH DESCRIPTION\n{}", sentence(command.get_about())).unwrap();
    page.push_str(include_str!("description.man"));
    page.push_str(".SH COMMANDS\n");
    for part in command.get_subcommands() {
        page.push_str(&subcommand(part));
    }
    page.push_str(&String::from_utf8(options).unwrap());
    page.push_str(include_str!("sections.man"));
    page
}

/// What it is asked by, what it does, and its own options.
fn subcommand(command: &Command) -> String {
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_global_set() && arg.get_id() != "help" && arg.get_id() != "version")
        .collect();
    let mut usage = command.get_name().to_owned();
    for arg in &own {
        write!(usage, " {}", if arg.is_required_set() { spelled(arg) } else { format!("[{}]", spelled(arg)) }).unwrap();
    }
    let mut text = entry(&[&usage], &sentence(command.get_about()));
    if !own.is_empty() {
        text.push_str(".RS\n");
        for arg in own {
            write!(text, ".TP\n{}\n{}\n", bold(&spelled(arg)), prose(&sentence(arg.get_help()))).unwrap();
            let values: Vec<String> = arg.get_possible_values().iter().map(|value| bold(value.get_name())).collect();
            if arg.get_action().takes_values() && !values.is_empty() {
                writeln!(text, "One of {}.", values.join(", ")).unwrap();
            }
        }
        text.push_str(".RE\n");
    }
    text
}

/// As it was written: clap takes the full stop away.
fn sentence(said: Option<&StyledStr>) -> String {
    format!("{}.", said.unwrap())
}

/// As it is typed.
fn spelled(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().join(" ").to_uppercase();
    match arg.get_long() {
        None if values.is_empty() => arg.get_id().as_str().to_uppercase(),
        None => values,
        Some(long) if !arg.get_action().takes_values() => format!("--{long}"),
        Some(long) if arg.get_num_args().is_some_and(|count| count.min_values() == 0) => format!("--{long} [{values}]"),
        Some(long) => format!("--{long} {values}"),
    }
}
