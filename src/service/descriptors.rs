//! Descriptors that systemd keeps over a restart (`FileDescriptorStoreMax=`, sd_notify(3)).
//!
//! It hands them over at the start, each under the name that it was stored by. Without systemd there are none, and
//! nobody stores any.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

/// systemd takes a message within milliseconds; while it executes itself anew, within a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// The descriptors that were stored by the process before, with their names. To be called first of all; whoever calls
/// again gets none.
pub fn handed_over() -> Vec<(String, OwnedFd)> {
    /// As process-wide as the numbers of descriptors.
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    match sd_notify::listen_fds_with_names() {
        Ok(descriptors) => descriptors
            .map(|(number, name)| {
                #[expect(unsafe_code, reason = "a descriptor that comes from outside is a number at first")]
                // SAFETY: systemd opened it for this process (`LISTEN_PID`), which is what the crate looked at, and it is
                // taken only once. The crate has asked the kernel about it, so it is open.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                (name, descriptor)
            })
            .collect(),
        Err(error) => {
            tracing::warn!("what systemd hands over can't be taken: {error}");
            Vec::new()
        }
    }
}

/// Has systemd store descriptors under their names, or (`None`) let go those of a name, until nobody sends any more.
/// Where that does not work it is logged, and the restart to come will let go what is missing.
pub async fn store(changes: mpsc::Receiver<(String, Option<OwnedFd>)>) {
    store_at(std::env::var_os("NOTIFY_SOCKET"), changes).await;
}

async fn store_at(socket: Option<OsString>, mut changes: mpsc::Receiver<(String, Option<OwnedFd>)>) {
    let mut failed = false;
    while let Some((name, descriptor)) = changes.recv().await {
        let Some(socket) = &socket else { continue };
        let told = tell(socket, &name, descriptor.as_ref());
        let told = tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|late| Err(late.into()));
        match told {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::warn!("systemd could not be told about {name}: {error}; it is not kept over a restart");
            }
            Err(_) => {}
        }
    }
}

async fn tell(socket: &OsString, name: &str, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let connected = UnixDatagram::unbound()?;
    connected.connect(socket)?;
    let word = if descriptor.is_some() { "FDSTORE=1" } else { "FDSTOREREMOVE=1" };
    let text = format!("{word}\nFDNAME={name}\n");
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let attached: Vec<_> = descriptor.iter().map(|descriptor| descriptor.as_fd()).collect();
        if !attached.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&attached)) {
            return Err(io::Error::other("no room for one descriptor"));
        }
        sendmsg(&connected, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    connected.async_io(Interest::WRITABLE, send).await
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixDatagram as Listener;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    /// The text, and the inodes of what was attached.
    fn received(listener: &Listener) -> (String, Vec<u64>) {
        let mut text = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [io::IoSliceMut::new(&mut text)];
        let length = recvmsg(listener, slices, &mut ancillary, RecvFlags::empty()).unwrap().bytes;
        let attached = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let inodes = attached.flatten().map(|descriptor| File::from(descriptor).metadata().unwrap().ino()).collect();
        (String::from_utf8(text[..length].to_vec()).unwrap(), inodes)
    }

    #[tokio::test]
    async fn descriptors_are_stored_under_their_names_and_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = Listener::bind(&path).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let file = File::create(folder.path().join("line")).unwrap();
        let inode = file.metadata().unwrap().ino();
        let (send, changes) = mpsc::channel(2);
        send.send(("a-line".to_owned(), Some(file.into()))).await.unwrap();
        send.send(("a-line".to_owned(), None)).await.unwrap();
        drop(send);
        store_at(Some(path.into()), changes).await;
        assert_eq!(received(&listener), ("FDSTORE=1\nFDNAME=a-line\n".to_owned(), vec![inode]));
        assert_eq!(received(&listener), ("FDSTOREREMOVE=1\nFDNAME=a-line\n".to_owned(), vec![]));
    }

    #[tokio::test]
    async fn nobody_waits_where_there_is_no_systemd() {
        for socket in [None, Some("/nowhere/notify".into())] {
            let (send, changes) = mpsc::channel(1);
            let sent = async {
                for _ in 0..20 {
                    send.send(("x".to_owned(), None)).await.unwrap();
                }
                drop(send);
            };
            tokio::join!(store_at(socket, changes), sent);
        }
    }
}
