//! sled 0.34.7 as an engine.
//!
//! A batch is durable in the [journal](super::journal) first, and then goes into sled, which is made durable after some
//! batches. sled ends a flush in `sync_file_range`, which does not make a file's growth durable: after it, the
//! data file is synced here through a descriptor of our own. The background flusher, which only logs
//! its errors, is off. Values are far below the size at which sled would write a file of its own
//! (128 KiB for a page of 17 pairs), so that the data file is the only one that changes after opening.

use super::engine::{ApplyError, Batch, Engine, EngineError, Pair, is_empty_range};
use super::journal::{self, Journal};
use super::journal_format::{Run, Writes};
use kvdb_protocol::lab::{self, Bug};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// sled gives up its file a little after its handle is dropped; opening again waits this long at most.
/// Two processes never wait for each other here: the catalog's own lock is taken before.
const REOPEN_WAIT: Duration = Duration::from_secs(10);
const DATA_FILE: &str = "db";
/// The tree beside the pairs that holds the number of the last batch.
const NUMBERS: &str = "numbers";
const LAST_BATCH: &[u8] = b"last";
/// sled is made durable before it gets more than this many bytes of keys and values since the last time: well within one segment of
/// its log (512 KiB), so that it does not reuse a segment before our sync.
const MOST_BEHIND_BYTES: usize = 128 << 10;

/// The journal, and how much of it sled does not have durably.
struct Ahead {
    journal: Journal,
    bytes: usize,
}

/// An engine in a directory of its own.
pub struct SledEngine {
    dir: PathBuf,
    /// None only while it is dropped.
    db: Option<sled::Db>,
    numbers: Option<sled::Tree>,
    data: File,
    /// Held by the one batch that is being written.
    journal: Mutex<Ahead>,
    /// Excludes scans from a batch that is being applied.
    applying: RwLock<()>,
    stopped: AtomicBool,
}

impl SledEngine {
    /// Opens the database in `dir`, or makes one; what sled wrote while opening is durable on return.
    /// `cache_bytes` is memory that its cache may take.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        // sled counts the bytes that a page takes on disk; in memory it takes 2 to 2.8 times as many (measured with 1 M and 10 M keys).
        let capacity = cache_bytes / 5 * 2;
        let config = sled::Config::default().path(dir).cache_capacity(capacity).flush_every_ms(None).mode(sled::Mode::HighThroughput);
        drop_half_snapshots(dir).map_err(io_error)?;
        let db = open_patiently(&config)?;
        let data = File::options().read(true).write(true).open(dir.join(DATA_FILE)).map_err(io_error)?;
        let numbers = db.open_tree(NUMBERS).map_err(sled_error)?;
        let last = last_batch(&numbers)?;
        if last.is_none() && !journal::is_there(dir) {
            Journal::create(dir)?;
        }
        let (journal, run) = Journal::open(dir, last.unwrap_or(0))?;
        let ahead = Ahead { journal, bytes: 0 };
        let engine = Self {
            dir: dir.to_path_buf(),
            db: Some(db),
            numbers: Some(numbers),
            data,
            journal: Mutex::new(ahead),
            applying: RwLock::new(()),
            stopped: AtomicBool::new(false),
        };
        engine.take_over(run, last.unwrap_or(0))?;
        sync_tree(dir).map_err(io_error)?;
        Ok(engine)
    }

    /// Brings what the journal has and sled may not have into sled, durably.
    fn take_over(&self, run: Option<Run>, last: u64) -> Result<(), EngineError> {
        let mut ahead = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = run.filter(|_| !lab::has(Bug::JournalNotRead)) {
            let known = usize::try_from(last.saturating_add(1).saturating_sub(run.first)).unwrap_or(usize::MAX);
            for Writes(writes) in run.batches.iter().skip(known) {
                self.write_all(writes.iter().map(|(key, value)| (key.as_slice(), value.as_deref())))?;
            }
        }
        self.catch_up(&mut ahead)
    }

    fn db(&self) -> Result<&sled::Db, EngineError> {
        self.db.as_ref().ok_or_else(|| EngineError::Io("it is closed".into()))
    }

    /// One write after the other: a batch of sled's would write its log out twice, through other threads. A part of a batch
    /// that is found after a crash is made whole from the journal.
    fn write_all<'a>(&self, pairs: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<(), EngineError> {
        let db = self.db()?;
        for (key, value) in pairs {
            match value {
                Some(value) => db.insert(key, value),
                None => db.remove(key),
            }
            .map_err(sled_error)?;
        }
        Ok(())
    }

    /// Makes sled durable up to the last batch of the journal.
    fn catch_up(&self, ahead: &mut Ahead) -> Result<(), EngineError> {
        let numbers = self.numbers.as_ref().ok_or_else(|| EngineError::Io("it is closed".into()))?;
        // The last in sled's log: where it is found again, so is all before it.
        numbers.insert(LAST_BATCH, &ahead.journal.last().to_le_bytes()).map_err(sled_error)?;
        self.db()?.flush().map_err(sled_error)?;
        self.data.sync_data().map_err(io_error)?;
        ahead.journal.caught_up();
        ahead.bytes = 0;
        Ok(())
    }

    /// First into the journal, durably, then into sled, which is never ahead of it.
    fn write(&self, ahead: &mut Ahead, batch: &Batch) -> Result<(), EngineError> {
        let bytes = batch.bytes();
        if ahead.bytes > 0 && ahead.bytes + bytes > MOST_BEHIND_BYTES {
            self.catch_up(ahead)?;
        }
        if lab::has(Bug::BatchPiecemeal) {
            for (key, value) in batch.writes() {
                let mut one = Batch::default();
                match value {
                    Some(value) => one.put(key, value),
                    None => one.delete(key),
                }
                ahead.journal.write(&one, true)?;
            }
        } else {
            ahead.journal.write(batch, !lab::has(Bug::CatalogNotSynced))?;
        }
        ahead.bytes += bytes;
        let _alone = self.applying.write().unwrap_or_else(PoisonError::into_inner);
        self.write_all(batch.writes())
    }
}

