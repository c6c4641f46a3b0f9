//! What a volume keeps: values in blob files or in the index, written once, found by key and version.
//!
//! Synchronous: callers cross over to a blocking thread once per operation, or do it as a task where that waits for no call
//! (`small.rs`). Life of a value:
//! [`Store::begin`] → [`Staged::write`] … → [`Staged::finish`] (durable, prepared) → [`Store::mark_committed`],
//! or [`Store::remove`].

mod at_hand;
mod check;
mod dirs;
mod error;
mod identity;
mod open;
mod sink;
mod small;
mod space;
mod staged;
mod stored;

pub use check::{Check, Step};
pub use error::{OpenError, ReadError, StoreError};
pub use identity::{IDENTITY_FILE, SECRET_FILE};
pub use staged::Staged;
pub use stored::Stored;

use crate::disk::{self, BufferPool, Writers};
use crate::format::record::{Place, Record, ValueRecord};
use crate::index::{Aside, Index, IndexError, Outcome};
use at_hand::AtHand;
use dirs::BlobDirs;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::MAX_INLINE_VALUE_BYTES;
use kvdb_protocol::message::{BadCopy, Entry, ReclaimItem, SettleItem};
use kvdb_protocol::{ClusterId, ClusterSecret, Key, UnixMillis, VersionId, VolumeId};
use space::Space;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Default of [`StoreOptions::keep_free_bytes`], which shrinks to a twentieth of a small file system.
pub const DEFAULT_KEEP_FREE_BYTES: u64 = 256 << 20;
/// Default of [`StoreOptions::index_cache_bytes`].
pub const DEFAULT_INDEX_CACHE_BYTES: u64 = 8 << 20;
/// Default of [`StoreOptions::tombstone_keep`].
pub const DEFAULT_TOMBSTONE_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most versions that [`Store::remove`] unlinks per batch of the index.
const REMOVE_BATCH: usize = kvdb_protocol::limits::MAX_PEER_BATCH;

/// How a store is set up.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its directory; made where there is none.
    pub dir: PathBuf,
    /// Write around the page cache where the file system takes that.
    pub direct_io: bool,
    /// New values are refused where they would leave less than this free, in bytes: index, deletes and
    /// tombstones need room too. The default shrinks to a twentieth of a small file system.
    pub keep_free_bytes: u64,
    /// Bytes of values that it takes at most.
    pub capacity_bytes: u64,
    /// Largest value that lives in the index, in bytes; at most 64 KiB.
    pub max_inline_bytes: u64,
    /// Block cache of the index, in bytes.
    pub index_cache_bytes: u64,
    /// How long tombstones of deleted keys are kept.
    pub tombstone_keep: Duration,
}

impl StoreOptions {
    /// The defaults, for this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            direct_io: true,
            keep_free_bytes: DEFAULT_KEEP_FREE_BYTES,
            capacity_bytes: u64::MAX,
            max_inline_bytes: MAX_INLINE_VALUE_BYTES,
            index_cache_bytes: DEFAULT_INDEX_CACHE_BYTES,
            tombstone_keep: DEFAULT_TOMBSTONE_KEEP,
        }
    }
}

/// A value to be written. Its time of writing is the version's.
#[derive(Clone, Debug)]
pub struct NewValue {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: VersionId,
    /// Its length in bytes, where it is known.
    pub len: Option<u64>,
    /// The most bytes it may have.
    pub max_len: u64,
    /// Content type.
    pub content_type: Option<String>,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// Its ticket's last time for a commit.
    pub commit_by: UnixMillis,
    /// All volumes of its chain.
    pub replicas: Vec<VolumeId>,
}

/// How a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    /// Size of the file system, or the capacity where that is less, in bytes.
    pub total_bytes: u64,
    /// Bytes that new values may still take.
    pub free_bytes: u64,
    /// Bytes of the values that are here.
    pub used_bytes: u64,
    /// Number of values that are here.
    pub values: u64,
    /// Number of those not known to be committed.
    pub prepared: u64,
    /// Number of damaged copies that were put aside and not cleared away.
    pub quarantined: u64,
    /// Whether it takes writes.
    pub writable: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A value that was read whole and found to be what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The value.
    pub entry: kvdb_protocol::message::ValueEntry,
    /// Subtrees that were read.
    pub subtrees: u64,
}

/// The values of one volume.
pub struct Store {
    inner: Arc<Inner>,
}

/// Fields are dropped in this order: the lock last.
struct Inner {
    // Constant after opening.
    tmp: PathBuf,
    blobs: PathBuf,
    quarantine: PathBuf,
    volume: VolumeId,
    options: StoreOptions,
    // Of their own locking.
    index: Index,
    space: Arc<Space>,
    buffers: Arc<BufferPool>,
    writers: Writers,
    dirs: BlobDirs,
    at_hand: AtHand,
    quarantined: AtomicU64,
    temporary: AtomicU64,
    /// Whom it belongs to, with the secret.
    owner: Mutex<Owner>,
    /// Why no more values are taken, if so.
    stopped: Mutex<Option<String>>,
    _lock: OwnedFd,
}

