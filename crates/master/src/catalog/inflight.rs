//! What readers of records must know of the batch that is being made durable.
//!
//! The engine may show a batch before it is durable. A reader therefore reads the engine first and then
//! asks here: for a key of the batch it gets the value from before. That is linearizable: the batch has
//! not been answered to anybody yet, and nobody has read it. The order matters: a batch is announced
//! before the engine sees it, and withdrawn when it is durable but before anyone is answered.

use kvdb_protocol::lab::{self, Bug};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SLOTS: usize = 4096;

/// Values from before the batch, by engine key.
pub(super) type Before = HashMap<Vec<u8>, Option<Vec<u8>>>;

pub(super) struct InFlight {
    /// Set where a key of the batch hashes to: one load tells most readers that they are not concerned.
    slots: Box<[AtomicBool]>,
    hasher: RandomState,
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Batch {
    before: Before,
    /// The batch failed, so that nobody knows which value will be there after a restart.
    in_doubt: bool,
}

/// What a reader of a key does with what the engine showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is durable.
    Durable,
    /// It may not be; this is the value before.
    Before(Option<Vec<u8>>),
    /// Its batch failed.
    InDoubt,
}

impl InFlight {
    pub(super) fn new() -> Self {
        let slots = std::iter::repeat_with(|| AtomicBool::new(false)).take(SLOTS).collect();
        Self { slots, hasher: RandomState::new(), batch: Mutex::new(Batch::default()) }
    }

    fn slot(&self, key: &[u8]) -> Option<&AtomicBool> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SLOTS as u64).unwrap_or(0);
        self.slots.get(hash)
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a batch; none may be announced.
    pub(super) fn begin(&self, before: Before) {
        let mut batch = self.batch();
        debug_assert!(batch.before.is_empty() && !batch.in_doubt);
        for slot in before.keys().filter_map(|k| self.slot(k)) {
            slot.store(true, Ordering::SeqCst);
        }
        batch.before = before;
    }

    /// The batch is durable.
    pub(super) fn durable(&self) {
        self.withdraw();
    }

    /// The batch was certainly not applied.
    pub(super) fn unchanged(&self) {
        self.withdraw();
    }

    fn withdraw(&self) {
        let mut batch = self.batch();
        for slot in batch.before.keys().filter_map(|k| self.slot(k)) {
            slot.store(false, Ordering::SeqCst);
        }
        batch.before.clear();
    }

    /// The batch's outcome is unknown, and stays so.
    pub(super) fn failed(&self) {
        self.batch().in_doubt = true;
    }

    /// Whether some key that begins with `prefix` is in doubt.
    pub(super) fn doubtful(&self, prefix: &[u8]) -> bool {
        let batch = self.batch();
        batch.in_doubt && batch.before.keys().any(|k| k.starts_with(prefix))
    }

    /// To be asked after the engine was read.
    pub(super) fn seen(&self, key: &[u8]) -> Seen {
        if lab::has(Bug::UndurableRead) || !self.slot(key).is_some_and(|s| s.load(Ordering::SeqCst)) {
            return Seen::Durable;
        }
        let batch = self.batch();
        match batch.before.get(key) {
            None => Seen::Durable,
            Some(_) if batch.in_doubt => Seen::InDoubt,
            Some(before) => Seen::Before(before.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_batch_shows_its_value_from_before_until_the_batch_is_durable() {
        let f = InFlight::new();
        f.begin(Before::from([(b"a".to_vec(), None), (b"b".to_vec(), Some(b"1".to_vec()))]));
        assert_eq!(f.seen(b"a"), Seen::Before(None));
        assert_eq!(f.seen(b"b"), Seen::Before(Some(b"1".to_vec())));
        assert!((0..20_000u32).all(|i| f.seen(&i.to_be_bytes()) == Seen::Durable));
        f.durable();
        assert_eq!(f.seen(b"a"), Seen::Durable);
        assert_eq!(f.seen(b"b"), Seen::Durable);
    }

    #[test]
    fn a_failed_batch_leaves_its_keys_in_doubt_and_no_others() {
        let f = InFlight::new();
        f.begin(Before::from([(b"ra".to_vec(), None)]));
        assert!(!f.doubtful(b"r"));
        f.failed();
        assert_eq!(f.seen(b"ra"), Seen::InDoubt);
        assert_eq!(f.seen(b"rb"), Seen::Durable);
        assert!(f.doubtful(b"r") && !f.doubtful(b"rb"));
    }
}