fn last_batch(numbers: &sled::Tree) -> Result<Option<u64>, EngineError> {
    let Some(bytes) = numbers.get(LAST_BATCH).map_err(sled_error)? else { return Ok(None) };
    let number = <[u8; 8]>::try_from(bytes.as_ref()).map_err(|_| EngineError::Corrupt("the number of its last batch".into()))?;
    Ok(Some(u64::from_le_bytes(number)))
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.db()?.get(key).map_err(sled_error)?.map(|v| v.to_vec()))
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, EngineError> {
        if is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        let _no_batch = self.applying.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = self.db()?.range::<&[u8], _>((from, to)).take(limit);
        pairs.map(|pair| pair.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(sled_error)).collect()
    }

    fn apply(&self, batch: &Batch) -> Result<(), ApplyError> {
        batch.check_sizes()?;
        let mut ahead = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(ApplyError::Stopped);
        }
        batch.check_expected(|key| self.get(key))?;
        if batch.is_empty() {
            return Ok(());
        }
        // A failed sync is never tried again: the kernel may have dropped the pages that it could not write.
        self.write(&mut ahead, batch).map_err(|e| {
            self.stopped.store(true, Ordering::SeqCst);
            ApplyError::Unknown(e)
        })
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        self.db()?.size_on_disk().map_err(sled_error)
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        let fs = rustix::fs::statvfs(&self.dir).map_err(|e| io_error(e.into()))?;
        Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
    }
}

impl Drop for SledEngine {
    /// After this the journal is not needed. sled panics when its last sync fails. Nothing is lost by that: what was answered is durable.
    fn drop(&mut self) {
        let closed = catch_unwind(AssertUnwindSafe(|| {
            let mut ahead = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            let caught_up = if ahead.bytes > 0 && !self.stopped.load(Ordering::SeqCst) { self.catch_up(&mut ahead) } else { Ok(()) };
            drop(ahead);
            drop((self.numbers.take(), self.db.take()));
            caught_up
        }));
        let why = match closed {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the reason is above".into(),
        };
        tracing::error!(dir = %self.dir.display(), why, "the database could not be closed; nothing is lost, the journal has it");
    }
}

fn open_patiently(config: &sled::Config) -> Result<sled::Db, EngineError> {
    let until = Instant::now() + REOPEN_WAIT;
    loop {
        // Some damage makes sled panic instead of returning an error.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|_| EngineError::Corrupt("it cannot be opened (the reason is in the log above)".into()))?;
        match opened {
            Err(sled::Error::Io(e)) if e.to_string().contains("could not acquire lock") && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.map_err(sled_error),
        }
    }
}

/// sled writes a snapshot at every opening, under a name that ends so until it is whole; yet it takes such a file, left by a kill, for
/// the newest snapshot, and finds it corrupt for ever. It holds nothing that the log does not.
const HALF_SNAPSHOT: &str = ".generating";

fn drop_half_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(HALF_SNAPSHOT) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Syncs every file in a directory of sled's, and its directories.
pub(super) fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn io_error(e: io::Error) -> EngineError {
    EngineError::Io(e.to_string())
}

fn sled_error(e: sled::Error) -> EngineError {
    match e {
        sled::Error::Corruption { .. }
        | sled::Error::ReportableBug(_)
        | sled::Error::Unsupported(_)
        | sled::Error::CollectionNotFound(_) => EngineError::Corrupt(e.to_string()),
        sled::Error::Io(e) => io_error(e),
    }
}
