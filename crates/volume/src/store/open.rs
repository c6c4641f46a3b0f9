//! Opening a directory, and making good what a crash left behind.

use super::at_hand::AtHand;
use super::dirs::BlobDirs;
use super::error::OpenError;
use super::identity::{self, Identity};
use super::space::Space;
use super::stored::{FooterError, read_footer};
use super::{DEFAULT_KEEP_FREE_BYTES, Inner, Owner, StoreOptions};
use crate::disk::{self, BufferPool, Context as _, Op, Writers};
use crate::format::record::{Place, Record, ValueRecord};
use crate::format::{FORMAT, FormatError};
use crate::index::{self, Aside, Index, IndexError, IndexOpenError, IndexOptions};
use kvdb_protocol::limits::MAX_INLINE_VALUE_BYTES;
use kvdb_protocol::{Key, VersionId};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::iter::Peekable;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// Room below which even the index takes no new values, in bytes.
const MIN_INDEX_ROOM_BYTES: u64 = 8 << 20;
/// On a small file system no less than this is kept free by default, in bytes: the index needs it.
const MIN_KEEP_FREE_BYTES: u64 = 16 << 20;
/// Room held for removals on a full disk, in bytes; at most a hundredth of the file system.
const RESERVE_BYTES: u64 = 16 << 20;
/// Blob files taken into the index in one batch.
const ADOPT_BATCH: usize = 1024;

pub(super) fn open(mut options: StoreOptions) -> Result<Inner, OpenError> {
    options.max_inline_bytes = options.max_inline_bytes.min(MAX_INLINE_VALUE_BYTES);
    let lock = lock_dir(&options.dir)?;
    let identity = Identity::read_or_make(&options.dir).map_err(|e| tell_read_only(&options.dir, e))?;
    let sub = |name: &str| options.dir.join(name);
    let (tmp, blobs, quarantine) = (sub("tmp"), sub("blobs"), sub("quarantine"));
    make_dirs(&options.dir, &[&tmp, &blobs, &quarantine]).map_err(|e| tell_read_only(&options.dir, e))?;
    drop_temporary(&tmp)?;

    let total = disk::room(&options.dir)?.total;
    if options.keep_free_bytes == DEFAULT_KEEP_FREE_BYTES {
        options.keep_free_bytes = DEFAULT_KEEP_FREE_BYTES.min((total / 20).max(MIN_KEEP_FREE_BYTES.min(total / 4)));
    }
    let index = open_index(&sub("index"), &options, total)?;
    recover(&blobs, &quarantine, &index)?;
    let quarantined = disk::list(&quarantine)?.len() as u64;
    let counters = Arc::clone(index.counters());
    let space = Space::new(options.dir.clone(), options.keep_free_bytes).with_capacity(options.capacity_bytes, move || counters.bytes());
    // A secret without a cluster is what an adoption left that was cut off: it does not count.
    let secret = if identity.cluster.is_some() { identity::read_secret(&options.dir)? } else { None };

    Ok(Inner {
        space: Arc::new(space),
        dirs: BlobDirs::new(blobs.clone()),
        at_hand: AtHand::new(),
        buffers: Arc::new(BufferPool::default()),
        writers: Writers::start().map_err(OpenError::NoThreads)?,
        quarantined: AtomicU64::new(quarantined),
        temporary: AtomicU64::new(0),
        owner: Mutex::new(Owner { cluster: identity.cluster, secret, reads_need_tickets: identity.reads_need_tickets }),
        stopped: Mutex::new(None),
        volume: identity.volume,
        tmp,
        blobs,
        quarantine,
        options,
        index,
        _lock: lock,
    })
}

/// Makes the directory where there is none, and locks it for as long as the descriptor lives.
fn lock_dir(dir: &Path) -> Result<OwnedFd, OpenError> {
    match std::fs::metadata(dir) {
        Ok(m) if !m.is_dir() => return Err(OpenError::NotADirectory(dir.to_path_buf())),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).at(Op::Create, dir)?;
            disk::sync_parent(dir)?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => return Err(OpenError::NotADirectory(dir.to_path_buf())),
        Err(e) => return Err(e).at(Op::Open, dir)?,
    }
    let fd = OwnedFd::from(File::open(dir).at(Op::Open, dir)?);
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(fd),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked(dir.to_path_buf())),
        Err(e) => Err(e).at(Op::Open, dir)?,
    }
}

