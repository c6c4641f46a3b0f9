//! Room for values: what is free, less what is kept back and what is promised already.

use super::error::StoreError;
use crate::disk::{self, DiskError, Room};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts promises against the room of the file system.
pub struct Space {
    dir: PathBuf,
    keep_free: u64,
    /// Promised, and not yet taken on the file system.
    promised: Mutex<u64>,
}

/// A promise of room; dropping it gives it back.
pub struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    pub fn new(dir: PathBuf, keep_free: u64) -> Arc<Self> {
        Arc::new(Self { dir, keep_free, promised: Mutex::new(0) })
    }

    /// Promises `need` bytes.
    pub fn reserve(self: &Arc<Self>, need: u64) -> Result<Reservation, StoreError> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.usable(disk::room(&self.dir)?, *promised);
        if need > free {
            return Err(StoreError::NoSpace { need, free });
        }
        *promised += need;
        Ok(Reservation { space: Arc::clone(self), bytes: need })
    }

    /// Size of the file system and what new values may take, in bytes.
    pub fn total_and_free(&self) -> Result<(u64, u64), DiskError> {
        let room = disk::room(&self.dir)?;
        let promised = *self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((room.total, self.usable(room, promised)))
    }

    fn usable(&self, room: Room, promised: u64) -> u64 {
        room.available.saturating_sub(self.keep_free).saturating_sub(promised)
    }
}

impl Reservation {
    /// Adds another promise to this one.
    pub fn add(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives all back: it is taken on the file system now, and counted there.
    pub fn settle(&mut self) {
        let mut promised = self.space.promised.lock().unwrap_or_else(PoisonError::into_inner);
        *promised -= self.bytes;
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_not_promised_again_until_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let available = disk::room(dir.path()).unwrap().available;
        // Leaves about 1 GiB, whatever else this machine writes meanwhile.
        let space = Space::new(dir.path().to_path_buf(), available - (1 << 30));
        let first = space.reserve(700 << 20).unwrap();
        let refused = space.reserve(700 << 20).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { need, free } if need == 700 << 20 && free < need), "{refused}");
        drop(first);
        let mut second = space.reserve(700 << 20).unwrap();
        second.settle();
        assert!(space.reserve(700 << 20).is_ok());
        assert!(Space::new(dir.path().to_path_buf(), u64::MAX).reserve(1).is_err());
    }
}
