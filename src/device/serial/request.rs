//! What a device is asked, as the config says it and as it is done: one question after the other, each with its answer.

use std::time::Duration;

use toml::Table;

use super::framing::Framing;
use crate::device::decode::{Check, Mark};
use crate::device::template::Template;
use crate::model::{Fault, Keys};

/// A poll that can be done.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) name: Option<String>,
    pub(super) every: Duration,
    pub(super) retries: u8,
    /// In their order. The answer to the last one is what is read.
    pub(super) questions: Vec<Question>,
}

/// What is sent, and what comes back.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) bytes: Vec<u8>,
    pub(super) expect: Option<Mark>,
    /// Frames with this say no.
    pub(super) refusal: Option<Mark>,
    pub(super) timeout: Duration,
    pub(super) framing: Option<Framing>,
    pub(super) baud_rate: Option<u32>,
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_RETRIES: u8 = 2;

impl Poll {
    /// Reads one of the tables `poll`: a question, and besides `every`, `retries`, `name`, and in `first` the questions before it.
    ///
    /// # Errors
    /// What is wrong, by its table.
    pub(super) fn read(table: &Table, check: Option<&Check>) -> Result<Self, Vec<Fault>> {
        let (mut keys, mut questions) = (Keys::of(table), Vec::new());
        for (place, step) in keys.tables("first").into_iter().enumerate() {
            let mut of_step = Keys::of(step);
            let question = Question::read(&mut of_step, check);
            questions.extend(keys.below(&["first", &format!("[{place}]")], of_step.end(question)));
        }
        questions.push(Question::read(&mut keys, check));
        let every = keys.span("every", "10ms", "30d");
        if !keys.has("every") {
            keys.wrong("", "expected `every`: how often it is asked, such as \"5s\"");
        }
        let retries = keys.whole("retries", 0, 100).and_then(|count| u8::try_from(count).ok());
        let name = keys.text("name").map(str::to_owned);
        keys.end(Poll {
            name,
            every: every.unwrap_or_default(),
            retries: retries.unwrap_or(DEFAULT_RETRIES),
            questions,
        })
    }
}

impl Poll {
    /// The longest that one of its answers is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.questions.iter().map(|question| question.timeout).max().unwrap_or_default()
    }

    /// Whether a frame may be the answer that is read.
    pub(super) fn expects(&self, frame: &[u8]) -> bool {
        self.questions.last().is_some_and(|question| question.expects(frame))
    }
}

impl Question {
    /// Whether a frame may be its answer.
    pub(super) fn expects(&self, frame: &[u8]) -> bool {
        self.expect.as_ref().is_none_or(|expect| expect.fits(frame))
    }

    /// Reads what is `send`, the answer to `expect`, its `timeout`, and its `frame` where it is framed in a way of its own (the
    /// device's check is not for it then), and the `baud_rate` of the line once it was sent.
    fn read(keys: &mut Keys<'_>, check: Option<&Check>) -> Self {
        let bytes = keys.parsed("send", |text| {
            let fixed = Template::parse(text, check)?.fixed();
            let has_value = || Err("a poll has no value: expected only text, `{hex:…}` and `{check}`".to_owned());
            fixed.unwrap_or_else(has_value)
        });
        if !keys.has("send") {
            keys.wrong("", "expected `send`: what is sent");
        }
        let expect = keys.table("expect").map(Mark::read);
        let expect = expect.and_then(|read| keys.below(&["expect"], read));
        let framing = keys.table("frame").map(|table| Framing::read(table, false));
        let framing = framing.and_then(|read| keys.below(&["frame"], read));
        let timeout = keys.span("timeout", "10ms", "60s").unwrap_or(DEFAULT_TIMEOUT);
        let baud_rate = keys.whole("baud_rate", 1, i64::from(u32::MAX)).and_then(|rate| u32::try_from(rate).ok());
        Question { bytes: bytes.unwrap_or_default(), expect, refusal: None, timeout, framing, baud_rate }
    }
}
