//! Which parts of values this process has read from the disk and found right, and when.
//!
//! Such a part may be sent from the page cache without being read again, as long as it never left it: the reader asks
//! the kernel. What cannot be seen is that a page left and that another program brought it back; so a part is believed
//! for [`BELIEVED_SECONDS`] only, however long an answer takes, and not at all once its file was changed.
//!
//! Nor is a part believed while this process reads it anew, or if it is gone when the kernel may be about to read it ahead. A
//! reader that asks the kernel first and believes then never takes a part that came back meanwhile for the one that was checked.

use kvdb_protocol::VersionId;
use kvdb_protocol::lab::{self, Bug};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

/// How long a check is believed while the part stays in the page cache.
const BELIEVED_SECONDS: u32 = 600;
/// Subtrees of all values that are remembered: 256 GiB, in 4 MiB of memory.
const MAX_SUBTREES: u64 = 1 << 20;
/// What a value counts at least, for the memory that its entry takes: so at most 16,384 values are remembered.
const LEAST_SUBTREES: u64 = 64;

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
    /// When each was checked, as [`seconds`] tells; 0: never, or it was read anew.
    at: Box<[AtomicU32]>,
}

impl CheckedValues {
    /// What is known of a value whose file was last changed then; nothing, where it was changed since.
    pub fn of(&self, version: VersionId, changed: Changed, subtrees: u64) -> Arc<CheckedParts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parts) = known.values.get(&version).filter(|p| p.changed == changed) {
            return Arc::clone(parts);
        }
        let at = (0..subtrees).map(|_| AtomicU32::new(0)).collect();
        let parts = Arc::new(CheckedParts { changed, at });
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
    /// To be called before subtrees are read: what that may bring into the page cache is not known until it is checked.
    pub fn forget(&self, subtrees: Range<u64>) {
        subtrees.filter_map(|s| self.place(s)).for_each(|at| at.store(0, Ordering::Relaxed));
        fence(Ordering::SeqCst);
    }

    /// The same for what the kernel may read ahead: those from `first` on that are not in the page cache, of which it is asked.
    pub fn forget_absent(&self, first: u64, is_here: impl Fn(Range<u64>) -> bool) {
        let (mut at, end) = (first, self.at.len() as u64);
        while at < end {
            let known = (at..end).find(|s| !self.were_checked(*s..s + 1)).unwrap_or(end);
            self.forget_absent_of(at..known, &is_here);
            at = known + 1;
        }
    }

    /// Halves what is not all there until it knows what is missing.
    fn forget_absent_of(&self, subtrees: Range<u64>, is_here: &impl Fn(Range<u64>) -> bool) {
        let Range { start, end } = subtrees;
        if start >= end || is_here(start..end) {
            return;
        }
        if end - start == 1 {
            return self.forget(start..end);
        }
        let middle = start.midpoint(end);
        self.forget_absent_of(start..middle, is_here);
        self.forget_absent_of(middle..end, is_here);
    }

    /// Notes that a subtree was checked.
    pub fn add(&self, subtree: u64) {
        self.add_at(subtree, seconds());
    }

    /// Whether all these subtrees were checked lately. To be asked after the kernel was.
    pub fn cover(&self, subtrees: Range<u64>) -> bool {
        fence(Ordering::SeqCst);
        lab::has(Bug::ResidentNotChecked) || self.cover_at(subtrees, seconds())
    }

    fn add_at(&self, subtree: u64, now: u32) {
        if let Some(at) = self.place(subtree) {
            at.store(now, Ordering::Relaxed);
        }
    }

    fn cover_at(&self, mut subtrees: Range<u64>, now: u32) -> bool {
        let lately = |at: &AtomicU32| match at.load(Ordering::Relaxed) {
            0 => false,
            at => now.saturating_sub(at) < BELIEVED_SECONDS,
        };
        subtrees.all(|s| self.place(s).is_some_and(lately))
    }

    /// However long ago.
    fn were_checked(&self, mut subtrees: Range<u64>) -> bool {
        subtrees.all(|s| self.place(s).is_some_and(|at| at.load(Ordering::Relaxed) != 0))
    }

    fn place(&self, subtree: u64) -> Option<&AtomicU32> {
        self.at.get(usize::try_from(subtree).ok()?)
    }
}

/// Seconds since this process first asked, and one more, so that none is 0.
fn seconds() -> u32 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u32::try_from(START.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1)
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
    fn a_check_is_believed_for_ten_minutes_even_by_a_reader_that_takes_longer() {
        let parts = CheckedValues::default().of(version(1), (0, 0), 2);
        parts.add_at(0, 100);
        parts.add_at(1, 400);
        assert!(parts.cover_at(0..2, 699));
        assert!(!parts.cover_at(0..2, 700) && parts.cover_at(1..2, 999) && !parts.cover_at(1..2, 1_000));
        parts.add_at(0, 700);
        assert!(parts.cover_at(0..2, 700));
    }

    #[test]
    fn what_is_read_anew_is_not_known_nor_is_what_is_gone_and_may_be_read_ahead() {
        let parts = CheckedParts { changed: (0, 0), at: (0..8).map(|_| AtomicU32::new(1)).collect() };
        let known = || (0..8).map(|s| u8::from(parts.cover(s..s + 1))).collect::<Vec<_>>();
        parts.forget(2..3);
        assert_eq!(known(), [1, 1, 0, 1, 1, 1, 1, 1]);
        let gone = [0, 4, 7];
        parts.forget_absent(3, |subtrees| !gone.iter().any(|s| subtrees.contains(s)));
        assert_eq!(known(), [1, 1, 0, 1, 0, 1, 1, 0]);
        parts.forget_absent(8, |_| false);
        parts.forget_absent(0, |_| true);
        assert_eq!(known(), [1, 1, 0, 1, 0, 1, 1, 0]);
        parts.forget_absent(1, |_| false);
        assert_eq!(known(), [1, 0, 0, 0, 0, 0, 0, 0]);
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
