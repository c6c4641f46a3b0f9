//! Room for values: what is free, less what is kept back and what is promised already.

use super::error::StoreError;
use crate::disk::{self, DiskError, Room};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How much room the file system has.
type AskRoom = dyn Fn() -> Result<Room, DiskError> + Send + Sync;

/// Counts promises against the room of the file system.
pub struct Space {
    ask: Box<AskRoom>,
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
    /// Of the file system of `dir`.
    pub fn new(dir: PathBuf, keep_free: u64) -> Arc<Self> {
        Self::asking(Box::new(move || disk::room(&dir)), keep_free)
    }

    /// Of what `ask` says.
    pub fn asking(ask: Box<AskRoom>, keep_free: u64) -> Arc<Self> {
        Arc::new(Self { ask, keep_free, promised: Mutex::new(0) })
    }

    /// Promises `need` bytes.
    pub fn reserve(self: &Arc<Self>, need: u64) -> Result<Reservation, StoreError> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.usable((self.ask)()?, *promised);
        if need > free {
            return Err(StoreError::NoSpace { need, free });
        }
        *promised += need;
        Ok(Reservation { space: Arc::clone(self), bytes: need })
    }

    /// Size of the file system and what new values may take, in bytes.
    pub fn total_and_free(&self) -> Result<(u64, u64), DiskError> {
        let room = (self.ask)()?;
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
        let space = Space::asking(Box::new(|| Ok(Room { total: 1000, available: 500 })), 100);
        let first = space.reserve(300).unwrap();
        let refused = space.reserve(101).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { need: 101, free: 100 }), "{refused}");
        drop(first);
        let mut second = space.reserve(300).unwrap();
        second.add(space.reserve(100).unwrap());
        assert_eq!(space.total_and_free().unwrap(), (1000, 0));
        second.settle();
        assert_eq!(space.total_and_free().unwrap(), (1000, 400));
        assert!(Space::new(PathBuf::from("."), u64::MAX).reserve(1).is_err());
        assert!(Space::new(PathBuf::from("/nowhere/at/all"), 0).reserve(1).is_err());
    }
}
