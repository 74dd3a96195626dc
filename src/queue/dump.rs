//! A look at a queue's files, for people: what waits in them, without touching anything.

use std::io::{self, ErrorKind};
use std::path::Path;

use tokio::sync::watch;

use super::flash::{Found, Keeper};
use super::{Config, LaneStatus, Opened, Queue};
use crate::disk::{Disk, Folder};
use crate::model::{Body, Lane, Number, Problems, Rate, Record, time};

/// The queue of a gateway that does not run, or of one that does and is not to be disturbed.
#[derive(Debug)]
pub struct Look {
    queue: Queue,
    keeper: Keeper,
    config: Config,
}

impl Look {
    /// Looks into the queue's folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn into_folder(config: &Config, folder: &Path) -> io::Result<Self> {
        if !folder.is_dir() {
            return Err(ErrorKind::NotFound.into());
        }
        let mut config = config.clone();
        config.replay.rate = Rate::Off;
        let found = Found::open(&config, Box::new(ReadOnly(Folder::new(folder))));
        let opened = Opened { config: config.clone(), found };
        let epoch = opened.highest_epoch() + 1;
        let (queue, keeper, _) = opened.begin(epoch, None, 0, watch::channel(Problems::new()).0);
        Ok(Look { queue, keeper, config })
    }

    /// How the lanes are.
    pub fn status(&self) -> Vec<LaneStatus> {
        self.queue.status()
    }

    /// All records that wait, the lanes one after the other, each in its order. `take` says whether it wants more.
    pub fn records(&mut self, mut take: impl FnMut(Record) -> bool) {
        let mut reader = self.queue.reader(&self.config);
        reader.begin();
        loop {
            self.keeper.feed();
            let mut any = false;
            while let Some(record) = reader.next(time::uptime()) {
                any = true;
                if !take(record) {
                    return;
                }
            }
            if !any && !self.queue.state().feeds.iter().any(|feed| feed.wants) {
                return;
            }
        }
    }
}

impl Queue {
    /// The records of a lane that are in RAM alone.
    pub fn in_ram(&self, lane: Lane) -> Vec<Record> {
        let mut state = self.state();
        let epoch = state.epoch;
        let record = |(seq, payload): (u64, &[u8])| {
            let body = Body::decode(payload).ok()?;
            Some(Record { lane, number: Number { epoch, seq }, late: true, body })
        };
        state.lane(lane).fresh_records().filter_map(record).collect()
    }
}

/// A folder that nothing is changed in.
#[derive(Debug)]
struct ReadOnly(Folder);

fn refused<T>() -> io::Result<T> {
    Err(ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        if self.0.has(folder) { self.0.list(folder) } else { Ok(Vec::new()) }
    }

    fn size(&mut self, file: &str) -> io::Result<u64> {
        self.0.size(file)
    }

    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(file, offset, buffer)
    }

    fn write(&mut self, _file: &str, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        refused()
    }

    fn sync(&mut self, _file: &str) -> io::Result<()> {
        refused()
    }

    fn sync_folder(&mut self, _folder: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&mut self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&mut self, _file: &str) -> io::Result<()> {
        refused()
    }

    fn forget(&mut self, file: &str) {
        self.0.forget(file);
    }

    fn free(&mut self) -> io::Result<u64> {
        self.0.free()
    }
}
