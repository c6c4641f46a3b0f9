//! Tickets whose commit was asked for, remembered until they can no longer be started.
//!
//! A version that was committed, and since replaced or deleted, has left no trace in the store. The master would
//! still confirm its commit, as it does for a caller that lost the first answer; so the ticket must not be taken again.

use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::{UnixMillis, VersionId};
use std::collections::HashMap;

/// Entries from which on it pays to look for expired ones.
const SWEEP_FROM: usize = 1024;

/// Versions of used tickets. Their number is bounded by the uploads in the time that a ticket lives.
#[derive(Default)]
pub(crate) struct UsedTickets {
    start_by: HashMap<VersionId, UnixMillis>,
    sweep_at: usize,
}

impl UsedTickets {
    /// Remembers a version until `start_by`.
    pub fn note(&mut self, version: VersionId, start_by: UnixMillis, now: UnixMillis) {
        if self.start_by.len() >= self.sweep_at.max(SWEEP_FROM) {
            self.start_by.retain(|_, until| *until >= now);
            self.sweep_at = self.start_by.len() * 2;
        }
        self.start_by.insert(version, start_by);
    }

    pub fn contains(&self, version: VersionId) -> bool {
        self.start_by.contains_key(&version) && !lab::has(Bug::UsedTicketAccepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_remembered_while_it_lives_and_expired_ones_take_no_room() {
        let mut used = UsedTickets::default();
        for i in 0..100_000_u64 {
            used.note(VersionId::from_parts(i, 1), UnixMillis(i + 60), UnixMillis(i));
            assert!(used.contains(VersionId::from_parts(i.saturating_sub(59), 1)), "{i}");
            assert!(used.start_by.len() <= SWEEP_FROM);
        }
        assert!(!used.contains(VersionId::from_parts(1, 1)));
    }
}
