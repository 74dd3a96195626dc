//! What outlives a driver: descriptors, which with systemd's help outlive the process too and keep outputs still; and the
//! folder for what must outlive a power cut.
//!
//! The kernel gives an output back when the last descriptor of it is closed, and then its level is anybody's guess. So
//! a driver leaves a second one here. When it fails, or panics, or its config is reloaded, the next one takes the line
//! over as it is; and what is here is also with systemd, which hands it to the next process. The names are the kinds'
//! own; each kind says in its names all that is needed to set the output to its safe value without any config.
//!
//! Nothing here fails: without systemd a line is held as long as the process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::mpsc;

use crate::model::Takeover;

/// For who stores descriptors: keep this one under this name, or (`None`) let go what has the name.
pub type Change = (String, Option<OwnedFd>);

/// What is held. All clones are one.
#[derive(Debug, Clone)]
pub struct Held(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    takeover: Takeover,
    known: Mutex<Known>,
    /// Full: the driver that opens its lines waits.
    changes: Option<mpsc::Sender<Change>>,
    /// Where drivers keep what must outlive a power cut.
    folder: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Known {
    descriptors: BTreeMap<String, Kept>,
    /// The outputs that this process has taken over once, by the names that their kinds give them.
    taken: BTreeSet<String>,
}

#[derive(Debug)]
struct Kept {
    descriptor: OwnedFd,
    used: Weak<()>,
}

/// While it lives, what was held is a driver's, and no other driver may have it.
#[derive(Debug)]
pub(super) struct Use(#[cfg_attr(feature = "gpio", expect(dead_code, reason = "it only has to live"))] Arc<()>);

impl From<OwnedFd> for Kept {
    fn from(descriptor: OwnedFd) -> Self {
        Kept { descriptor, used: Weak::new() }
    }
}

impl Held {
    /// What the process before left, how it is taken over, and where changes are told.
    pub fn new(handed: Vec<(String, OwnedFd)>, takeover: Takeover, changes: mpsc::Sender<Change>) -> Self {
        let descriptors = handed.into_iter().map(|(name, descriptor)| (name, descriptor.into())).collect();
        let known = Known { descriptors, taken: BTreeSet::new() };
        Held(Arc::new(Inner { takeover, known: Mutex::new(known), changes: Some(changes), folder: None }))
    }

    /// For one who only looks: nothing is handed over, and nothing told.
    pub fn nothing() -> Self {
        Held(Arc::new(Inner { takeover: Takeover::Keep, known: Mutex::default(), changes: None, folder: None }))
    }

    /// The same, with a folder for what must outlive a power cut.
    #[must_use]
    pub fn with_folder(mut self, folder: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.folder = Some(folder.to_owned());
        }
        self
    }

    /// Where a driver keeps what must outlive a power cut; `None`: nowhere, for one who only looks.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.0.folder.as_deref()
    }

    /// How an output is taken over: as this process does it, and as it is once [`Held::taken`] was said of it.
    pub(super) fn takeover(&self, output: &str) -> Takeover {
        if self.known().taken.contains(output) { Takeover::Keep } else { self.0.takeover }
    }

    /// From here on the output is this process's own: a driver that starts again lets it be.
    pub(super) fn taken(&self, output: &str) {
        self.known().taken.insert(output.to_owned());
    }

    /// The names of all that is held.
    pub(super) fn names(&self) -> Vec<String> {
        self.known().descriptors.keys().cloned().collect()
    }

    /// A descriptor of its own of what has this name.
    pub(super) fn get(&self, name: &str) -> Option<OwnedFd> {
        self.known().descriptors.get(name).and_then(|kept| kept.descriptor.try_clone().ok())
    }

    /// Says that what has this name is a driver's from here on; `None`: it is held no more.
    pub(super) fn begin_use(&self, name: &str) -> Option<Use> {
        let used = Arc::new(());
        self.known().descriptors.get_mut(name)?.used = Arc::downgrade(&used);
        Some(Use(used))
    }

    /// Whether a driver has what has this name.
    pub(super) fn is_in_use(&self, name: &str) -> bool {
        self.known().descriptors.get(name).is_some_and(|kept| kept.used.strong_count() > 0)
    }

    /// Holds this one too.
    pub(super) async fn hold(&self, name: &str, descriptor: OwnedFd) {
        let copy = descriptor.try_clone();
        self.known().descriptors.insert(name.to_owned(), descriptor.into());
        match copy {
            Ok(copy) => self.tell((name.to_owned(), Some(copy))).await,
            Err(error) => tracing::warn!("the output {name} will not be kept over a restart: {error}"),
        }
    }

    /// Lets go what has this name.
    pub(super) async fn release(&self, name: &str) {
        // Closed before anybody asks for the line anew.
        let held = self.known().descriptors.remove(name);
        drop(held);
        self.tell((name.to_owned(), None)).await;
    }

    /// Holds under another name what has this one.
    pub(super) async fn rename(&self, name: &str, new: &str) {
        let held = self.known().descriptors.remove(name);
        // In this order: systemd keeps no descriptor twice.
        self.tell((name.to_owned(), None)).await;
        if let Some(Kept { descriptor, .. }) = held {
            self.hold(new, descriptor).await;
        }
    }

    async fn tell(&self, change: Change) {
        if let Some(changes) = &self.0.changes
            && changes.send(change).await.is_err()
        {
            tracing::debug!("the gateway ends: descriptors are stored no more");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole after each statement, so a panic elsewhere has not broken it.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn descriptor() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[tokio::test]
    async fn what_is_held_is_told_and_what_was_handed_over_is_not() {
        let (changes, mut told) = mpsc::channel(8);
        let held = Held::new(vec![("a".to_owned(), descriptor())], Takeover::Safe, changes);
        held.hold("b", descriptor()).await;
        held.rename("a", "c").await;
        held.release("b").await;
        assert_eq!(held.names(), ["c"]);
        assert!(held.get("c").is_some() && held.get("b").is_none());
        drop(held);
        let mut seen = Vec::new();
        while let Some((name, descriptor)) = told.recv().await {
            seen.push((name, descriptor.is_some()));
        }
        let expected = [("b", true), ("a", false), ("c", true), ("b", false)];
        assert_eq!(seen, expected.map(|(name, stored)| (name.to_owned(), stored)));
    }

    #[test]
    fn what_a_driver_has_is_in_use_until_it_ends() {
        let held = Held::new(vec![("a".to_owned(), descriptor())], Takeover::Keep, mpsc::channel(1).0);
        assert!(!held.is_in_use("a") && held.begin_use("b").is_none());
        let used = held.begin_use("a");
        assert!(held.is_in_use("a"));
        drop(used);
        assert!(!held.is_in_use("a") && held.get("a").is_some());
    }

    #[test]
    fn an_output_goes_to_safe_once_in_a_process() {
        let held = Held::new(Vec::new(), Takeover::Safe, mpsc::channel(1).0);
        assert_eq!(held.takeover("x"), Takeover::Safe);
        held.clone().taken("x");
        assert_eq!((held.takeover("x"), held.takeover("y")), (Takeover::Keep, Takeover::Safe));
        assert_eq!(Held::nothing().takeover("x"), Takeover::Keep);
    }
}
