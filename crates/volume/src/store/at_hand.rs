//! Files of values that were read lately, held open: whoever reads one again needs no look-up in the index, no opening,
//! and so no thread where it may block.

use super::{Store, StoreError, Stored};
use kvdb_protocol::{Key, VersionId};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use rustix::process::{Resource, getrlimit};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What all values count together, in subtrees: their chaining values take 2 MiB of memory at most.
const MAX_WEIGHT: u64 = 1 << 16;
/// Files that are held open, at most; fewer where a quarter of the descriptors that this process may have is less.
pub(super) const MAX_FILES: u64 = 512;

pub(super) struct Subtrees {
    /// What a value counts at least: so only so many files are held open.
    least: u64,
}

impl Weighter<VersionId, Arc<Stored>> for Subtrees {
    fn weight(&self, _: &VersionId, value: &Arc<Stored>) -> u64 {
        value.subtree_count().max(self.least)
    }
}

/// The values whose files are held open.
pub(super) struct AtHand(Mutex<Held>);

pub(super) struct Held {
    pub(super) values: Cache<VersionId, Arc<Stored>, Subtrees>,
    /// Number of removals so far.
    removals: u64,
}

impl AtHand {
    pub fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.map_or(MAX_FILES, |n| (n / 4).clamp(1, MAX_FILES));
        let most = usize::try_from(files).unwrap_or(usize::MAX);
        let weigh = Subtrees { least: MAX_WEIGHT / files };
        Self(Mutex::new(Held { values: Cache::with_weighter(most, MAX_WEIGHT, weigh), removals: 0 }))
    }

    /// The value, if its file is held open and is what it was.
    pub fn get(&self, key: &Key, version: VersionId) -> Option<Arc<Stored>> {
        let stored = self.lock().values.get(&version).filter(|s| s.entry.key == *key).cloned()?;
        if stored.is_unchanged() {
            return Some(stored);
        }
        self.lock().values.remove(&version);
        None
    }

    /// To be asked before the index is: [`AtHand::put`] then sees whether something was removed in the meantime.
    pub fn removals(&self) -> u64 {
        self.lock().removals
    }

    /// Holds a value's file open, unless a removal came after `removals` was asked, which may have been its own: a file that
    /// is held would keep its space, and be served.
    pub fn put(&self, stored: &Arc<Stored>, removals: u64) {
        let mut held = self.lock();
        if held.removals == removals && stored.content_file().is_some() {
            held.values.insert(stored.entry.version, Arc::clone(stored));
        }
    }

    /// Lets go of a value that the index does not name any more.
    pub fn remove(&self, version: VersionId) {
        let mut held = self.lock();
        held.removals += 1;
        held.values.remove(&version);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Opens a value for reading, as [`Store::get`], and keeps it for those who read it next: a small one in memory, the file of another open.
    ///
    /// # Errors
    /// As of [`Store::get`].
    pub fn open_value(&self, key: &Key, version: VersionId) -> Result<Option<Arc<Stored>>, StoreError> {
        let removals = self.inner.at_hand.removals();
        let stored = self.get_for_reader(key, version)?.map(Arc::new);
        if let Some(stored) = &stored {
            self.inner.at_hand.put(stored, removals);
        }
        Ok(stored)
    }

    /// A value whose file is held open. It does not wait for the disk.
    pub fn at_hand(&self, key: &Key, version: VersionId) -> Option<Arc<Stored>> {
        self.inner.at_hand.get(key, version)
    }
}
