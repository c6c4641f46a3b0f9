//! The directories of blob files: made when they are first needed, and known to be durable before a file
//! in them counts.

use crate::disk::{self, DiskError};
use kvdb_protocol::VersionId;
use kvdb_protocol::lab::{self, Bug};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Knows which directories are there and durable: of the first level by one byte, of the second by two, so
/// at most 65,792.
pub struct BlobDirs {
    blobs: PathBuf,
    /// None at the start, though some are there: a process that was killed may have made them and never
    /// synced their names.
    durable: Mutex<HashSet<(u8, Option<u8>)>>,
}

impl BlobDirs {
    pub fn new(blobs: PathBuf) -> Self {
        Self { blobs, durable: Mutex::new(HashSet::new()) }
    }

    /// The path for a version's file; its directory is there, durably.
    pub fn path_for(&self, version: VersionId) -> Result<PathBuf, DiskError> {
        let path = disk::blob_path(&self.blobs, version);
        let [.., x, y] = *version.as_bytes();
        if !self.is_durable((x, Some(y)))
            && let Some(dir) = path.parent()
            && let Some(above) = dir.parent()
        {
            if !self.is_durable((x, None)) {
                disk::ensure_dir(above)?;
                if !lab::has(Bug::DirectoryNotSynced) {
                    disk::sync_dir(&self.blobs)?;
                }
                self.now_durable((x, None));
            }
            disk::ensure_dir(dir)?;
            if !lab::has(Bug::DirectoryNotSynced) {
                disk::sync_dir(above)?;
            }
            self.now_durable((x, Some(y)));
        }
        Ok(path)
    }

    /// Some may be gone: what is needed next is looked for, and made, again.
    pub fn forget(&self) {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn is_durable(&self, dir: (u8, Option<u8>)) -> bool {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(&dir)
    }

    fn now_durable(&self, dir: (u8, Option<u8>)) {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(dir);
    }
}
