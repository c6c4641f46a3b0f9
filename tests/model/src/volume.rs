//! A volume's store, index and fetch log: `store/mod.rs`, `index/committer.rs`, `fetch_log.rs`.

use crate::state::{Copy, Fetched, Task, VolumeState, WRITES};

impl VolumeState {
    /// A volume that holds nothing.
    pub fn empty() -> Self {
        Self { copies: [Copy::Absent; WRITES], tasks: [Task::None; WRITES], used: 0, fetched: [None; WRITES], settling: false, bad: 0 }
    }

    /// `Index::put`: a durable copy, prepared. False where the version was deleted.
    pub fn put(&mut self, version: usize, commit_by: u8, chain: u8) -> bool {
        let copy = &mut self.copies[version];
        if matches!(copy, Copy::Absent | Copy::Unlinked { .. }) {
            *copy = Copy::Value { commit_by, chain, seq: None, synced: true };
            self.bad &= !(1 << version);
        }
        copy.is_value()
    }

    /// `Store::mark_committed`: not durable yet.
    pub fn mark_committed(&mut self, version: usize, sequence: u8) {
        if let Copy::Value { seq, synced, .. } = &mut self.copies[version]
            && *seq != Some(sequence)
        {
            *seq = Some(sequence);
            *synced = false;
        }
    }

    /// `Store::remove`: durable, except that the file may come back.
    pub fn remove(&mut self, version: usize, deleted: Option<u8>) {
        let copy = &mut self.copies[version];
        *copy = match (*copy, deleted) {
            (tombstone @ Copy::Tombstone { .. }, _) => tombstone,
            (_, Some(seq)) => Copy::Tombstone { seq },
            (Copy::Value { commit_by, chain, .. }, None) => Copy::Unlinked { commit_by, chain },
            (other, None) => other,
        };
        // The removal's sync covers the marks from before it.
        self.sync();
    }

    /// What was written to the index so far is durable.
    pub fn sync(&mut self) {
        for copy in &mut self.copies {
            if let Copy::Value { synced, .. } = copy {
                *synced = true;
            }
        }
    }

    /// `Store::quarantine`.
    pub fn put_aside(&mut self, version: usize) {
        self.copies[version] = Copy::Absent;
        self.bad |= 1 << version;
    }

    /// The process is killed and started again: memory goes.
    pub fn kill(&mut self) {
        self.tasks = [Task::None; WRITES];
        self.used = 0;
        self.fetched = [None; WRITES];
        self.settling = false;
    }

    /// The power is cut: what was not synced goes too, and what was unlinked comes back, as prepared.
    pub fn cut_power(&mut self) {
        self.kill();
        for copy in &mut self.copies {
            *copy = match *copy {
                Copy::Value { commit_by, chain, synced: false, .. } => Copy::Value { commit_by, chain, seq: None, synced: true },
                Copy::Unlinked { commit_by, chain } => Copy::Value { commit_by, chain, seq: None, synced: true },
                other => other,
            };
        }
    }

    /// Time passes: deferred syncs and unlinks are on the disk.
    pub fn rest(&mut self) {
        self.sync();
        for copy in &mut self.copies {
            if matches!(copy, Copy::Unlinked { .. }) {
                *copy = Copy::Absent;
            }
        }
    }

    /// `FetchLog::note`: false where a later order was seen.
    pub fn note(&mut self, version: usize, sent: u8, commit_by: u8) -> bool {
        if self.fetched[version].is_some_and(|f| f.sent > sent) {
            return false;
        }
        self.fetched[version] = Some(Fetched { sent, commit_by });
        true
    }

    /// `FetchLog::outdates`.
    pub fn outdates(&self, version: usize, removal_sent: u8) -> bool {
        self.fetched[version].is_some_and(|f| f.sent >= removal_sent)
    }

    /// `FetchLog::is_open`.
    pub fn is_open(&self, version: usize, now: u8) -> bool {
        self.fetched[version].is_some_and(|f| f.commit_by >= now)
    }

    /// The stamp of the last order, for a question that is about to be asked.
    pub fn last_fetch(&self, version: usize) -> u8 {
        self.fetched[version].map_or(0, |f| f.sent)
    }
}
