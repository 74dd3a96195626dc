//! A table read key by key.
//!
//! What serde makes for a struct is code for each of its keys, by the kilobyte. The tables of devices are read by these few
//! functions, which find all that is wrong at once.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use toml::{Table, Value};

use super::{Fault, Rate, Size, Span};

/// Longer values are cut in messages.
const SHOWN: usize = 40;

/// What [`Keys::choice`] says of a value that is no text.
pub const NO_CHOICE: &str = "expected text in quotes";

/// A table that is read, and what is wrong in it. The messages about unknown and missing keys, and words that are none of those
/// to choose from, are put together in the terms of whoever shows them (`config/words.rs`).
#[derive(Debug)]
pub struct Keys<'a> {
    table: &'a Table,
    known: Vec<&'a str>,
    faults: Vec<Fault>,
}

impl<'a> Keys<'a> {
    /// Nothing of it is read yet.
    pub fn of(table: &'a Table) -> Self {
        Keys { table, known: Vec::new(), faults: Vec::new() }
    }

    /// Notes what is wrong with a key; with the table, where it is empty.
    pub fn wrong(&mut self, key: &str, text: impl Into<String>) {
        self.faults.push(Fault::at(key, text));
    }

    /// Takes over what is wrong in a table below.
    pub fn below<T>(&mut self, path: &[&str], read: Result<T, Vec<Fault>>) -> Option<T> {
        read.map_err(|faults| self.faults.extend(faults.into_iter().map(|fault| fault.under(path)))).ok()
    }

