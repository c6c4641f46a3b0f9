//! Which parts of values this process has read from the disk and found right.
//!
//! Such a part may be sent from the page cache without being read again, as long as it never left it: the reader asks
//! the kernel. What cannot be seen is that a page left and that another program brought it back; so a part is believed
//! for [`BELIEVED`] only, and not at all once its file was changed.

use kvdb_protocol::VersionId;
use kvdb_protocol::lab::{self, Bug};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a check is believed while the part stays in the page cache.
const BELIEVED: Duration = Duration::from_secs(600);
/// Subtrees of all values that are remembered: 1 TiB, in 512 KiB of memory.
const MAX_SUBTREES: u64 = 4 << 20;
/// What a value counts at least, for the memory that its entry takes.
const LEAST_SUBTREES: u64 = 1 << 10;

/// When a file was last changed: seconds and nanoseconds.
pub type Changed = (i64, i64);

/// What is known of the values that were read last.
#[derive(Default)]
pub struct CheckedValues(Mutex<Known>);

#[derive(Default)]
struct Known {
    values: HashMap<VersionId, Arc<CheckedParts>>,
    /// In order of their coming, with what each counts.
    order: VecDeque<(VersionId, u64)>,
    /// Sum of what all count.
    count: u64,
}

/// The subtrees of one value that were checked.
pub struct CheckedParts {
    changed: Changed,
    since: Instant,
    words: Box<[AtomicU64]>,
}

impl CheckedValues {
    /// What is known of a value whose file was last changed then; nothing, where it was changed since or it is too long ago.
    pub fn of(&self, version: VersionId, changed: Changed, subtrees: u64) -> Arc<CheckedParts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = known.values.get(&version).filter(|p| p.changed == changed && p.since.elapsed() < BELIEVED) {
            return Arc::clone(parts);
        }
        let words = (0..subtrees.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let parts = Arc::new(CheckedParts { changed, since: Instant::now(), words });
        if known.values.insert(version, Arc::clone(&parts)).is_none() {
            let count = subtrees.max(LEAST_SUBTREES);
            known.order.push_back((version, count));
            known.count += count;
        }
        while known.count > MAX_SUBTREES {
            let Some((oldest, count)) = known.order.pop_front() else { break };
            known.values.remove(&oldest);
            known.count -= count;
        }
        parts
    }
}

impl CheckedParts {
    /// Notes that a subtree was checked.
    pub fn add(&self, subtree: u64) {
        if let Some((word, bit)) = self.place(subtree) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether all these subtrees were checked.
    pub fn cover(&self, mut subtrees: Range<u64>) -> bool {
        lab::has(Bug::ResidentNotChecked)
            || subtrees.all(|s| self.place(s).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0))
    }

    fn place(&self, subtree: u64) -> Option<(&AtomicU64, u64)> {
        Some((self.words.get(usize::try_from(subtree / 64).ok()?)?, 1 << (subtree % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u64) -> VersionId {
        VersionId::from_parts(n, 0)
    }

    #[test]
    fn what_was_checked_is_known_until_the_file_changes() {
        let known = CheckedValues::default();
        let parts = known.of(version(1), (5, 0), 130);
        assert!(!parts.cover(0..1) && !parts.cover(129..130));
        for subtree in [0, 1, 2, 129, 1_000] {
            parts.add(subtree);
        }
        let again = known.of(version(1), (5, 0), 130);
        assert!(again.cover(0..3) && again.cover(129..130) && !again.cover(0..4) && !again.cover(129..131));
        assert!(!known.of(version(1), (5, 1), 130).cover(0..1), "the file was changed");
        assert!(!known.of(version(1), (5, 0), 130).cover(0..1), "and changed back");
    }

    #[test]
    fn the_values_that_came_first_are_forgotten_first() {
        let known = CheckedValues::default();
        known.of(version(0), (0, 0), 1).add(0);
        for n in 1..MAX_SUBTREES / LEAST_SUBTREES {
            known.of(version(n), (0, 0), 1);
        }
        assert!(known.of(version(0), (0, 0), 1).cover(0..1));
        known.of(version(1 << 40), (0, 0), 1);
        assert!(!known.of(version(0), (0, 0), 1).cover(0..1));
        let state = known.0.lock().unwrap();
        assert!(state.count <= MAX_SUBTREES && state.values.len() == state.order.len());
    }
}
