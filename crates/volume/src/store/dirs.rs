//! The directories of blob files: made when they are first needed, and known to be durable before a file
//! in them counts.

use crate::disk::{self, DiskError};
use kvdb_protocol::VersionId;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const DIRS: usize = 1 << 16;

/// Knows which of the 65,536 directories are there and durable.
pub struct BlobDirs {
    blobs: PathBuf,
    /// One bit a directory. Unset at the start for those that are there, too: a process that was killed
    /// may have made one and never synced it.
    durable: Mutex<Vec<u64>>,
}

impl BlobDirs {
    pub fn new(blobs: PathBuf) -> Self {
        Self { blobs, durable: Mutex::new(vec![0; DIRS / 64]) }
    }

    /// The path for a version's file; its directory is there, durably.
    pub fn path_for(&self, version: VersionId) -> Result<PathBuf, DiskError> {
        let path = disk::blob_path(&self.blobs, version);
        let [.., x, y] = *version.as_bytes();
        let (word, bit) = (usize::from(x) * 4 + usize::from(y) / 64, 1u64 << (y % 64));
        let is_durable = |durable: &[u64]| durable.get(word).is_some_and(|w| w & bit != 0);
        if !is_durable(&self.durable.lock().unwrap_or_else(PoisonError::into_inner))
            && let Some(dir) = path.parent()
            && let Some(above) = dir.parent()
        {
            if disk::ensure_dir(above)? || !dir.exists() {
                disk::sync_dir(&self.blobs)?;
            }
            disk::ensure_dir(dir)?;
            disk::sync_dir(above)?;
            if let Some(w) = self.durable.lock().unwrap_or_else(PoisonError::into_inner).get_mut(word) {
                *w |= bit;
            }
        }
        Ok(path)
    }
}
