//! The index: what the volume holds, in an LSM tree. Reads go straight to it; every change goes through
//! one committer thread, which puts whatever waits into one batch with one sync.

mod committer;
mod hot;
mod requests;
mod reserve;
mod tables;

pub use hot::Small;
pub use requests::Outcome;
pub use tables::Counters;

use crate::disk::{self, DiskError};
use crate::format::FormatError;
use crate::format::record::{
    Record, ValueRecord, blob_list_key, entry_key, parse_bad_row, parse_blob_list_key, parse_entry_key, parse_time_list_key,
};
use bytes::Bytes;
use committer::Committer;
use hot::Hot;
use kvdb_protocol::message::{BadCopy, Entry, ReclaimItem, SettleItem};
use kvdb_protocol::{Key, UnixMillis, VersionId};
use requests::{Op, Requests};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tables::Tables;
use thiserror::Error;

/// How the index is set up.
#[derive(Clone, Debug)]
pub struct IndexOptions {
    /// Its block cache, in bytes.
    pub cache_bytes: u64,
    /// How long tombstones are kept.
    pub tombstone_keep: Duration,
    /// Below this much room on the file system new values are refused, so that the index itself never
    /// runs out: a failed write would stop it for good. In bytes.
    pub min_room_bytes: u64,
    /// Where room is held that is given up when less than that is free.
    pub reserve: PathBuf,
    /// How much, in bytes.
    pub reserve_bytes: u64,
}

/// Why the index did not do it.
#[derive(Debug, Error)]
pub enum IndexError {
    /// A write failed earlier, now or before. What is on disk is not known until the volume is started again.
    #[error("the index stopped after a failed write ({0}); check the disk and start the volume again")]
    Stopped(String),
    /// A read failed.
    #[error("the index cannot be read: {0}; check the disk and start the volume again")]
    Read(String),
    /// What was to be read is damaged.
    #[error("the index is damaged where it was read: {0}")]
    Unreadable(String),
    /// A record cannot be understood.
    #[error("the index holds a damaged record: {0}; stop the volume, move its directory `index` away and start it again")]
    Damaged(#[from] FormatError),
    /// Too little room to write to the index safely.
    #[error("only {free} bytes are free, which the index keeps for itself")]
    NoSpace {
        /// Room on the file system, in bytes.
        free: u64,
    },
}

impl From<fjall::Error> for IndexError {
    fn from(e: fjall::Error) -> Self {
        if tables::tells_of_damage(&e) { Self::Unreadable(e.to_string()) } else { Self::Read(e.to_string()) }
    }
}

/// Why the index could not be opened.
#[derive(Debug, Error)]
pub enum IndexOpenError {
    /// Another process has it.
    #[error("another process uses it")]
    Locked,
    /// The system does not permit it now: no space, no descriptors, no permission. The index may be sound.
    #[error("{0}")]
    System(std::io::Error),
    /// Written by a newer program.
    #[error("it was written by a newer program: {0}")]
    Newer(String),
    /// It is damaged, and must be made again from the blob files.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// A copy that cannot be served, and goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: VersionId,
    /// What is wrong with it.
    pub why: String,
}

/// The index of a volume.
pub struct Index {
    tables: Tables,
    counters: Arc<Counters>,
    hot: Arc<Hot>,
    committer: Committer,
}

impl Index {
    /// Opens it, or makes it; reads every record once.
    ///
    /// # Errors
    /// See [`IndexOpenError`].
    pub fn open(dir: &Path, options: &IndexOptions) -> Result<Self, IndexOpenError> {
        let tables = Tables::open(dir, options.cache_bytes)?;
        let counters = Arc::new(tables.count().map_err(|e| IndexOpenError::Damaged(e.to_string()))?);
        let hot = Arc::new(Hot::default());
        let committer = Committer::start(tables.clone(), Arc::clone(&counters), Arc::clone(&hot), dir.to_path_buf(), options.clone())
            .map_err(IndexOpenError::System)?;
        Ok(Self { tables, counters, hot, committer })
    }

    /// Numbers of what it holds.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Why it stopped, if it did.
    pub fn stopped(&self) -> Option<String> {
        self.committer.requests().map_or_else(|e| Some(e.to_string()), Requests::stopped)
    }

    fn run(&self, op: Op) -> Result<Outcome, IndexError> {
        self.committer.requests()?.run(op)
    }

