//! A small table read key by key, bytes as the config spells them, and a place where certain bytes stand.
//!
//! What serde makes for a struct is code for each of its keys, by the kilobyte. Tables with many keys, few of which are ever
//! written, are read by these few functions.

use std::time::Duration;

use toml::{Table, Value};

use crate::model::{Fault, Span};

/// A table that is read, and what is wrong in it.
pub(in crate::device) struct Keys<'a> {
    table: &'a Table,
    known: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<'a> Keys<'a> {
    /// Nothing of it is read yet.
    pub(in crate::device) fn of(table: &'a Table) -> Self {
        Keys { table, known: Vec::new(), faults: Vec::new() }
    }

    /// Notes what is wrong with a key; with the table, where it is empty.
    pub(in crate::device) fn wrong(&mut self, key: &str, text: impl Into<String>) {
        self.faults.push(Fault::at(key, text));
    }

    /// Takes over what is wrong in a table below.
    pub(in crate::device) fn below<T>(&mut self, path: &[&str], read: Result<T, Vec<Fault>>) -> Option<T> {
        read.map_err(|faults| self.faults.extend(faults.into_iter().map(|fault| fault.under(path)))).ok()
    }

    /// Whether a key is written.
    pub(in crate::device) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.table.get(key)
    }

    fn fitting<T>(&mut self, key: &'static str, found: Option<T>, expected: &str) -> Option<T> {
        if found.is_none() {
            self.wrong(key, format!("expected {expected}"));
        }
        found
    }

    /// A text.
    pub(in crate::device) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        let value = self.take(key)?;
        self.fitting(key, value.as_str(), "text in quotes")
    }

    /// A text, or a list of them.
    pub(in crate::device) fn texts(&mut self, key: &'static str) -> Option<Vec<&'a str>> {
        let value = self.take(key)?;
        let found = match value {
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            other => other.as_str().map(|text| vec![text]),
        };
        self.fitting(key, found, "text in quotes, or a list of such")
    }

    /// Yes or no.
    pub(in crate::device) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        self.fitting(key, value.as_bool(), "true or false")
    }

    /// One of these words, by its place.
    pub(in crate::device) fn choice(&mut self, key: &'static str, words: &[&str]) -> Option<usize> {
        let word = self.text(key)?;
        let place = words.iter().position(|known| *known == word);
        if place.is_none() {
            // As serde says it: the config's messages are made of that.
            self.wrong(key, format!("unknown variant `{word}`, expected one of `{}`", words.join("`, `")));
        }
        place
    }

    /// A whole number.
    pub(in crate::device) fn whole(&mut self, key: &'static str, min: i64, max: i64) -> Option<i64> {
        let value = self.take(key)?;
        let found = value.as_integer().filter(|number| (min..=max).contains(number));
        self.fitting(key, found, &format!("a whole number from {min} to {max}"))
    }

    /// The same for a number of bytes.
    pub(in crate::device) fn count(&mut self, key: &'static str, min: i64, max: i64) -> Option<usize> {
        self.whole(key, min, max).and_then(|count| usize::try_from(count).ok())
    }

    /// A place in a frame, from 0, or below 0 from its end.
    pub(in crate::device) fn place(&mut self, key: &'static str) -> Option<i64> {
        self.whole(key, i64::from(i32::MIN), i64::from(i32::MAX))
    }

    /// A length of time within bounds.
    pub(in crate::device) fn span(&mut self, key: &'static str, min: &str, max: &str) -> Option<Duration> {
        let bound = |text: &str| text.parse::<Span>().map(|span| span.0).unwrap_or_default();
        let text = self.text(key)?;
        let found = text.parse::<Span>().ok().filter(|span| (bound(min)..=bound(max)).contains(&span.0));
        self.fitting(key, found.map(|span| span.0), &format!("{min:?} to {max:?}"))
    }

    /// What a text means.
    pub(in crate::device) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(text).map_err(|text| self.wrong(key, text)).ok()
    }

    /// Bytes, at least one: as text (`"\r"`) or as numbers (`[0x7e]`).
    pub(in crate::device) fn octets(&mut self, key: &'static str) -> Option<Vec<u8>> {
        let value = self.take(key)?;
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
    pub(in crate::device) fn number(&mut self, key: &'static str) -> Option<f64> {
        let value = self.take(key)?;
        #[expect(clippy::cast_precision_loss, reason = "nobody writes one of 2^53 here")]
        let found = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        self.fitting(key, found, "a number")
    }

    /// A table below.
    pub(in crate::device) fn table(&mut self, key: &'static str) -> Option<&'a Table> {
        let value = self.take(key)?;
        self.fitting(key, value.as_table(), "a table")
    }

    /// A list of tables below.
    pub(in crate::device) fn tables(&mut self, key: &'static str) -> Vec<&'a Table> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let found = value.as_array().and_then(|items| items.iter().map(Value::as_table).collect());
        self.fitting(key, found, "a list of tables").unwrap_or_default()
    }

    /// What is wrong so far, where others read the other keys.
    pub(in crate::device) fn faults(self) -> Vec<Fault> {
        self.faults
    }

    /// What was read, unless something is wrong; keys that nobody asked for are.
    pub(in crate::device) fn end<T>(mut self, read: T) -> Result<T, Vec<Fault>> {
        for key in self.table.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let text = format!("unknown field `{key}`, expected one of `{}`", self.known.join("`, `"));
            self.faults.push(Fault::at("", text));
        }
        if self.faults.is_empty() { Ok(read) } else { Err(self.faults) }
    }
}

/// Bytes that stand at a certain place of a frame, by which it is told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Mark {
    /// Where, from 0; below 0 from the end.
    at: i64,
    /// Which.
    is: Vec<u8>,
}

impl Mark {
    /// Reads `{ at = …, is = … }`.
    pub(in crate::device) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let (at, is) = (keys.place("at").unwrap_or_default(), keys.octets("is"));
        if !keys.has("is") {
            keys.wrong("", "expected `is`: the bytes that stand there");
        }
        keys.end(Mark { at, is: is.unwrap_or_default() })
    }

    /// Whether a frame has them.
    pub(in crate::device) fn fits(&self, frame: &[u8]) -> bool {
        place(self.at, frame.len()).and_then(|at| frame.get(at..)).is_some_and(|rest| rest.starts_with(&self.is))
    }
}

/// A place in so many bytes, where one below 0 counts from the end.
pub(super) fn place(at: i64, length: usize) -> Option<usize> {
    let back = usize::try_from(at.unsigned_abs()).ok()?;
    if at < 0 { length.checked_sub(back) } else { Some(back).filter(|at| *at <= length) }
}
