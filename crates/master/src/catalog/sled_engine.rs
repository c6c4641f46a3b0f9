//! sled 0.34.7 as an engine.
//!
//! sled ends a flush in `sync_file_range`, which does not make a file's growth durable: after it, the
//! data file is synced here through a descriptor of our own. The background flusher, which only logs
//! its errors, is off. Values are far below the size at which sled would write a file of its own
//! (128 KiB for a page of 17 pairs), so that the data file is the only one that changes after opening.

use super::engine::{ApplyError, Batch, Engine, EngineError, Pair, is_empty_range};
use kvdb_protocol::lab::{self, Bug};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// sled gives up its file a little after its handle is dropped; opening again waits this long at most.
/// Two processes never wait for each other here: the catalog's own lock is taken before.
const REOPEN_WAIT: Duration = Duration::from_secs(10);
const DATA_FILE: &str = "db";

/// An engine in a directory of its own.
pub struct SledEngine {
    dir: PathBuf,
    /// None only while it is dropped.
    db: Option<sled::Db>,
    data: File,
    /// Excludes scans from a batch that is being applied (not from its sync), and batches from each other.
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
        sync_tree(dir).map_err(io_error)?;
        Ok(Self { dir: dir.to_path_buf(), db: Some(db), data, applying: RwLock::new(()), stopped: AtomicBool::new(false) })
    }

    fn db(&self) -> Result<&sled::Db, EngineError> {
        self.db.as_ref().ok_or_else(|| EngineError::Io("it is closed".into()))
    }

    fn write_all(&self, batch: &Batch) -> Result<(), EngineError> {
        let mut writes = sled::Batch::default();
        for (key, value) in batch.writes() {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.db()?.apply_batch(writes).map_err(sled_error)
    }

    fn make_durable(&self) -> Result<(), EngineError> {
        self.db()?.flush().map_err(sled_error)?;
        if lab::has(Bug::CatalogNotSynced) { Ok(()) } else { self.data.sync_data().map_err(io_error) }
    }
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
        let alone = self.applying.write().unwrap_or_else(PoisonError::into_inner);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(ApplyError::Stopped);
        }
        batch.check_expected(|key| self.get(key))?;
        let written = self.write_all(batch);
        drop(alone);
        // A failed sync is never tried again: the kernel may have dropped the pages that it could not write.
        written.and_then(|()| self.make_durable()).map_err(|e| {
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
    /// sled panics when its last sync fails. Nothing is lost by that: what was answered is durable.
    fn drop(&mut self) {
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::error!(dir = %self.dir.display(), "the database could not be closed (the reason is above)");
        }
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
