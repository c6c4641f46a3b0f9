//! The catalog as the operations of one batch see it: the engine, and over it what earlier operations of
//! the batch have written.

use super::engine::{Batch, Engine};
use super::error::CatalogError;
use super::inflight::Before;
use super::keyspace;
use super::quota::Draft;
use super::record::{Decision, ReclaimEntry, Record, State, decode, encode};
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Decisions are kept for one to two of these after they were made.
///
/// They answer a commit that is asked for again after its version was replaced or refused. Such repeats
/// come from a caller that had no answer within its patience (seconds), or from a connection that was
/// left in a queue (bounded by idle timeouts, half a minute); this is far beyond both.
pub(super) const DECISION_EPOCH: Duration = Duration::from_secs(300);

pub(super) fn epoch(now: UnixMillis) -> u64 {
    now.0 / u64::try_from(DECISION_EPOCH.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone)]
struct Written {
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(super) struct View<'a> {
    engine: &'a dyn Engine,
    writes: HashMap<Vec<u8>, Written>,
    bytes: usize,
    state_before: State,
    /// Written with the batch if it changed.
    pub(super) state: State,
    /// Change in the number of reclaim entries, by volume.
    pub(super) reclaim_change: BTreeMap<VolumeId, i64>,
    pub(super) draft: Draft,
    /// Transactions that are open.
    pub(super) open_txns: usize,
}

impl<'a> View<'a> {
    pub(super) fn new(engine: &'a dyn Engine, state: State, draft: Draft, open_txns: usize) -> Self {
        Self { engine, writes: HashMap::new(), bytes: 0, state_before: state, state, reclaim_change: BTreeMap::new(), draft, open_txns }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CatalogError> {
        match self.writes.get(key) {
            Some(w) => Ok(w.after.clone()),
            None => Ok(self.engine.get(key)?),
        }
    }

    /// Writes or deletes a key, whose value so far is `before`.
    fn set(&mut self, key: Vec<u8>, before: Option<Vec<u8>>, after: Option<Vec<u8>>) {
        self.bytes += key.len() + after.as_ref().map_or(0, Vec::len);
        self.writes.entry(key).or_insert(Written { before, after: None }).after = after;
    }

    /// Bytes of keys and values written so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes without regard to what was there; for entries that no reader asks the batch in flight about.
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.set(key, None, Some(value));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.set(key, None, None);
    }

    pub(super) fn record(&self, key: &Key) -> Result<Option<Record>, CatalogError> {
        self.get(&keyspace::record(key))?.map(|b| decode(&b, format_args!("record of {key}"))).transpose()
    }

    pub(super) fn set_record(&mut self, key: &Key, before: Option<&Record>, after: Option<&Record>) -> Result<(), CatalogError> {
        let what = format!("record of {key}");
        let coded = |r: Option<&Record>| r.map(|r| encode(r, &what)).transpose();
        let (old, new) = (coded(before)?, coded(after)?);
        self.set(keyspace::record(key), old, new);
        let expires = |r: Option<&Record>| r.and_then(|r| r.expires);
        if expires(before) != expires(after) {
            expires(before).into_iter().for_each(|at| self.delete(keyspace::expiry(at, key)));
            expires(after).into_iter().for_each(|at| self.put(keyspace::expiry(at, key), Vec::new()));
        }
        self.draft.note(key, before.map(|r| r.len), after.map(|r| r.len));
        let size = |r: Option<&Record>| r.map_or((0, 0), |r| (1, r.len));
        let ((gone, gone_bytes), (come, come_bytes)) = (size(before), size(after));
        self.state.keys = (self.state.keys + come).saturating_sub(gone);
        self.state.bytes = self.state.bytes.saturating_add(come_bytes).saturating_sub(gone_bytes);
        Ok(())
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.state.seq += 1;
        self.state.seq
    }

    pub(super) fn reclaim(&self, volume: VolumeId, version: VersionId) -> Result<Option<ReclaimEntry>, CatalogError> {
        self.get(&keyspace::reclaim(volume, version))?.map(|b| decode(&b, "reclaim entry")).transpose()
    }

    pub(super) fn add_reclaim(&mut self, volume: VolumeId, version: VersionId, entry: &ReclaimEntry) -> Result<(), CatalogError> {
        let key = keyspace::reclaim(volume, version);
        if self.get(&key)?.is_none() {
            *self.reclaim_change.entry(volume).or_default() += 1;
        }
        self.put(key, encode(entry, "reclaim entry")?);
        Ok(())
    }

    pub(super) fn drop_reclaim(&mut self, volume: VolumeId, version: VersionId) -> Result<(), CatalogError> {
        let key = keyspace::reclaim(volume, version);
        if self.get(&key)?.is_some() {
            *self.reclaim_change.entry(volume).or_default() -= 1;
            self.delete(key);
        }
        Ok(())
    }

    /// The decision at one of `key(epoch)` for the present and the last epoch, and for that of the deadline, where those stand
    /// that must be kept until then.
    pub(super) fn decision(
        &self,
        now: UnixMillis,
        deadline: UnixMillis,
        key: impl Fn(u64) -> Vec<u8>,
    ) -> Result<Option<Decision>, CatalogError> {
        let later = Some(epoch(deadline)).filter(|e| *e > epoch(now));
        for e in [Some(epoch(now)), epoch(now).checked_sub(1), later].into_iter().flatten() {
            if let Some(bytes) = self.get(&key(e))? {
                return decode(&bytes, "decision").map(Some);
            }
        }
        Ok(None)
    }

    pub(super) fn decide(&mut self, key: Vec<u8>, decision: &Decision) -> Result<(), CatalogError> {
        self.put(key, encode(decision, "decision")?);
        Ok(())
    }

    /// The engine's batch, and the records' values from before it.
    pub(super) fn finish(self) -> Result<(Batch, Before, State, BTreeMap<VolumeId, i64>), CatalogError> {
        let (mut batch, mut before) = (Batch::default(), Before::new());
        for (key, written) in self.writes {
            match &written.after {
                Some(value) => batch.put(key.as_slice(), value.as_slice()),
                None => batch.delete(key.as_slice()),
            }
            if key.first() == Some(&keyspace::RECORD) {
                before.insert(key, written.before);
            }
        }
        if self.state != self.state_before {
            batch.expect(keyspace::META_STATE, Some(encode(&self.state_before, "state")?));
            batch.put(keyspace::META_STATE, encode(&self.state, "state")?);
        }
        Ok((batch, before, self.state, self.reclaim_change))
    }
}
