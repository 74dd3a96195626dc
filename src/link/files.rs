//! The files that `[mqtt]` names: whether they were replaced, and whether they can be used.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::wire::{Identity, websocket};
use super::{Config, LinkError, Secret};

/// What the files that a config names held when they were looked at: of their contents, since a file may be replaced by
/// one of the same age and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files(u64);

impl Config {
    /// Looks at the files that this config names: certificates, keys, passwords. Blocks on the file system.
    pub fn files(&self) -> Files {
        let secrets = self.secrets().filter_map(Secret::path);
        let mut hasher = DefaultHasher::new();
        for path in secrets.chain(self.certificates().cloned()) {
            let content = std::fs::read(&path).map_err(|error| error.kind());
            (path, content).hash(&mut hasher);
        }
        Files(hasher.finish())
    }

    /// The files that it names by their paths. Credentials are not among them: systemd reads these, and as root.
    pub fn named_files(&self) -> Vec<PathBuf> {
        let secrets = self.secrets().filter_map(|secret| match secret {
            Secret::File(path) => Some(path),
            Secret::Env(_) | Secret::Credential(_) => None,
        });
        secrets.chain(self.certificates()).cloned().collect()
    }

    fn certificates(&self) -> impl Iterator<Item = &PathBuf> {
        self.tls.iter().flat_map(|tls| tls.ca.iter().chain(&tls.cert))
    }

    /// Whether a connection could be made with them. Blocks on the file system.
    ///
    /// # Errors
    /// When one of them can't be read, or does not hold what it should.
    pub fn check_files(&self) -> Result<(), LinkError> {
        for secret in self.secrets() {
            secret.read()?;
        }
        for url in self.url.0.iter().filter(|url| url.scheme.is_websocket()) {
            websocket::request(url, &self.headers(url)?, "")?;
        }
        if self.url.0.iter().any(|url| url.scheme.is_tls()) {
            Identity::current(&self.tls.clone().unwrap_or_default(), None).map_err(LinkError::from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let text = format!("url = \"mqtt://b\"\nusername = \"u\"\npassword.file = \"{}\"", path.display());
        let config = Config::read(&text.parse().unwrap()).unwrap();
        let none = config.files();
        assert!(config.check_files().unwrap_err().to_string().contains("can't read the secret in "));
        std::fs::write(&path, "one").unwrap();
        let one = config.files();
        assert_eq!((one == none, one == config.files()), (false, true));
        assert!(config.check_files().is_ok());
        std::fs::write(&path, "two").unwrap();
        assert_ne!(one, config.files());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(one, config.files(), "written anew, but the same");
    }

    #[test]
    fn a_request_that_cannot_be_made_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "two\nlines").unwrap();
        let text = format!("url = \"ws://b\"\nwebsocket.headers.X-Key.file = \"{}\"", path.display());
        let error = Config::read(&text.parse().unwrap()).unwrap().check_files().unwrap_err().to_string();
        assert_eq!(error, "mqtt.websocket.headers: `X-Key`: its value is not one line of text");
        let error =
            Config::read(&"url = \"ws://b/a<b\"".parse().unwrap()).unwrap().check_files().unwrap_err().to_string();
        assert_eq!(error, "mqtt.url: ws://b:80/a<b: `<` can't stand in a path: write it as %3C");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "half a certif").unwrap();
        let text = format!("url = \"mqtts://b\"\ntls.ca = \"{}\"", path.display());
        let error = Config::read(&text.parse().unwrap()).unwrap().check_files().unwrap_err().to_string();
        assert!(error.ends_with("holds no certificate: expected PEM"), "{error}");
    }
}