    /// Whether a key is written.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// What is written there, whatever it is.
    pub fn value(&mut self, key: &'a str) -> Option<&'a Value> {
        self.known.push(key);
        self.table.get(key)
    }

    fn fitting<T>(&mut self, key: &str, found: Option<T>, expected: &str) -> Option<T> {
        if let (None, Some(value)) = (&found, self.table.get(key)) {
            self.faults.push(unfit(key, value, expected));
        }
        found
    }

    /// A text.
    pub fn text(&mut self, key: &'a str) -> Option<&'a str> {
        let value = self.value(key)?;
        self.fitting(key, value.as_str(), "text in quotes")
    }

    /// The same, to keep.
    pub fn string(&mut self, key: &'a str) -> Option<String> {
        self.text(key).map(str::to_owned)
    }

    /// A text, or a list of them: what one is, is said where it is neither.
    pub fn texts(&mut self, key: &'a str, expected: &str) -> Option<Vec<&'a str>> {
        let Value::Array(items) = self.value(key)? else {
            return self.any(key, Value::as_str, &format!("{expected}, or a list of them")).map(|text| vec![text]);
        };
        let wrong = items.iter().enumerate().filter(|(_, item)| !item.is_str());
        self.faults.extend(wrong.map(|(place, item)| unfit(&format!("{key}[{place}]"), item, expected)));
        Some(items.iter().filter_map(Value::as_str).collect())
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'a str) -> Option<bool> {
        let value = self.value(key)?;
        self.fitting(key, value.as_bool(), "true or false")
    }

    /// One of these words, by its place.
    pub fn choice(&mut self, key: &'a str, words: &[&str]) -> Option<usize> {
        let value = self.value(key)?;
        let Some(word) = value.as_str() else {
            self.wrong(key, NO_CHOICE);
            return None;
        };
        let place = words.iter().position(|known| *known == word);
        if place.is_none() {
            self.wrong(key, format!("unknown variant `{word}`, expected one of `{}`", words.join("`, `")));
        }
        place
    }

    /// The same, by what it stands for.
    pub fn one_of<T: Copy>(&mut self, key: &'a str, names: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        self.choice(key, &words).and_then(|place| names.get(place)).map(|(_, one)| *one)
    }

    /// A key that has to be there.
    pub fn needs(&mut self, key: &'a str) {
        if !self.has(key) {
            self.wrong("", format!("missing field `{key}`"));
        }
    }

    /// A length of time.
    pub fn time(&mut self, key: &'a str) -> Option<Span> {
        self.quantity(key, "a duration such as \"30s\"")
    }

    /// So many in a time.
    pub fn rate(&mut self, key: &'a str) -> Option<Rate> {
        self.quantity(key, "a rate such as \"200/s\"")
    }

    /// So many bytes.
    pub fn size(&mut self, key: &'a str) -> Option<Size> {
        self.quantity(key, "a size such as \"16MiB\"")
    }

    fn quantity<T: FromStr<Err = String>>(&mut self, key: &'a str, expected: &str) -> Option<T> {
        let value = self.value(key)?;
        let Some(text) = value.as_str() else { return self.fitting(key, None, expected) };
        text.parse().map_err(|text: String| self.wrong(key, text)).ok()
    }

    /// A whole number that is a `u16`, from 0 up to this one.
    pub fn small(&mut self, key: &'a str, min: u16, max: u16) -> Option<u16> {
        self.whole(key, min.into(), max.into()).and_then(|number| u16::try_from(number).ok())
    }

    /// A whole number.
    pub fn whole(&mut self, key: &'a str, min: i64, max: i64) -> Option<i64> {
        let value = self.value(key)?;
        let found = value.as_integer().filter(|number| (min..=max).contains(number));
        let expected = match max {
            i64::MAX => format!("a whole number of at least {min}"),
            max => format!("a whole number from {min} to {max}"),
        };
        self.fitting(key, found, &expected)
    }

    /// The same for a number of bytes.
    pub fn count(&mut self, key: &'a str, min: i64, max: i64) -> Option<usize> {
        self.whole(key, min, max).and_then(|count| usize::try_from(count).ok())
    }

    /// The same for a number that is a `u32`.
    pub fn unsigned(&mut self, key: &'a str) -> Option<u32> {
        self.whole(key, 0, u32::MAX.into()).and_then(|number| u32::try_from(number).ok())
    }

    /// A place in a frame, from 0, or below 0 from its end.
    pub fn place(&mut self, key: &'a str) -> Option<i64> {
        self.whole(key, i64::from(i32::MIN), i64::from(i32::MAX))
    }

    /// A length of time within bounds.
    pub fn span(&mut self, key: &'a str, min: &str, max: &str) -> Option<Duration> {
        let bound = |text: &str| text.parse::<Span>().map(|span| span.0).unwrap_or_default();
        let text = self.text(key)?;
        let found = text.parse::<Span>().ok().filter(|span| (bound(min)..=bound(max)).contains(&span.0));
        self.fitting(key, found.map(|span| span.0), &format!("{min:?} to {max:?}"))
    }

    /// What a text means.
    pub fn parsed<T>(&mut self, key: &'a str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        parse(text).map_err(|text| self.wrong(key, text)).ok()
    }

    /// Bytes, at least one: as text (`"\r"`) or as numbers (`[0x7e]`).
    pub fn octets(&mut self, key: &'a str) -> Option<Vec<u8>> {
        let value = self.value(key)?;
        let byte = |value: &Value| value.as_integer().and_then(|number| u8::try_from(number).ok());
        let found = match value {
            Value::String(text) => Some(text.as_bytes().to_vec()),
            Value::Array(items) => items.iter().map(byte).collect(),
            _ => None,
        };
        let found = found.filter(|bytes| !bytes.is_empty());
        self.fitting(key, found, "text such as \"\\r\", or bytes such as [0x7e], and at least one")
    }

    /// A number, whole or not.
    pub fn number(&mut self, key: &'a str) -> Option<f64> {
        let value = self.value(key)?;
        #[expect(clippy::cast_precision_loss, reason = "nobody writes one of 2^53 here")]
        let found = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        self.fitting(key, found, "a number")
    }

    /// What may be of several types.
    pub fn any<T>(&mut self, key: &'a str, read: impl Fn(&'a Value) -> Option<T>, expected: &str) -> Option<T> {
        let value = self.value(key)?;
        self.fitting(key, read(value), expected)
    }

    /// A table below.
    pub fn table(&mut self, key: &'a str) -> Option<&'a Table> {
        let value = self.value(key)?;
        self.fitting(key, value.as_table(), "a table")
    }

    /// What is read from a table below.
    pub fn inner<T>(&mut self, key: &'a str, read: fn(&Table) -> Result<T, Vec<Fault>>) -> Option<T> {
        let table = self.table(key)?;
        self.below(&[key], read(table))
    }

    /// What is read from each of a list of tables below.
    pub fn list<T>(&mut self, key: &'a str, read: fn(&Table) -> Result<T, Vec<Fault>>) -> Vec<T> {
        let mut found = Vec::new();
        for (place, table) in self.tables(key).into_iter().enumerate() {
            found.extend(self.below(&[key, &format!("[{place}]")], read(table)));
        }
        found
    }

    /// A table of values of one type, by names that are no keys.
    pub fn map<T>(&mut self, key: &'a str, read: fn(&Value) -> Option<T>, expected: &str) -> BTreeMap<String, T> {
        let Some(table) = self.table(key) else { return BTreeMap::new() };
        let mut inner = Keys::of(table);
        let mut found = BTreeMap::new();
        for (name, value) in table {
            if let Some(value) = inner.fitting(name, read(value), expected) {
                found.insert(name.clone(), value);
            }
        }
        self.below::<()>(&[key], Err(inner.faults));
        found
    }

    /// Whether a table stands there.
    pub fn has_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_table)
    }

    /// A list of tables below.
    pub fn tables(&mut self, key: &'a str) -> Vec<&'a Table> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let found = value.as_array().and_then(|items| items.iter().map(Value::as_table).collect());
        self.fitting(key, found, "a list of tables").unwrap_or_default()
    }

    /// What is wrong so far, where others read the other keys.
    pub fn faults(self) -> Vec<Fault> {
        self.faults
    }

    /// What was read, unless something is wrong; keys that nobody asked for are.
    pub fn end<T>(mut self, read: T) -> Result<T, Vec<Fault>> {
        for key in self.table.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let text = format!("unknown field `{key}`, expected one of `{}`", self.known.join("`, `"));
            self.faults.push(Fault::at("", text));
        }
        if self.faults.is_empty() { Ok(read) } else { Err(self.faults) }
    }
}

