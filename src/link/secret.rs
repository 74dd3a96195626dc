//! Secrets, which stand in the config by reference only.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Table;

use crate::model::{Fault, Keys};

/// No password or key is longer; a wrong path must not fill the memory.
const MAX_BYTES: usize = 64 * 1024;

/// Where a secret is: `{ file = "…" }`, `{ env = "…" }` or `{ credential = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// The content of a file.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// The text of a secret. Never shown: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// Why a secret can't be read, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("can't read the secret in {path}: {source}; it must exist and be readable by the user of the gateway")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The variable is not set.
    #[error("the environment variable {0} with the secret is not set")]
    Env(String),
    /// There are no credentials.
    #[error(
        "no credential {0}: $CREDENTIALS_DIRECTORY is not set; expected to run under systemd with LoadCredential={0}:FILE"
    )]
    NoCredentials(String),
    /// It has no text.
    #[error("the secret in {0} is empty")]
    Empty(String),
    /// It is no text.
    #[error("the secret in {0} is not UTF-8 text of at most 64 KiB")]
    NotText(String),
}

impl Secret {
    /// Reads it, without the line end behind it. Read anew at each use, so that a changed secret needs no restart.
    ///
    /// # Errors
    /// When it is not where it should be, or is no text.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        self.read_with(|name| std::env::var_os(name))
    }

    fn read_with(&self, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<SecretText, SecretError> {
        let (bytes, place) = match self {
            Secret::File(path) => (read_file(path)?, path.display().to_string()),
            Secret::Env(name) => {
                let value = variable(name).ok_or_else(|| SecretError::Env(name.clone()))?;
                (value.into_encoded_bytes(), name.clone())
            }
            Secret::Credential(name) => {
                let folder =
                    variable("CREDENTIALS_DIRECTORY").ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                let path = Path::new(&folder).join(name);
                (read_file(&path)?, path.display().to_string())
            }
        };
        let text = String::from_utf8(bytes)
            .ok()
            .filter(|text| text.len() <= MAX_BYTES)
            .ok_or_else(|| SecretError::NotText(place.clone()))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if text.is_empty() { Err(SecretError::Empty(place)) } else { Ok(SecretText(text.to_owned())) }
    }

    /// The file that it stands in, where that can be told without reading it.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Secret::File(path) => Some(path.clone()),
            Secret::Env(_) => None,
            Secret::Credential(name) => Some(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name)),
        }
    }

    /// Puts the gateway's id where the path of a file has `{id}`.
    pub fn expand(&mut self, id: &str) {
        if let Secret::File(path) = self {
            *path = super::config::expand_path(path, id);
        }
    }

    /// What is wrong with the reference itself.
    fn fault(&self) -> Option<&'static str> {
        match self {
            Secret::File(path) if path.as_os_str().is_empty() => Some("expected the path of a file"),
            Secret::Env(name) if name.is_empty() || name.contains(['=', '\0']) => {
                Some("expected the name of an environment variable")
            }
            Secret::Credential(name) if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) => {
                Some("expected the name of a systemd credential, which has no `/` and does not start with a dot")
            }
            _ => None,
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    use std::io::Read;
    let read = || {
        let mut bytes = Vec::new();
        // One byte more than allowed, so that too long is seen.
        std::fs::File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| SecretError::File { path: path.to_owned(), source })
}

impl SecretText {
    /// The text itself, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

const EXPECTED: &str = "expected { file = \"…\" }, { env = \"…\" } or { credential = \"…\" }";

impl Secret {
    /// Reads where it is.
    pub(super) fn at<'a>(keys: &mut Keys<'a>, key: &'a str) -> Option<Self> {
        if !keys.has_table(key) {
            // What somebody wrote who wrote the secret itself. Must not repeat it.
            keys.value(key)?;
            keys.wrong(key, format!("a secret is not written into the config: {EXPECTED}"));
            return None;
        }
        keys.inner(key, Secret::of)
    }

