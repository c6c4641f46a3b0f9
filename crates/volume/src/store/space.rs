//! Room for values: what is free, less what is kept back and what is promised already; and no more than the capacity.

use super::error::StoreError;
use crate::disk::{self, DiskError, Room};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How much room the file system has.
type AskRoom = dyn Fn() -> Result<Room, DiskError> + Send + Sync;

/// Counts promises against the room of the file system and against the capacity.
pub struct Space {
    ask: Box<AskRoom>,
    keep_free: u64,
    capacity: u64,
    /// Bytes of the values that are here.
    used: Box<dyn Fn() -> u64 + Send + Sync>,
    promised: Mutex<Promised>,
}

#[derive(Clone, Copy, Default)]
struct Promised {
    /// Not yet taken on the file system.
    room: u64,
    /// Bytes of values that are on their way in, and so not among those that are here.
    capacity: u64,
}

/// A promise of room; dropping it gives it back. Of the capacity it is to be kept until the value is in the index.
pub struct Reservation {
    space: Arc<Space>,
    room: u64,
    capacity: u64,
}

impl Space {
    /// Of the file system of `dir`.
    pub fn new(dir: PathBuf, keep_free: u64) -> Self {
        Self::asking(Box::new(move || disk::room(&dir)), keep_free)
    }

    /// Of what `ask` says.
    pub fn asking(ask: Box<AskRoom>, keep_free: u64) -> Self {
        Self { ask, keep_free, capacity: u64::MAX, used: Box::new(|| 0), promised: Mutex::default() }
    }

    /// With this capacity for values, of which `used` says how much is taken.
    pub fn with_capacity(self, capacity: u64, used: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { capacity, used: Box::new(used), ..self }
    }

    /// Promises `need` bytes of the file system, for `value` bytes of a value.
    pub fn reserve(self: &Arc<Self>, need: u64, value: u64) -> Result<Reservation, StoreError> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let (room, capacity) = (self.room((self.ask)()?, *promised), self.below_capacity(*promised));
        if need > room {
            return Err(StoreError::NoSpace { need, free: room });
        }
        if value > capacity {
            return Err(StoreError::NoSpace { need: value, free: capacity });
        }
        promised.room += need;
        promised.capacity += value;
        Ok(Reservation { space: Arc::clone(self), room: need, capacity: value })
    }

    /// Size of the file system, or the capacity, and what new values may take, in bytes.
    pub fn total_and_free(&self) -> Result<(u64, u64), DiskError> {
        let room = (self.ask)()?;
        let promised = *self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((room.total.min(self.capacity), self.room(room, promised).min(self.below_capacity(promised))))
    }

    fn room(&self, room: Room, promised: Promised) -> u64 {
        room.available.saturating_sub(self.keep_free).saturating_sub(promised.room)
    }

    fn below_capacity(&self, promised: Promised) -> u64 {
        self.capacity.saturating_sub((self.used)()).saturating_sub(promised.capacity)
    }
}

impl Reservation {
    /// Adds another promise to this one.
    pub fn add(&mut self, mut other: Reservation) {
        self.room += std::mem::take(&mut other.room);
        self.capacity += std::mem::take(&mut other.capacity);
    }

    /// Gives the room back: it is taken on the file system now, and counted there.
    pub fn settle(&mut self) {
        self.give_back(self.room, 0);
    }

    fn give_back(&mut self, room: u64, capacity: u64) {
        let mut promised = self.space.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.room -= room;
        promised.capacity -= capacity;
        self.room -= room;
        self.capacity -= capacity;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.room, self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_not_promised_again_until_it_is_given_back() {
        let space = Arc::new(Space::asking(Box::new(|| Ok(Room { total: 1000, available: 500 })), 100));
        let first = space.reserve(300, 0).unwrap();
        let refused = space.reserve(101, 0).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { need: 101, free: 100 }), "{refused}");
        drop(first);
        let mut second = space.reserve(300, 0).unwrap();
        second.add(space.reserve(100, 0).unwrap());
        assert_eq!(space.total_and_free().unwrap(), (1000, 0));
        second.settle();
        assert_eq!(space.total_and_free().unwrap(), (1000, 400));
        assert!(Arc::new(Space::new(PathBuf::from("."), u64::MAX)).reserve(1, 0).is_err());
        assert!(Arc::new(Space::new(PathBuf::from("/nowhere/at/all"), 0)).reserve(1, 0).is_err());
    }

    #[test]
    fn the_capacity_counts_what_is_here_and_what_is_on_its_way_until_that_is_here() {
        let used = Arc::new(std::sync::atomic::AtomicU64::new(50));
        let now = Arc::clone(&used);
        let space = Space::asking(Box::new(|| Ok(Room { total: 1000, available: 500 })), 0);
        let space = Arc::new(space.with_capacity(200, move || now.load(std::sync::atomic::Ordering::Relaxed)));
        assert_eq!(space.total_and_free().unwrap(), (200, 150));
        let mut first = space.reserve(110, 100).unwrap();
        first.settle();
        assert_eq!(space.total_and_free().unwrap(), (200, 50));
        let refused = space.reserve(60, 51).err().unwrap();
        assert!(matches!(refused, StoreError::NoSpace { need: 51, free: 50 }), "{refused}");
        let second = space.reserve(60, 50).unwrap();
        drop((first, second));
        used.store(210, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(space.total_and_free().unwrap(), (200, 0));
        used.store(0, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(space.total_and_free().unwrap(), (200, 200));
    }
}
