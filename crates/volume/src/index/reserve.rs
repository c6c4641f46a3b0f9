//! Room that is held on the file system and given up when it is full, so that values can still be removed:
//! the index must not meet a full disk, since one failed write stops it.

use crate::disk::{self, BlobWriter};
use std::path::PathBuf;

/// Once given up, it is taken back when this many times its size is free.
const TAKE_BACK_FACTOR: u64 = 8;

/// A file of which only its room counts.
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: bool,
}

impl Reserve {
    /// Not held yet.
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        Self { path, bytes, held: false }
    }

    /// Gives it up where less than `low` bytes are free, takes it (back) where there is plenty.
    pub fn adjust(&mut self, available: u64, low: u64) {
        if self.held && available < low {
            self.give_up();
        } else if !self.held && available >= low && available / TAKE_BACK_FACTOR > self.bytes {
            self.take();
        }
    }

    fn give_up(&mut self) {
        match disk::remove_if_there(&self.path) {
            Ok(()) => tracing::warn!(bytes = self.bytes, "the disk is full: the reserve is given up so that values can still be removed"),
            Err(error) => tracing::error!(%error, "the disk is full and the reserve cannot be given up"),
        }
        self.held = false;
    }

    /// Where that fails the volume works all the same, only without a reserve.
    fn take(&mut self) {
        let taken = disk::remove_if_there(&self.path).and_then(|()| {
            let mut file = BlobWriter::create(self.path.clone(), false)?;
            if file.reserve(self.bytes)? {
                file.keep();
            }
            Ok(())
        });
        if let Err(error) = taken {
            tracing::debug!(%error, "no reserve for now");
        }
        // Even if not: it is not tried again with every change.
        self.held = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn it_is_there_until_the_disk_is_full_and_again_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        std::fs::write(&path, b"left over").unwrap();
        let mut reserve = Reserve::new(path.clone(), 1 << 20);
        for _ in 0..2 {
            reserve.adjust(u64::MAX, 100);
            assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
            reserve.adjust(100, 100);
            assert!(path.exists(), "there is room enough");
            reserve.adjust(99, 100);
            assert!(!path.exists());
            reserve.adjust(1 << 20, 100);
            assert!(!path.exists(), "too little to take it back");
        }
    }
}
