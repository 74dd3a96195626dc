//! Tasks with a name and an owner, and the end of all of them within one budget of time.
//!
//! Nothing in the gateway runs detached: a task belongs to a [`TaskSet`], which is drained at the stop, or to an
//! [`Owned`] guard, which ends it when it is dropped. A panic in a task is told to the owner as a value.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

/// Tasks that end together.
#[derive(Debug, Default)]
pub struct TaskSet {
    set: JoinSet<Arc<str>>,
    names: Vec<(tokio::task::Id, Arc<str>)>,
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: Arc<str>,
    /// What it panicked with, if it did.
    pub panic: Option<String>,
}

impl TaskSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task of this name.
    pub fn spawn(&mut self, name: impl Into<Arc<str>>, task: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let own = Arc::clone(&name);
        // Boxed: tokio's machinery around a task is code for each type of future, half a kilobyte to two.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        let handle = self.set.spawn(async move {
            task.await;
            own
        });
        self.names.push((handle.id(), name));
    }

    /// Waits until one of the tasks ends; `None` when there is none left. Cancel-safe.
    pub async fn next_ended(&mut self) -> Option<Ended> {
        let ended = self.set.join_next_with_id().await?;
        Some(match ended {
            Ok((id, name)) => {
                self.names.retain(|(other, _)| *other != id);
                Ended { name, panic: None }
            }
            Err(error) => {
                let place = self.names.iter().position(|(id, _)| *id == error.id());
                let name = place.map_or_else(|| Arc::from("?"), |place| self.names.swap_remove(place).1);
                Ended { name, panic: panic_text(error) }
            }
        })
    }

    /// Waits until all tasks have ended, at most until `deadline`; then ends the rest. The result names those which
    /// had to be ended.
    pub async fn drain(&mut self, deadline: Instant) -> Vec<Arc<str>> {
        while let Ok(Some(ended)) = timeout_at(deadline, self.next_ended()).await {
            if let Some(panic) = ended.panic {
                tracing::error!(task = %ended.name, "task ended by a panic: {panic}");
            }
        }
        let late = self.names.drain(..).map(|(_, name)| name).collect();
        self.set.shutdown().await;
        late
    }
}

/// The text of a panic; `None` where the task was only ended from outside.
fn panic_text(error: JoinError) -> Option<String> {
    error.try_into_panic().ok().map(|payload| panic_message(payload.as_ref()))
}

/// What a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

/// One task that ends when its guard is dropped.
#[derive(Debug)]
pub struct Owned<T>(JoinHandle<T>);

impl<T: Send + 'static> Owned<T> {
    /// Starts the task.
    pub fn spawn(task: impl Future<Output = T> + Send + 'static) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the guard is the owner")]
        Owned(tokio::spawn::<Pin<Box<dyn Future<Output = T> + Send>>>(Box::pin(task)))
    }

    /// Waits for its result; an error is the text of its panic. Cancel-safe; not to be called again once it gave the
    /// result.
    ///
    /// # Errors
    /// When the task panicked.
    ///
    /// # Panics
    /// When it has given the result before.
    pub async fn ended(&mut self) -> Result<T, String> {
        (&mut self.0).await.map_err(|error| panic_text(error).unwrap_or_else(|| "ended".to_owned()))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The sign of life of one loop: it beats each time it comes around, and at least each [`Pulse::EVERY`].
#[derive(Debug, Clone)]
pub struct Pulse {
    name: Arc<str>,
    beats: Arc<AtomicU32>,
    /// The file by which a test has a loop hang. Not in what is released.
    #[cfg(debug_assertions)]
    hang: Option<std::path::PathBuf>,
}

impl Pulse {
    /// How often a loop without work beats. A third of the shortest watchdog that makes sense on a slow board.
    pub const EVERY: Duration = Duration::from_secs(3);

    /// A pulse for the loop of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Pulse {
            name: name.into(),
            beats: Arc::default(),
            #[cfg(debug_assertions)]
            hang: std::env::var_os("SLUICEGATE_TEST_HANG").map(Into::into),
        }
    }

    /// The loop came around.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        self.hang_for_a_test();
    }

    /// The loop whose name stands in the file hangs, as in a call that does not return.
    #[cfg(debug_assertions)]
    fn hang_for_a_test(&self) {
        let Some(file) = &self.hang else { return };
        while std::fs::read_to_string(file).is_ok_and(|name| name.trim() == &*self.name) {
            std::thread::park();
        }
    }

    /// How often it did, modulo 2^32.
    pub fn beats(&self) -> u32 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Whose pulse this is.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_with_the_name_of_the_task() {
        let mut tasks = TaskSet::new();
        tasks.spawn("good", async {});
        assert_eq!(tasks.next_ended().await, Some(Ended { name: "good".into(), panic: None }));
        tasks.spawn("bad", async { panic!("no water") });
        assert_eq!(tasks.next_ended().await, Some(Ended { name: "bad".into(), panic: Some("no water".to_owned()) }));
        assert_eq!(tasks.next_ended().await, None);
    }

    #[tokio::test]
    async fn a_drain_ends_what_does_not_end_by_itself() {
        let mut tasks = TaskSet::new();
        tasks.spawn("quick", async {});
        tasks.spawn("hung", std::future::pending());
        let late = tasks.drain(Instant::now() + Duration::from_millis(50)).await;
        assert_eq!(late, [Arc::from("hung")]);
    }
}
