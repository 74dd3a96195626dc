//! Reading a struct from a table, with all that is wrong in it and not only the first.

use serde::de::DeserializeOwned;

use super::error::{Finding, Part};
use super::words::{self, CHOICE, MISSING, Meaning};
use crate::model::{self, Fault};

/// Reads a table. Unknown keys are reported and passed over; `None` when anything else is wrong.
pub(super) fn read<T: DeserializeOwned>(
    mut table: toml::Table,
    base: &[&str],
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let mut sound = true;
    // What is wrong is reported and taken out, until the rest can be read.
    loop {
        let fault = match model::read::<T>(&table) {
            Ok(value) => return sound.then_some(value),
            Err(fault) => fault,
        };
        let mut finding = Finding::of(fault, base);
        let mut here = finding.path.get(base.len()..).unwrap_or_default().to_vec();
        if finding.part == Part::Value {
            sound = false;
            if finding.text == MISSING {
                // What was wrong was taken out, and is not missing; nor is what was misspelt.
                let known = findings.iter().any(|other| is_about(other, &finding.path));
                complete(&mut finding, |wrong| said::<T>(&table, &here, wrong));
                // The table around it is of no more use.
                here.pop();
                if !known {
                    findings.push(finding);
                }
                if take_out(&mut table, &here) {
                    continue;
                }
                return None;
            }
            complete(&mut finding, |wrong| said::<T>(&table, &here, wrong));
        }
        findings.push(finding);
        if !take_out(&mut table, &here) {
            return None;
        }
    }
}

/// Reads a table that says all that is wrong with it at once.
pub(super) fn whole<T>(
    table: &toml::Table,
    base: &[&str],
    read: fn(&toml::Table) -> Result<T, Vec<Fault>>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let faults = match read(table) {
        Ok(value) => return Some(value),
        Err(faults) => faults,
    };
    for fault in faults {
        let mut finding = Finding::of(fault, base);
        let path = finding.path.clone();
        complete(&mut finding, |wrong| {
            let mut table = table.clone();
            super::layers::set(&mut table, path.get(base.len()..)?, wrong);
            let mut said = read(&table).err()?.into_iter().map(|fault| Finding::of(fault, base));
            said.find(|said| said.path == path).map(|said| said.text)
        });
        findings.push(finding);
    }
    None
}

/// What is said of a wrong value at this path.
fn said<T: DeserializeOwned>(table: &toml::Table, path: &[String], wrong: toml::Value) -> Option<String> {
    let mut table = table.clone();
    super::layers::set(&mut table, path, wrong);
    match words::meaning(&model::read::<T>(&table).err()?.text) {
        Meaning::Wrong(text) => Some(text),
        _ => None,
    }
}

fn is_about(finding: &Finding, path: &[String]) -> bool {
    let slip = |key: &String| {
        finding.part == Part::Key
            && finding.path.len() == path.len()
            && finding.path.starts_with(path.get(..path.len() - 1).unwrap_or_default())
            && finding.text.contains(&format!("`{key}`"))
    };
    finding.path.starts_with(path) || path.last().is_some_and(slip)
}

/// Says what is expected at a key that is missing, or has a value that is no choice. `attempt` puts a wrong value there
/// and returns what is said of it.
pub(super) fn complete(finding: &mut Finding, mut attempt: impl FnMut(toml::Value) -> Option<String>) {
    let missing = finding.text == MISSING;
    if !missing && finding.text != CHOICE {
        return;
    }
    // A switch fits nearly nowhere; where words are to be chosen from, only a wrong word makes it list them.
    let word = || toml::Value::String("?".to_owned());
    let said = if missing { attempt(toml::Value::Boolean(true)).filter(|said| said != CHOICE) } else { None };
    let Some(said) = said.or_else(|| attempt(word())) else { return };
    let expected = said.rsplit_once(", found ").map_or(said.as_str(), |(expected, _)| expected);
    if expected.starts_with("expected ") {
        finding.text = if missing { format!("{MISSING}: {expected}") } else { expected.to_owned() };
    }
}

/// Takes a key out, with all that hangs on it.
fn take_out(table: &mut toml::Table, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key).is_some(),
        [key, rest @ ..] => match table.get_mut(key) {
            Some(toml::Value::Table(inner)) => take_out(inner, rest),
            // What is wrong in a list makes the list useless.
            Some(_) => table.remove(key).is_some(),
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Span, whole};

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors matter")]
    struct Sample {
        wait: Span,
        #[serde(default, deserialize_with = "whole::<_, _, 1, 9>")]
        count: u8,
        #[serde(default)]
        list: Vec<u8>,
        inner: Option<Inner>,
        #[serde(default)]
        mode: Mode,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Fast,
        Slow,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the errors matter")]
    struct Inner {
        on: bool,
    }

    fn check(text: &str, readable: bool, expected: &[&str]) {
        let mut findings = Vec::new();
        let read = read::<Sample>(text.parse().unwrap(), &["top"], &mut findings);
        let found: Vec<String> =
            findings.iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(read.is_some(), readable, "{text}");
    }

    #[test]
    fn all_that_is_wrong_is_found() {
        check("wait = \"1s\"", true, &[]);
        check("wait = \"1s\"\nwiat = 1", true, &["top.wiat: unknown key (did you mean `wait`?)"]);
        check("wiat = 1", false, &["top.wiat: unknown key (did you mean `wait`?)"]);
        check("wait = \"1s\"\nmode = 5", false, &["top.mode: expected \"fast\" or \"slow\""]);
        check("wait = 1", false, &["top.wait: expected a duration such as \"30s\", found 1"]);
        check("", false, &["top.wait: this key is missing: expected a duration such as \"30s\""]);
        check(
            "count = 12\nlist = [1, \"x\"]\ninner = { no = true, on = 1 }",
            false,
            &[
                "top.count: expected a whole number from 1 to 9, found 12",
                "top.inner.no: unknown key, expected on",
                "top.inner.on: expected true or false, found 1",
                "top.list.[1]: expected a whole number from 0 to 255, found \"x\"",
                "top.wait: this key is missing: expected a duration such as \"30s\"",
            ],
        );
    }
}