    fn of(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let secret = match (keys.string("file"), keys.string("env"), keys.string("credential")) {
            (Some(path), None, None) => Secret::File(path.into()),
            (None, Some(name), None) => Secret::Env(name),
            (None, None, Some(name)) => Secret::Credential(name),
            _ => {
                keys.wrong("", format!("{EXPECTED}, and only one of them"));
                return keys.end(Secret::Env(String::new()));
            }
        };
        if let Some(fault) = secret.fault() {
            keys.wrong("", fault);
        }
        keys.end(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Secret, String> {
        let table = format!("password = {text}").parse().unwrap();
        let mut keys = Keys::of(&table);
        let secret = Secret::at(&mut keys, "password");
        secret.ok_or_else(|| keys.faults().into_iter().map(|fault| fault.text).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_secret_is_a_reference() {
        assert_eq!(parse("{ file = \"/run/key\" }"), Ok(Secret::File("/run/key".into())));
        assert_eq!(parse("{ env = \"PASSWORD\" }"), Ok(Secret::Env("PASSWORD".into())));
        assert_eq!(parse("{ credential = \"key\" }"), Ok(Secret::Credential("key".into())));
        for written in ["\"hunter2\"", "12345", "1.5", "true"] {
            assert_eq!(parse(written), Err(format!("a secret is not written into the config: {EXPECTED}")));
        }
        assert_eq!(parse("{}"), Err(format!("{EXPECTED}, and only one of them")));
        assert_eq!(parse("{ file = \"a\", env = \"b\" }"), Err(format!("{EXPECTED}, and only one of them")));
        for wrong in ["{ file = \"\" }", "{ env = \"A=B\" }", "{ credential = \"../shadow\" }"] {
            assert!(parse(wrong).unwrap_err().starts_with("expected the "), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mqtt-password");
        let variable = |name: &str| match name {
            "PASSWORD" => Some("from the environment".into()),
            "CREDENTIALS_DIRECTORY" => Some(folder.path().into()),
            _ => None,
        };
        for (content, expected) in
            [("secret\n", "secret"), ("secret\r\n", "secret"), (" two\nlines\n\n", " two\nlines\n")]
        {
            std::fs::write(&path, content).unwrap();
            for secret in [Secret::File(path.clone()), Secret::Credential("mqtt-password".into())] {
                assert_eq!(secret.read_with(variable).unwrap().reveal(), expected);
            }
        }
        assert_eq!(Secret::Env("PASSWORD".into()).read_with(variable).unwrap().reveal(), "from the environment");
    }

    #[test]
    fn a_secret_that_is_not_there_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty"), "\n").unwrap();
        std::fs::write(path("binary"), [0xff, 0xfe]).unwrap();
        std::fs::write(path("long"), vec![b'x'; MAX_BYTES + 1]).unwrap();
        let place = folder.path().display();
        for (secret, expected) in [
            (Secret::File(path("empty")), format!("the secret in {place}/empty is empty")),
            (Secret::File(path("binary")), format!("the secret in {place}/binary is not UTF-8 text of at most 64 KiB")),
            (Secret::File(path("long")), format!("the secret in {place}/long is not UTF-8 text of at most 64 KiB")),
            (
                Secret::File(path("none")),
                format!(
                    "can't read the secret in {place}/none: No such file or directory (os error 2); it must exist and \
                     be readable by the user of the gateway"
                ),
            ),
            (Secret::Env("NONE".into()), "the environment variable NONE with the secret is not set".to_owned()),
            (
                Secret::Credential("key".into()),
                "no credential key: $CREDENTIALS_DIRECTORY is not set; expected to run under systemd with \
                 LoadCredential=key:FILE"
                    .to_owned(),
            ),
        ] {
            assert_eq!(secret.read_with(|_| None).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", SecretText("hunter2".into())), "SecretText(…)");
    }
}
