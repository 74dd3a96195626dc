//! Reading a table, with all that is wrong in it put into words.

use super::error::{Finding, Part};
use super::words::{CHOICE, MISSING};
use crate::model::Fault;

/// Reads a table; `None` when anything is wrong.
pub(super) fn read<T>(
    table: &toml::Table,
    base: &[&str],
    of: fn(&toml::Table) -> Result<T, Vec<Fault>>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let faults = match of(table) {
        Ok(value) => return Some(value),
        Err(faults) => faults,
    };
    let seen = |faults: Vec<Fault>| faults.into_iter().map(|fault| Finding::of(fault, base)).collect::<Vec<_>>();
    let found = seen(faults);
    for finding in &found {
        let path = &finding.path;
        // What is misspelt is not missing.
        if finding.text == MISSING && found.iter().any(|other| is_slip(other, path)) {
            continue;
        }
        let mut finding = finding.clone();
        complete(&mut finding, |wrong| {
            let mut table = table.clone();
            super::layers::set(&mut table, path.get(base.len()..)?, wrong);
            let said = seen(of(&table).err()?);
            said.into_iter().find(|said| said.path == *path).map(|said| said.text)
        });
        findings.push(finding);
    }
    None
}

/// Whether this is said of a key that may have been meant for the one at this path.
fn is_slip(finding: &Finding, path: &[String]) -> bool {
    let around = path.get(..path.len().saturating_sub(1)).unwrap_or_default();
    finding.part == Part::Key
        && finding.path.len() == path.len()
        && finding.path.starts_with(around)
        && path.last().is_some_and(|key| finding.text.contains(&format!("`{key}`")))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Keys, Span};

    fn sample(table: &toml::Table) -> Result<(), Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("wait");
        let (_, _): (Option<Span>, _) = (keys.time("wait"), keys.whole("count", 1, 9));
        let _: BTreeMap<String, i64> = keys.map("list", toml::Value::as_integer, "a whole number");
        keys.inner("inner", |table| {
            let mut keys = Keys::of(table);
            keys.needs("on");
            keys.flag("on");
            keys.end(())
        });
        keys.choice("mode", &["fast", "slow"]);
        keys.end(())
    }

    fn check(text: &str, expected: &[&str]) {
        let mut findings = Vec::new();
        let read = read(&text.parse().unwrap(), &["top"], sample, &mut findings);
        let found: Vec<String> =
            findings.iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(read.is_some(), expected.is_empty(), "{text}");
    }

    #[test]
    fn all_that_is_wrong_is_found() {
        check("wait = \"1s\"", &[]);
        check("wait = \"1s\"\nwiat = 1", &["top.wiat: unknown key (did you mean `wait`?)"]);
        check("wiat = 1", &["top.wiat: unknown key (did you mean `wait`?)"]);
        check("wait = \"1s\"\nmode = 5", &["top.mode: expected \"fast\" or \"slow\""]);
        check("wait = 1", &["top.wait: expected a duration such as \"30s\", found 1"]);
        check("", &["top.wait: this key is missing: expected a duration such as \"30s\""]);
        check(
            "count = 12\nlist = { a = \"x\" }\ninner = { no = true, on = 1 }",
            &[
                "top.wait: this key is missing: expected a duration such as \"30s\"",
                "top.count: expected a whole number from 1 to 9, found 12",
                "top.list.a: expected a whole number, found \"x\"",
                "top.inner.on: expected true or false, found 1",
                "top.inner.no: unknown key, expected on",
            ],
        );
    }
}
