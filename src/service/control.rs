//! The control socket: how `sluicegate status`, `try`, `record` and `reload` ask the daemon.
//!
//! One question a connection, a line of JSON; the answer is lines, until the daemon closes. Who may write to the
//! socket may ask: it is 0660, for the user and the group of the service.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

/// A question is short; what is longer is none.
const MAX_QUESTION: u64 = 4096;

/// Who connects and says nothing is let go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Askers at the same time; more wait.
const ASKERS: usize = 8;

/// What the daemon can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// How it is: one line.
    Status,
    /// The records that wait in the queue: a line each.
    Records {
        /// Of this lane only.
        lane: Option<String>,
    },
    /// The readings of a device as they come: a line each, until the asker goes.
    Try {
        /// Which device.
        device: String,
    },
    /// What goes between a device and its driver, from the driver's next start on: a line each, until the asker says no more.
    Record {
        /// Which device.
        device: String,
    },
    /// To read its config again: one line, once the new one is in use or was refused.
    Reload,
}

impl Question {
    /// Reads what was asked. By hand: derived code would be ten times as large.
    fn read(line: &str) -> Option<Self> {
        let question: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
        let text = |key: &str| question.get(key).and_then(Value::as_str).map(str::to_owned);
        let (read, key) = match question.get("ask")?.as_str()? {
            "status" => (Question::Status, None),
            "reload" => (Question::Reload, None),
            "records" => (Question::Records { lane: text("lane") }, Some("lane")),
            "try" => (Question::Try { device: text("device")? }, Some("device")),
            "record" => (Question::Record { device: text("device")? }, Some("device")),
            _ => return None,
        };
        // What a later program asks besides is not what would be answered.
        question.keys().all(|known| known == "ask" || Some(known.as_str()) == key).then_some(read)
    }
}

/// The daemon's end.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    places: Arc<Semaphore>,
    path: PathBuf,
}

/// One who asked.
#[derive(Debug)]
pub struct Asker {
    stream: UnixStream,
    place: OwnedSemaphorePermit,
}

/// Where the socket is: in `$RUNTIME_DIRECTORY`, or beside the state.
pub fn path(runtime_directory: Option<&Path>, state_directory: &Path) -> PathBuf {
    runtime_directory.unwrap_or(state_directory).join("control.sock")
}

impl Control {
    /// Opens the socket. The caller holds the lock of the state directory, so a socket that is there is a left-over.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Control { listener, places: Arc::new(Semaphore::new(ASKERS)), path: path.to_owned() })
    }

    /// Waits for a place, and for the next who connects. Cancel-safe.
    ///
    /// # Errors
    /// When the socket is broken.
    pub async fn accept(&self) -> io::Result<Asker> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok(Asker { stream, place })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("the control socket could not be removed: {error}");
        }
    }
}

