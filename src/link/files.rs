//! The files that `[mqtt]` names: whether they were replaced, and whether they can be used.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::wire::Identity;
use super::{Config, Secret};

/// What the files that a config names held when they were looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Of their contents, since a file may be replaced by one of the same age and size.
    digest: u64,
    fault: Option<String>,
}

impl Files {
    /// Why a connection could not be made with them.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }
}

impl Config {
    /// Looks at the files that this config names: certificates, keys, passwords. Blocks on the file system.
    pub fn files(&self) -> Files {
        let tls = self.url.0.iter().any(|url| url.scheme.is_tls()).then(|| self.tls.clone().unwrap_or_default());
        let mut hasher = DefaultHasher::new();
        let key = tls.as_ref().and_then(|tls| tls.key.as_ref());
        let secrets = self.password.iter().chain(key).filter_map(Secret::path);
        let certificates = tls.iter().flat_map(|tls| tls.ca.iter().chain(&tls.cert)).cloned();
        for path in secrets.chain(certificates) {
            let content = std::fs::read(&path).map_err(|error| error.kind());
            (path, content).hash(&mut hasher);
        }
        let password = self.password.as_ref().map(Secret::read).transpose();
        let fault = match password {
            Err(error) => Some(error.to_string()),
            Ok(_) => tls.and_then(|tls| Identity::current(&tls, None).err()).map(|error| error.to_string()),
        };
        Files { digest: hasher.finish(), fault }
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
        let config: Config = toml::from_str(&text).unwrap();
        let none = config.files();
        assert!(none.fault().unwrap().starts_with("can't read the secret in "), "{none:?}");
        std::fs::write(&path, "one").unwrap();
        let one = config.files();
        assert_eq!((one.fault(), one == none, one == config.files()), (None, false, true));
        std::fs::write(&path, "two").unwrap();
        assert_ne!(one, config.files());
        std::fs::write(&path, "one").unwrap();
        assert_eq!(one, config.files(), "written anew, but the same");
    }

    #[test]
    fn certificates_that_cannot_be_used_are_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "half a certif").unwrap();
        let text = format!("url = \"mqtts://b\"\ntls.ca = \"{}\"", path.display());
        let files = toml::from_str::<Config>(&text).unwrap().files();
        assert!(files.fault().unwrap().ends_with("holds no certificate: expected PEM"), "{files:?}");
    }
}