/// Makes the directories inside, and tries whether files can be made at all.
fn make_dirs(dir: &Path, inside: &[&Path]) -> Result<(), OpenError> {
    for path in inside {
        disk::ensure_dir(path)?;
    }
    disk::sync_dir(dir)?;
    let probe = inside.first().copied().unwrap_or(dir).join("probe");
    disk::remove_if_there(&probe)?;
    drop(disk::create_new(&probe, 0o600)?);
    disk::remove_if_there(&probe)?;
    Ok(())
}

fn tell_read_only(dir: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Io(e) if e.is_read_only() => OpenError::ReadOnlyDirectory { path: dir.to_path_buf(), source: e.source },
        other => other,
    }
}

fn drop_temporary(tmp: &Path) -> Result<(), OpenError> {
    for found in disk::list(tmp)? {
        let path = tmp.join(&found.name);
        if found.is_dir {
            tracing::warn!(path = %path.display(), "this does not belong here and is ignored");
        } else {
            disk::remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Opens the index; one that is damaged is moved out of the way, and a new one begun.
fn open_index(dir: &Path, options: &StoreOptions, total: u64) -> Result<Index, OpenError> {
    let index_options = IndexOptions {
        cache_bytes: options.index_cache_bytes,
        tombstone_keep: options.tombstone_keep,
        min_room_bytes: MIN_INDEX_ROOM_BYTES.min(total / 50),
        reserve: options.dir.join("reserve"),
        reserve_bytes: RESERVE_BYTES.min(total / 100),
    };
    let failed = |why: String| OpenError::Index { path: dir.to_path_buf(), why };
    disk::ensure_dir(dir)?;
    let damage = match Index::open(dir, &index_options) {
        Ok(index) => return Ok(index),
        Err(IndexOpenError::Damaged(why)) => why,
        Err(IndexOpenError::Locked) => return Err(OpenError::Locked(dir.to_path_buf())),
        Err(e @ (IndexOpenError::System(_) | IndexOpenError::Newer(_))) => return Err(failed(e.to_string())),
    };
    let aside = index::set_aside(dir)?;
    tracing::error!(
        why = damage,
        moved_to = %aside.display(),
        "the index is damaged; it is made again from the blob files. Small values, which live in it, and tombstones are lost from this volume"
    );
    disk::ensure_dir(dir)?;
    disk::sync_parent(dir)?;
    Index::open(dir, &index_options).map_err(|e| failed(e.to_string()))
}

/// Holds the blob files against the index, without reading content. A file without an entry is taken in as
/// prepared (its rename was done and its entry not, its removal was undone by a power cut, or the index is
/// new); an entry without a file goes, and the
/// master is told.
fn recover(blobs: &Path, quarantine: &Path, index: &Index) -> Result<(), OpenError> {
    let mut recovery = Recovery { blobs, quarantine, index, adopt: Vec::new(), missing: Vec::new(), adopted: 0, removed: 0 };
    let mut expected = index.blob_list().peekable();
    for dir in disk::blob_dirs(blobs)? {
        recovery.missing_before(&mut expected, |v| dir_of(v) < dir)?;
        for version in disk::list_blobs(blobs, dir)? {
            recovery.missing_before(&mut expected, |v| (dir_of(v), v) < (dir, version))?;
            match expected.next_if(|next| next.as_ref().is_ok_and(|(v, _)| *v == version)) {
                Some(_) => {}
                None => recovery.take_in(version)?,
            }
        }
    }
    recovery.missing_before(&mut expected, |_| true)?;
    drop(expected);
    recovery.end()
}

fn dir_of(version: VersionId) -> [u8; 2] {
    let [.., x, y] = *version.as_bytes();
    [x, y]
}

struct Recovery<'a> {
    blobs: &'a Path,
    quarantine: &'a Path,
    index: &'a Index,
    adopt: Vec<(Key, VersionId, ValueRecord)>,
    missing: Vec<Aside>,
    adopted: u64,
    removed: u64,
}

impl Recovery<'_> {
    /// Entries that come before what was found have no file.
    fn missing_before(
        &mut self,
        expected: &mut Peekable<impl Iterator<Item = Result<(VersionId, Key), IndexError>>>,
        before: impl Fn(VersionId) -> bool,
    ) -> Result<(), OpenError> {
        while let Some(next) = expected.next_if(|next| next.as_ref().map_or(true, |(v, _)| before(*v))) {
            let (version, key) = next.map_err(|e| self.index_failed(&e))?;
            tracing::warn!(%key, %version, "the file of this value is missing: this volume does not have it any more");
            self.missing.push(Aside { key, version, why: "its file is missing".into() });
            if self.missing.len() >= ADOPT_BATCH {
                self.drop_missing()?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self, version: VersionId) -> Result<(), OpenError> {
        let path = disk::blob_path(self.blobs, version);
        let file = disk::open_regular(&path)?;
        let file_len = file.metadata().at(Op::Stat, &path)?.len();
        let footer = match read_footer(&file, &path, file_len) {
            Ok(footer) if footer.version == version => footer,
            Ok(_) => return self.put_aside(version, &path, "its footer is of another version"),
            Err(FooterError::Format(FormatError::Newer { found, .. })) => {
                return Err(OpenError::NewerFormat { path, found, known: FORMAT });
            }
            Err(FooterError::Format(e)) => return self.put_aside(version, &path, &e.to_string()),
            Err(FooterError::Io(e)) => return Err(e.into()),
        };
        match self.index.get(&footer.key, version).map_err(|e| self.index_failed(&e))? {
            // Deleted for good; the power went before the file's removal was durable.
            Some(Record::Tombstone(_)) => return Ok(disk::remove_if_there(&path)?),
            Some(Record::Value(_)) => return self.put_aside(version, &path, "the index has this value elsewhere"),
            None => {}
        }
        let record = ValueRecord {
            len: footer.len,
            hash: footer.hash,
            place: Place::File { file_len },
            content_type: footer.content_type,
            modified: footer.modified,
            expires: footer.expires,
            commit_by: footer.commit_by,
            replicas: footer.replicas,
            seq: None,
        };
        tracing::debug!(key = %footer.key, %version, "a blob file without an entry is taken in as prepared");
        self.adopt.push((footer.key, version, record));
        if self.adopt.len() >= ADOPT_BATCH {
            self.write_adopted()?;
        }
        Ok(())
    }

    fn put_aside(&self, version: VersionId, path: &Path, why: &str) -> Result<(), OpenError> {
        tracing::error!(%version, why, "a blob file that is in no index is damaged and is put aside");
        Ok(disk::move_file(path, &free_name(self.quarantine, version))?)
    }

    fn write_adopted(&mut self) -> Result<(), OpenError> {
        let values = std::mem::take(&mut self.adopt);
        if values.is_empty() {
            return Ok(());
        }
        // Their names may be in memory only, if a process was killed before it synced the directory.
        disk::sync_file_system(self.blobs)?;
        self.adopted += values.len() as u64;
        self.index.adopt(values).map_err(|e| self.index_failed(&e))
    }

    fn drop_missing(&mut self) -> Result<(), OpenError> {
        let copies = std::mem::take(&mut self.missing);
        if copies.is_empty() {
            return Ok(());
        }
        self.removed += copies.len() as u64;
        self.index.put_aside(copies).map(drop).map_err(|e| self.index_failed(&e))
    }

    fn end(mut self) -> Result<(), OpenError> {
        self.write_adopted()?;
        self.drop_missing()?;
        if self.adopted + self.removed > 0 {
            tracing::warn!(taken_in = self.adopted, missing = self.removed, "index and blob files are brought together");
        }
        Ok(())
    }

    fn index_failed(&self, e: &IndexError) -> OpenError {
        OpenError::Index { path: self.blobs.with_file_name("index"), why: e.to_string() }
    }
}

/// A name in the quarantine that is not taken.
pub(super) fn free_name(quarantine: &Path, version: VersionId) -> PathBuf {
    let mut path = quarantine.join(version.to_string());
    let mut n = 1;
    while path.symlink_metadata().is_ok() {
        path = quarantine.join(format!("{version}-{n}"));
        n += 1;
    }
    path
}
