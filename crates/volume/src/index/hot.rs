//! Small values that were written or read lately, in memory: a read of one needs no thread that may block.

use bytes::Bytes;
use kvdb_protocol::message::ValueEntry;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for them, in bytes.
const HOT_BYTES: u64 = 4 << 20;
/// What each takes besides its bytes, about.
const EACH_BYTES: u64 = 512;

/// A small value, as the index has it; but whether it is committed may have changed since.
#[derive(Clone)]
pub struct Small {
    /// What is known of it.
    pub entry: ValueEntry,
    /// Its bytes.
    pub bytes: Bytes,
}

/// By index key, which names a version: what is there is right as long as it is there.
pub struct Hot {
    values: Cache<Vec<u8>, Small, Weigh>,
    /// How many batches have removed something.
    removals: AtomicU64,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Vec<u8>, Small> for Weigh {
    fn weight(&self, key: &Vec<u8>, value: &Small) -> u64 {
        (key.len() + value.bytes.len()) as u64 + EACH_BYTES
    }
}

impl Default for Hot {
    fn default() -> Self {
        let items = usize::try_from(HOT_BYTES / (2 * EACH_BYTES)).unwrap_or(usize::MAX);
        Self { values: Cache::with_weighter(items, HOT_BYTES, Weigh), removals: AtomicU64::new(0) }
    }
}

impl Hot {
    pub fn get(&self, key: &[u8]) -> Option<Small> {
        self.values.get(key)
    }

    /// To be called before the index is read for what may be [kept](Self::keep).
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// Keeps what the index was found to have after [`Self::removals`] gave this number, unless something was removed since.
    pub fn keep(&self, key: Vec<u8>, value: Small, removals: u64) {
        self.values.insert(key.clone(), value);
        if self.removals() != removals {
            self.values.remove(&key);
        }
    }

    /// These are in the index no more.
    pub fn forget<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut keys = keys.peekable();
        if keys.peek().is_some() {
            // In this order: whoever read the index before and keeps a value after its removal here sees the number changed.
            self.removals.fetch_add(1, Ordering::SeqCst);
            keys.for_each(|key| drop(self.values.remove(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId};

    fn small(n: u64, bytes: usize) -> (Vec<u8>, Small) {
        let (key, version) = (Key::new(b"k".to_vec()).unwrap(), VersionId::from_parts(n, 0));
        let at = crate::format::record::entry_key(&key, version);
        let bytes = Bytes::from(vec![7; bytes]);
        let entry = ValueEntry {
            key,
            version,
            len: bytes.len() as u64,
            hash: ContentHash::of(&bytes),
            content_type: None,
            modified: UnixMillis(0),
            expires: None,
            replicas: Vec::new(),
            seq: None,
        };
        (at, Small { entry, bytes })
    }

    #[test]
    fn what_was_removed_is_not_found_even_if_it_was_read_before_and_is_kept_after() {
        let hot = Hot::default();
        let (at, value) = small(1, 16);
        hot.keep(at.clone(), value.clone(), hot.removals());
        assert_eq!(hot.get(&at).map(|s| s.bytes), Some(value.bytes.clone()));
        let before = hot.removals();
        hot.forget([at.as_slice()].into_iter());
        assert!(hot.get(&at).is_none());
        hot.keep(at.clone(), value, before);
        assert!(hot.get(&at).is_none(), "it was read before the removal");
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let hot = Hot::default();
        for n in 0..200 {
            let (at, value) = small(n, 64 << 10);
            hot.keep(at, value, 0);
        }
        assert!(hot.values.weight() <= HOT_BYTES && hot.values.len() > 10, "{} in {}", hot.values.weight(), hot.values.len());
    }
}
