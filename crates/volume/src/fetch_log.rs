//! Which versions were fetched from other volumes lately, so that a removal that was decided earlier and
//! arrives late does not take the new copy.
//!
//! A volume may lose its copy of a version to another, and get one again later. Removals that were sent, or
//! answers that were asked for, before the second copy was ordered must not touch it. A late message can only
//! come out of this process's own sockets and tasks, so memory is enough.

use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::{UnixMillis, VersionId};
use std::collections::HashMap;

/// Versions remembered; the oldest are forgotten first.
const MAX_REMEMBERED: usize = 16_384;

#[derive(Clone, Copy)]
struct Fetched {
    sent: UnixMillis,
    commit_by: UnixMillis,
}

/// The last fetch of each version.
#[derive(Default)]
pub(crate) struct FetchLog(HashMap<VersionId, Fetched>);

impl FetchLog {
    /// A fetch begins. False where a later one was seen: this one is a straggler.
    pub fn note(&mut self, version: VersionId, sent: UnixMillis, commit_by: UnixMillis) -> bool {
        if self.0.get(&version).is_some_and(|f| f.sent > sent) {
            return false;
        }
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&version) {
            self.forget_older_half();
        }
        self.0.insert(version, Fetched { sent, commit_by });
        true
    }

    /// Whether a removal sent at this time was decided before the copy was ordered.
    pub fn outdates(&self, version: VersionId, removal_sent: UnixMillis) -> bool {
        self.0.get(&version).is_some_and(|f| f.sent >= removal_sent) && !lab::has(Bug::LateRemovalObeyed)
    }

    /// When the last fetch of a version was ordered: an answer asked for before another one says nothing of what is here.
    pub fn last_ordered(&self, version: VersionId) -> Option<UnixMillis> {
        self.0.get(&version).map(|f| f.sent)
    }

    /// Whether the copy may become a replica still, so that nobody need ask what became of it.
    pub fn is_open(&self, version: VersionId, now: UnixMillis) -> bool {
        self.0.get(&version).is_some_and(|f| f.commit_by >= now)
    }

    fn forget_older_half(&mut self) {
        let mut times: Vec<UnixMillis> = self.0.values().map(|f| f.sent).collect();
        times.sort_unstable();
        let Some(median) = times.get(times.len() / 2).copied() else { return };
        self.0.retain(|_, f| f.sent > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(n: u64) -> VersionId {
        VersionId::from_parts(n, 0)
    }

    #[test]
    fn a_removal_sent_before_the_fetch_is_outdated_and_one_sent_after_it_is_not() {
        let mut log = FetchLog::default();
        assert!(!log.outdates(version(1), UnixMillis(5)));
        assert!(log.note(version(1), UnixMillis(10), UnixMillis(100)));
        assert!(log.outdates(version(1), UnixMillis(9)) && log.outdates(version(1), UnixMillis(10)));
        assert!(!log.outdates(version(1), UnixMillis(11)) && !log.outdates(version(2), UnixMillis(9)));
        assert!(log.is_open(version(1), UnixMillis(100)) && !log.is_open(version(1), UnixMillis(101)));
    }

    #[test]
    fn an_answer_asked_for_before_a_fetch_is_known_as_such_however_late_it_comes() {
        let mut log = FetchLog::default();
        let never = log.last_ordered(version(1));
        assert!(log.note(version(1), UnixMillis(10), UnixMillis(100)));
        let first = log.last_ordered(version(1));
        assert!(never.is_none() && first == Some(UnixMillis(10)));
        assert!(log.note(version(1), UnixMillis(120), UnixMillis(200)));
        assert_ne!(log.last_ordered(version(1)), first);
    }

    #[test]
    fn an_older_order_that_comes_late_is_refused() {
        let mut log = FetchLog::default();
        assert!(log.note(version(1), UnixMillis(10), UnixMillis(100)));
        assert!(!log.note(version(1), UnixMillis(9), UnixMillis(99)));
        assert!(log.note(version(1), UnixMillis(10), UnixMillis(100)), "the same order again");
    }

    #[test]
    fn the_log_is_bounded_and_forgets_the_oldest() {
        let mut log = FetchLog::default();
        for n in 0..(MAX_REMEMBERED as u64 + 10) {
            assert!(log.note(version(n), UnixMillis(n), UnixMillis(n)));
        }
        assert!(log.0.len() <= MAX_REMEMBERED);
        assert!(!log.outdates(version(0), UnixMillis(0)) && log.outdates(version(MAX_REMEMBERED as u64), UnixMillis(5)));
    }
}