    /// What it holds for a key and version.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self, key: &Key, version: VersionId) -> Result<Option<Record>, IndexError> {
        self.tables.record(&entry_key(key, version))
    }

    /// The bytes of a value that lives in the index.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn inline(&self, key: &Key, version: VersionId) -> Result<Option<Bytes>, IndexError> {
        let found = self.tables.inline.get(entry_key(key, version))?;
        // One that does not have a buffer of its own would keep that of all its neighbours.
        Ok(found.map(|slice| if slice.len() < tables::SEPARATE_BYTES { Bytes::copy_from_slice(&slice) } else { Bytes::from_owner(slice) }))
    }

    /// Adds a prepared value, durably.
    ///
    /// # Errors
    /// It is not added, or not known to be.
    pub fn put(&self, key: &Key, version: VersionId, record: ValueRecord, inline: Option<Vec<u8>>) -> Result<Outcome, IndexError> {
        self.run(Op::Put { key: key.clone(), version, record, inline })
    }

    /// The same as a task, for a small value, which stays in memory for the readers that often follow.
    ///
    /// # Errors
    /// As of [`Index::put`].
    pub async fn put_small(&self, key: &Key, version: VersionId, record: ValueRecord, bytes: Vec<u8>) -> Result<Outcome, IndexError> {
        let removals = self.hot.removals();
        let small = Small { entry: record.clone().into_entry(key.clone(), version), bytes: Bytes::copy_from_slice(&bytes) };
        let op = Op::Put { key: key.clone(), version, record, inline: Some(bytes) };
        let outcome = self.committer.requests()?.run_in_task(op).await?;
        if outcome == Outcome::Done {
            self.hot.keep(entry_key(key, version), small, removals);
        }
        Ok(outcome)
    }

    /// A small value that is in memory. Never blocks.
    pub fn in_memory(&self, key: &Key, version: VersionId) -> Option<Small> {
        self.hot.get(&entry_key(key, version))
    }

    /// A small value from the index, which stays in memory for the next readers.
    ///
    /// # Errors
    /// As of `read`, which is to read it.
    pub fn keeping<T, E>(
        &self,
        read: impl FnOnce() -> Result<Option<T>, E>,
        small: impl FnOnce(&T) -> Option<Small>,
    ) -> Result<Option<T>, E> {
        let removals = self.hot.removals();
        let found = read()?;
        if let Some(small) = found.as_ref().and_then(small) {
            self.hot.keep(entry_key(&small.entry.key, small.entry.version), small, removals);
        }
        Ok(found)
    }

    /// Adds values that were found as blob files, durably.
    ///
    /// # Errors
    /// They are not added, or not known to be.
    pub fn adopt(&self, values: Vec<(Key, VersionId, ValueRecord)>) -> Result<(), IndexError> {
        self.run(Op::Adopt { values }).map(drop)
    }

    /// Notes that a value was committed; durable within a second or with the next change.
    ///
    /// # Errors
    /// It is not noted.
    pub fn commit(&self, key: &Key, version: VersionId, seq: u64) -> Result<Outcome, IndexError> {
        self.run(Op::Commit { key: key.clone(), version, seq })
    }

    /// The same, which nobody waits for: it is made with the next change, or soon. A failure stops the index, and is logged.
    ///
    /// # Errors
    /// It will not be noted.
    pub async fn leave_commit(&self, key: Key, version: VersionId, seq: u64) -> Result<(), IndexError> {
        self.committer.requests()?.leave(Op::Commit { key, version, seq }).await
    }

    /// Notes that what is prepared may be committed until then; nobody waits for it. Lost in a crash, it is asked for too early.
    ///
    /// # Errors
    /// It will not be noted.
    pub async fn leave_extension(&self, key: Key, version: VersionId, commit_by: UnixMillis) -> Result<(), IndexError> {
        self.committer.requests()?.leave(Op::Extend { key, version, commit_by }).await
    }

    /// As [`Index::remove`], as a task.
    ///
    /// # Errors
    /// As of [`Index::remove`].
    pub async fn remove_in_task(&self, items: Vec<ReclaimItem>) -> Result<Vec<VersionId>, IndexError> {
        match self.committer.requests()?.run_in_task(Op::Remove { items }).await? {
            Outcome::Removed(files) => Ok(files),
            _ => Ok(Vec::new()),
        }
    }

    /// Removes values and leaves tombstones, durably. The versions whose blob files are now nobody's come back.
    ///
    /// # Errors
    /// It is not done, or not known to be.
    pub fn remove(&self, items: &[ReclaimItem]) -> Result<Vec<VersionId>, IndexError> {
        match self.run(Op::Remove { items: items.to_vec() })? {
            Outcome::Removed(files) => Ok(files),
            _ => Ok(Vec::new()),
        }
    }

    /// Removes values that cannot be served and notes, in the same step, that the master is to be told; durably.
    /// Versions that are not here are passed over. The versions whose blob files are now nobody's come back.
    ///
    /// # Errors
    /// It is not done, or not known to be.
    pub fn put_aside(&self, copies: Vec<Aside>) -> Result<Vec<VersionId>, IndexError> {
        match self.run(Op::PutAside { copies })? {
            Outcome::Removed(files) => Ok(files),
            _ => Ok(Vec::new()),
        }
    }

    /// Copies that were put aside and that the master is to be told of by now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn bad(&self, now: UnixMillis, limit: usize) -> Result<Vec<BadCopy>, IndexError> {
        let mut copies = Vec::new();
        for guard in self.tables.bad.iter() {
            let (k, v) = guard.into_inner()?;
            let (key, version) = parse_entry_key(&k)?;
            let (not_before, why) = parse_bad_row(&v)?;
            if not_before <= now {
                copies.push(BadCopy { key, version, why });
            }
            if copies.len() >= limit {
                break;
            }
        }
        Ok(copies)
    }

    /// The master knows of these now, or need not.
    ///
    /// # Errors
    /// It is not noted.
    pub fn told(&self, copies: Vec<(Key, VersionId)>) -> Result<(), IndexError> {
        self.run(Op::Told { copies }).map(drop)
    }

    /// Whether a version should have a blob file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn has_blob(&self, version: VersionId) -> Result<bool, IndexError> {
        Ok(self.tables.blobs.contains_key(blob_list_key(version))?)
    }

    /// Entries in order of key and version, after a cursor that an earlier call gave.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize) -> Result<(Vec<Entry>, Option<Vec<u8>>), IndexError> {
        let from = after.map_or(Bound::Unbounded, |a| Bound::Excluded(a.to_vec()));
        let mut found = self.tables.entries.range::<Vec<u8>, _>((from, Bound::Unbounded));
        let mut entries = Vec::with_capacity(limit.min(1024));
        let mut last = None;
        for guard in found.by_ref().take(limit) {
            let (k, v) = guard.into_inner()?;
            let (key, version) = parse_entry_key(&k)?;
            entries.push(Record::decode(&v)?.into_entry(key, version));
            last = Some(k.to_vec());
        }
        let more = found.next().is_some();
        Ok((entries, last.filter(|_| more)))
    }

    /// Values not known to be committed, those first whose time for a commit ends first.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn prepared(&self, limit: usize) -> Result<Vec<SettleItem>, IndexError> {
        let mut items = Vec::new();
        for guard in self.tables.prepared.iter().take(limit) {
            let k = guard.key()?;
            let (commit_by, entry) = parse_time_list_key(&k)?;
            let (key, version) = parse_entry_key(entry)?;
            items.push(SettleItem { key, version, commit_by });
        }
        Ok(items)
    }

    /// The versions that should have a blob file, in the order in which directories are walked, with their keys.
    pub fn blob_list(&self) -> impl Iterator<Item = Result<(VersionId, Key), IndexError>> + use<> {
        self.tables.blobs.iter().map(|guard| {
            let (k, v) = guard.into_inner()?;
            let key = Key::new(v.to_vec()).map_err(|_| FormatError::Field("a key in the list of blob files"))?;
            Ok((parse_blob_list_key(&k)?, key))
        })
    }
}

/// Moves an index that cannot be opened out of the way and says where it is now.
///
/// # Errors
/// It cannot be moved.
pub fn set_aside(dir: &Path) -> Result<PathBuf, DiskError> {
    let mut n = 1;
    loop {
        let to = dir.with_file_name(format!("index.damaged-{n}"));
        match disk::move_file(dir, &to) {
            Err(e) if e.is_exists() => n += 1,
            Err(e) => return Err(e),
            Ok(()) => return Ok(to),
        }
    }
}

/// The time by which tombstones are old enough to go.
fn tombstone_cutoff(keep: Duration) -> UnixMillis {
    let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(UnixMillis::now().0.saturating_sub(keep))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