/// A value as messages show it: its beginning, where it is long.
pub fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

fn unfit(key: &str, value: &Value, expected: &str) -> Fault {
    let found = match value {
        Value::String(text) => cut(&format!("{text:?}")),
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        value => value.to_string(),
    };
    Fault::at(key, format!("expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        wait: Span,
        mode: bool,
        names: BTreeMap<String, String>,
        inner: Option<u32>,
    }

    fn read(table: &Table) -> Result<Sample, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("wait");
        let read = Sample {
            wait: keys.time("wait").unwrap_or_default(),
            mode: keys.one_of("mode", &[("fast", true), ("slow", false)]).unwrap_or(true),
            names: keys.map("names", |value| value.as_str().map(str::to_owned), "text in quotes"),
            inner: keys.inner("inner", |table| {
                let mut keys = Keys::of(table);
                let number = keys.unsigned("number").unwrap_or(7);
                keys.end(number)
            }),
        };
        keys.end(read)
    }

    #[test]
    fn a_table_is_read_key_by_key() {
        let text = "wait = \"2s\"\nmode = \"slow\"\nnames = { a = \"b\" }\ninner = {}";
        let names = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let expected = Sample { wait: Span::secs(2), mode: false, names, inner: Some(7) };
        assert_eq!(read(&text.parse().unwrap()), Ok(expected));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let text = "mode = \"last\"\nnames = { a = 1, b = \"x\" }\ninner = { number = -1, other = 1 }\nmore = 1";
        let expected = [
            Fault::at("", "missing field `wait`"),
            Fault::at("mode", "unknown variant `last`, expected one of `fast`, `slow`"),
            Fault::at("names.a", "expected text in quotes, found 1"),
            Fault::at("inner.number", "expected a whole number from 0 to 4294967295, found -1"),
            Fault::at("inner", "unknown field `other`, expected one of `number`"),
            Fault::at("", "unknown field `more`, expected one of `wait`, `mode`, `names`, `inner`"),
        ];
        assert_eq!(read(&text.parse().unwrap()), Err(expected.to_vec()));
        let expected = Fault::at("wait", "expected a duration such as \"30s\", found 30");
        assert_eq!(read(&"wait = 30".parse().unwrap()), Err(vec![expected]));
    }
}