#[derive(Clone)]
struct Owner {
    cluster: Option<ClusterId>,
    secret: Option<ClusterSecret>,
    reads_need_tickets: bool,
}

impl Store {
    /// Opens a directory: lock, identity, temporary files dropped, index, recovery.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: StoreOptions) -> Result<Self, OpenError> {
        Ok(Self { inner: Arc::new(open::open(options)?) })
    }

    /// The volume's id.
    pub fn volume(&self) -> VolumeId {
        self.inner.volume
    }

    /// The cluster it belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.inner.owner().cluster
    }

    /// The secret that was handed over when it was adopted.
    pub fn secret(&self) -> Option<ClusterSecret> {
        self.inner.owner().secret.clone()
    }

    /// Begins a value, and reserves room: all of it where its length is known.
    ///
    /// # Errors
    /// No room, too large, or the volume takes no writes; nothing was written then.
    pub fn begin(&self, value: NewValue) -> Result<Staged, StoreError> {
        Staged::begin(Arc::clone(&self.inner), value)
    }

    /// Notes that a version was committed. It is durable within a second; until it is, the master can be
    /// asked again. Returns false where the version is not here.
    ///
    /// # Errors
    /// The index failed.
    pub fn mark_committed(&self, key: &Key, version: VersionId, seq: u64) -> Result<bool, StoreError> {
        Ok(self.inner.index.commit(key, version, seq)? == Outcome::Done)
    }

    /// Removes versions and leaves the tombstones that are asked for; durable when it returns. Versions that
    /// are not here are fine.
    ///
    /// # Errors
    /// The index failed; some may be removed.
    pub fn remove(&self, items: &[ReclaimItem]) -> Result<(), StoreError> {
        for batch in items.chunks(REMOVE_BATCH) {
            let removed = match self.inner.index.remove(batch) {
                Err(IndexError::NoSpace { .. }) if !lab::has(Bug::RemovalNeedsRoom) => {
                    self.inner.make_room(batch).and_then(|()| Ok(self.inner.index.remove(batch)?))?
                }
                other => other?,
            };
            self.inner.unlink(&removed);
        }
        Ok(())
    }

    /// Opens a value for reading. None: it is not here.
    ///
    /// # Errors
    /// It should be here and is damaged or missing, or cannot be read.
    pub fn get(&self, key: &Key, version: VersionId) -> Result<Option<Stored>, StoreError> {
        self.inner.get(key, version)
    }

    /// Values and tombstones in order of key and version, after a cursor that an earlier call gave; with the
    /// cursor for the next call, if there is more.
    ///
    /// # Errors
    /// The index failed.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize) -> Result<(Vec<Entry>, Option<Vec<u8>>), StoreError> {
        Ok(self.inner.index.entries(after, limit)?)
    }

    /// Values not known to be committed, those first whose time for a commit ends first.
    ///
    /// # Errors
    /// The index failed.
    pub fn prepared(&self, limit: usize) -> Result<Vec<SettleItem>, StoreError> {
        Ok(self.inner.index.prepared(limit)?)
    }

    /// Puts a copy aside that is damaged, missing or unreadable: it is never served again, and is among the
    /// [`Store::bad_copies`] until the master knows. Returns false where the version is not here.
    ///
    /// # Errors
    /// It cannot be moved, or the index failed.
    pub fn quarantine(&self, key: &Key, version: VersionId, why: &str) -> Result<bool, StoreError> {
        self.inner.quarantine(key, version, why)
    }

    /// Copies that were put aside and that the master is to be told of now. One that has come back in the meantime
    /// is not among them.
    ///
    /// # Errors
    /// The index failed.
    pub fn bad_copies(&self, now: UnixMillis, limit: usize) -> Result<Vec<BadCopy>, StoreError> {
        let (mut bad, mut back) = (Vec::new(), Vec::new());
        for copy in self.inner.index.bad(now, limit)? {
            if self.inner.value_record(&copy.key, copy.version)?.is_some() { back.push(copy) } else { bad.push(copy) }
        }
        self.told(&back)?;
        Ok(bad)
    }

    /// The master knows of these bad copies.
    ///
    /// # Errors
    /// The index failed; they will be told again.
    pub fn told(&self, copies: &[BadCopy]) -> Result<(), StoreError> {
        if copies.is_empty() {
            return Ok(());
        }
        Ok(self.inner.index.told(copies.iter().map(|c| (c.key.clone(), c.version)).collect())?)
    }

    /// Number of the values that are here, and their bytes.
    pub fn held(&self) -> (u64, u64) {
        let counters = self.inner.index.counters();
        (counters.values(), counters.bytes())
    }

    /// How the store is now.
    pub fn status(&self) -> StoreStatus {
        let inner = &self.inner;
        let counters = inner.index.counters();
        let (room, unreadable) = match inner.space.total_and_free() {
            Ok(room) => (room, None),
            Err(e) => ((0, 0), Some(e.to_string())),
        };
        let reason = inner.stopped().or(unreadable);
        StoreStatus {
            total_bytes: room.0,
            free_bytes: room.1,
            used_bytes: counters.bytes(),
            values: counters.values(),
            prepared: counters.prepared(),
            quarantined: inner.quarantined.load(Ordering::Relaxed),
            writable: reason.is_none(),
            reason,
        }
    }

    /// Reads all of a value and checks all of it.
    ///
    /// # Errors
    /// It is damaged, is not here, or cannot be read.
    pub fn verify(&self, key: &Key, version: VersionId) -> Result<Verified, StoreError> {
        let stored = self.get(key, version)?.ok_or(StoreError::Absent { version })?;
        let subtrees = stored.verify()?;
        Ok(Verified { entry: stored.entry, subtrees })
    }
}