impl Asker {
    /// What is asked.
    ///
    /// # Errors
    /// When nothing, or nothing that is a question, comes.
    pub async fn question(&mut self) -> io::Result<Question> {
        let mut line = String::new();
        let mut reader = BufReader::new((&mut self.stream).take(MAX_QUESTION));
        tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Question::read(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits until the asker has gone, or says more than its one question. Cancel-safe.
    pub async fn gone(&mut self) {
        let mut byte = [0; 1];
        // Whatever comes, the end, an error or a byte, the conversation is over.
        let end = self.stream.read(&mut byte).await;
        tracing::trace!("the asker is done: {end:?}");
    }

    /// One line of the answer. Who takes nothing for long keeps its place while there are others: somebody may read page by page.
    ///
    /// # Errors
    /// When the asker is gone, or takes nothing and the last place is needed.
    pub async fn line(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        let mut written = pin!(self.stream.write_all(line.as_bytes()));
        loop {
            tokio::select! {
                written = &mut written => return written,
                // One place is free for who comes next, or taken by who has just come.
                () = sleep(PATIENCE) => if self.place.semaphore().available_permits() == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// Asks the daemon. `line` gets each line of the answer, and says whether it wants more.
///
/// # Errors
/// When there is no daemon, or it goes away.
pub async fn ask(path: &Path, question: &Question, mut line: impl FnMut(&str) -> bool + Send) -> io::Result<()> {
    talk(path, question, pin!(std::future::pending()), &mut line).await
}

/// The same; at the `end` the daemon is told that it is enough, and finishes what it says.
///
/// # Errors
/// When there is no daemon, it goes away, or does not finish.
pub async fn ask_until(
    path: &Path,
    question: &Question,
    end: impl Future<Output = ()> + Send,
    mut line: impl FnMut(&str) -> bool + Send,
) -> io::Result<()> {
    talk(path, question, pin!(end), &mut line).await
}

/// One piece of code for all who ask.
fn talk<'a>(
    path: &'a Path,
    question: &'a Question,
    mut end: Pin<&'a mut (dyn Future<Output = ()> + Send + 'a)>,
    line: &'a mut (dyn FnMut(&str) -> bool + Send + 'a),
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
    Box::pin(async move {
        let mut stream = UnixStream::connect(path).await?;
        let text = serde_json::to_string(question).map_err(io::Error::other)?;
        stream.write_all(format!("{text}\n").as_bytes()).await?;
        let (answer, mut asking) = stream.into_split();
        let mut lines = BufReader::new(answer).lines();
        let mut deadline = None;
        loop {
            let next = tokio::select! {
                next = lines.next_line() => next?,
                () = &mut end, if deadline.is_none() => {
                    asking.shutdown().await?;
                    deadline = Some(Instant::now() + PATIENCE);
                    continue;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
            match next {
                Some(next) if line(&next) => {}
                _ => return Ok(()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that asks for all there is, and reads nothing.
    #[cfg(feature = "desk")]
    async fn staller(control: &Control, path: &Path) -> (UnixStream, Asker) {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"{\"ask\":\"records\"}\n").await.unwrap();
        let mut asker = control.accept().await.unwrap();
        assert_eq!(asker.question().await.unwrap(), Question::Records { lane: None });
        (stream, asker)
    }

    // Only the desk can have its clock paused.
    #[cfg(feature = "desk")]
    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_has_no_place_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let control = Control::open(&path).unwrap();
        let mut all = Vec::new();
        for _ in 0..ASKERS {
            all.push(staller(&control, &path).await);
        }
        // It asks, and says nothing: a recording of a quiet device is no reason to go.
        let (_quiet, mut quiet) = all.pop().unwrap();
        let long = "x".repeat(1 << 20);
        // As long as there is a place for others, it may take its time.
        drop(all.pop());
        let (_patient, mut slow) = all.pop().unwrap();
        let waited = tokio::time::timeout(10 * PATIENCE, slow.line(&long)).await;
        assert!(waited.is_err(), "{waited:?}");
        let _late = staller(&control, &path).await;
        let (_stream, mut asker) = all.pop().unwrap();
        let cut = tokio::time::timeout(10 * PATIENCE, asker.line(&long)).await.expect("the end of its patience");
        assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(tokio::time::timeout(10 * PATIENCE, quiet.gone()).await.is_err());
        quiet.line("it goes on").await.unwrap();
    }

    #[test]
    fn what_is_asked_is_read_as_it_was_meant() {
        let device = || "gps".to_owned();
        for question in [
            Question::Status,
            Question::Reload,
            Question::Records { lane: None },
            Question::Records { lane: Some("alarm".to_owned()) },
            Question::Try { device: device() },
            Question::Record { device: device() },
        ] {
            assert_eq!(Question::read(&serde_json::to_string(&question).unwrap()), Some(question));
        }
        for text in ["", "{}", "[]", r#"{"ask":"else"}"#, r#"{"ask":"try"}"#, r#"{"ask":"status","more":1}"#] {
            assert_eq!(Question::read(text), None, "{text}");
        }
    }
}
