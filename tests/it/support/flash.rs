//! A flash that is slow, or fails, on demand: a library that stands before the agent's syncs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct Flash {
    library: PathBuf,
    word: PathBuf,
}

impl Flash {
    /// One that does well, so far.
    pub(crate) fn new(folder: &Path) -> Self {
        let (source, library) = (folder.join("flash.c"), folder.join("flash.so"));
        fs::write(&source, include_str!("flash.c")).unwrap();
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
        assert!(compiled.expect("cc is installed (apt-get install gcc)").success());
        let flash = Flash { library, word: folder.join("flash.word") };
        flash.say("0");
        flash
    }

    /// What the agent has to be started with.
    pub(crate) fn environment(&self) -> [(&str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("FLASH", self.word.to_str().unwrap())]
    }

    /// Each sync takes so much longer.
    pub(crate) fn slow(&self, by: Duration) {
        self.say(&by.as_millis().to_string());
    }

    /// Each sync fails.
    pub(crate) fn fail(&self) {
        self.say("fail");
    }

    /// All is well again.
    pub(crate) fn recover(&self) {
        self.say("0");
    }

    fn say(&self, word: &str) {
        // Whole or not at all for those who read it meanwhile.
        let new = self.word.with_extension("new");
        fs::write(&new, word).unwrap();
        fs::rename(new, &self.word).unwrap();
    }
}
