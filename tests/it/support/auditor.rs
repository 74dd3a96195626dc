//! `tests/audit`, the reference for those who write the receiving side, run on what was heard.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Heard, Observer};

/// What the auditor says.
#[derive(Debug)]
pub(crate) struct Report {
    /// 0: complete; 1: not, or something is wrong; 2: complete, and something was found.
    pub(crate) code: Option<i32>,
    /// All of it, for people.
    pub(crate) text: String,
    totals: serde_json::Value,
}

impl Report {
    /// A sum over all lanes and epochs: `numbers`, `came`, `duplicates`, `lost`, `waiting`, `unseen`, `unexplained`.
    pub(crate) fn total(&self, what: &str) -> u64 {
        self.totals[what].as_u64().unwrap_or(0)
    }

    /// Each number came or was told, and nothing was found that a person should read.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        assert_eq!(self.code, Some(0), "{}", self.text);
    }

    /// It ended with this code, and said this.
    #[track_caller]
    pub(crate) fn assert_says(&self, code: i32, sentence: &str) {
        let said = sentence.is_empty() || self.text.lines().any(|line| line.ends_with(sentence));
        assert!(
            self.code == Some(code) && said,
            "expected {code} and {sentence:?}, not {:?}:\n{}",
            self.code,
            self.text
        );
    }
}

/// Audits all that was heard, with these arguments of `tests/audit`.
pub(crate) fn audit(observer: &Observer, arguments: &[&str]) -> Report {
    audit_lines(&lines(&observer.all()), arguments)
}

/// What was heard as the auditor reads it.
pub(crate) fn lines(heard: &[Heard]) -> String {
    let line = |heard: &Heard| {
        let Heard { retained, topic, payload } = heard;
        serde_json::json!({ "topic": topic, "payload": payload, "retain": retained }).to_string() + "\n"
    };
    heard.iter().map(line).collect()
}

/// Audits lines of JSON.
pub(crate) fn audit_lines(lines: &str, arguments: &[&str]) -> Report {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    let auditor = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit");
    let mut command = Command::new("python3");
    command.arg(auditor).args(arguments).arg("--totals").arg(file.path()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().expect("python3 is installed (apt-get install python3)");
    let text = String::from_utf8(output.stdout).unwrap();
    let totals = text.lines().last().unwrap_or_default();
    let totals = serde_json::from_str(totals).unwrap_or_else(|error| panic!("{error}: {text}"));
    Report { code: output.status.code(), text, totals }
}