impl Inner {
    fn owner(&self) -> std::sync::MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no more values are taken, if so.
    fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone().or_else(|| self.index.stopped())
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.stopped().map_or(Ok(()), |reason| Err(StoreError::ReadOnly { reason }))
    }

    /// Takes no more values after a failed sync: what is on the disk is not known any more.
    fn stop_if_sync_failed(&self, error: &StoreError) {
        if error.is_failed_sync() {
            tracing::error!(%error, "a sync failed: this volume takes no more writes; check the disk and start it again");
            self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }
    }

    /// Removes the files of values that are to go before the index knows of it, since even that needs room. A start would
    /// drop their entries, and whoever asked for the removal asks until it is done.
    fn make_room(&self, items: &[ReclaimItem]) -> Result<(), StoreError> {
        for item in items {
            if self.value_record(&item.key, item.version)?.is_some_and(|r| matches!(r.place, Place::File { .. })) {
                disk::remove_if_there(&disk::blob_path(&self.blobs, item.version))?;
                self.at_hand.remove(item.version);
            }
        }
        Ok(())
    }

    /// The record of a value that is here.
    fn value_record(&self, key: &Key, version: VersionId) -> Result<Option<ValueRecord>, StoreError> {
        Ok(self.index.get(key, version)?.and_then(|record| match record {
            Record::Value(v) => Some(v),
            Record::Tombstone(_) => None,
        }))
    }

    fn get(&self, key: &Key, version: VersionId) -> Result<Option<Stored>, StoreError> {
        let Some(record) = self.value_record(key, version)? else { return Ok(None) };
        let opened = match record.place {
            Place::Inline => match self.index.inline(key, version)? {
                Some(bytes) => Stored::inline(record.into_entry(key.clone(), version), bytes),
                None => Err(StoreError::Corrupt { version, what: "its bytes are not in the index".into() }),
            },
            Place::File { file_len } => {
                let path = disk::blob_path(&self.blobs, version);
                Stored::file(record.into_entry(key.clone(), version), path, file_len)
            }
        };
        match opened {
            Ok(stored) => Ok(Some(stored)),
            // It may have been removed between the look-up and the opening.
            Err(StoreError::Corrupt { .. }) if self.value_record(key, version)?.is_none() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn quarantine(&self, key: &Key, version: VersionId, why: &str) -> Result<bool, StoreError> {
        let Some(record) = self.value_record(key, version)? else { return Ok(false) };
        tracing::error!(%key, %version, volume = %self.volume, why, "a bad copy is put aside");
        // The file first: without its entry it would be taken for a new value at the next start.
        match record.place {
            Place::File { .. } => match disk::move_file(&disk::blob_path(&self.blobs, version), &self.aside(version)) {
                Err(e) if e.is_not_found() => {}
                other => {
                    other?;
                    self.quarantined.fetch_add(1, Ordering::Relaxed);
                }
            },
            // Its bytes are kept for people to look at; that they cannot be kept is no reason to keep the entry.
            Place::Inline => match self.keep_inline(key, version) {
                Ok(()) => drop(self.quarantined.fetch_add(1, Ordering::Relaxed)),
                Err(error) => tracing::warn!(%key, %version, %error, "the bytes of a bad copy are not kept"),
            },
        }
        self.index.put_aside(vec![Aside { key: key.clone(), version, why: why.into() }])?;
        self.at_hand.remove(version);
        Ok(true)
    }

    fn keep_inline(&self, key: &Key, version: VersionId) -> Result<(), StoreError> {
        let bytes = self.index.inline(key, version)?.unwrap_or_default();
        Ok(disk::replace_file(&self.aside(version), &bytes, 0o640)?)
    }

    /// A free name in the quarantine.
    fn aside(&self, version: VersionId) -> PathBuf {
        open::free_name(&self.quarantine, version)
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
