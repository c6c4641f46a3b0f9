//! What readers and the committer share, and the reads.

use super::clock::Clock;
use super::engine::Engine;
use super::error::CatalogError;
use super::expiry::Deciding;
use super::inflight::{InFlight, Seen};
use super::keyspace;
use super::quota::Quotas;
use super::record::{ReclaimEntry, Record, State, VolumeEntry, decode};
use super::snapshot::Snapshot;
use super::transaction;
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::{Key, VolumeId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Pairs read at a time when a whole range is wanted.
const SCAN_CHUNK: usize = 1024;

pub(super) struct Core {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) clock: Clock,
    pub(super) in_flight: InFlight,
    /// Held by the committer from before a batch is applied until it is durable. It is fair, so that
    /// neither side can starve the other.
    pub(super) gate: Arc<RwLock<()>>,
    /// A batch failed: no more are taken.
    pub(super) stopped: AtomicBool,
    pub(super) floor: u64,
    pub(super) deciding: Deciding,
    pub(super) snapshot: Snapshot,
    pub(super) quotas: Quotas,
    numbers: Mutex<Numbers>,
}

/// All durable.
#[derive(Clone, Debug, Default)]
struct Numbers {
    state: State,
    reclaim: BTreeMap<VolumeId, u64>,
    /// Transactions that are open.
    open_txns: usize,
}

impl Core {
    pub(super) fn new(engine: Arc<dyn Engine>, clock: Clock, floor: u64, state: State) -> Result<Self, CatalogError> {
        let (reclaim, open_txns) = (count_reclaim(engine.as_ref())?, transaction::count_open(engine.as_ref())?);
        Ok(Self {
            engine,
            clock,
            in_flight: InFlight::new(),
            gate: Arc::new(RwLock::new(())),
            stopped: AtomicBool::new(false),
            floor,
            deciding: Deciding::default(),
            snapshot: Snapshot::default(),
            quotas: Quotas::default(),
            numbers: Mutex::new(Numbers { state, reclaim, open_txns }),
        })
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.numbers().state
    }

    pub(super) fn reclaim_counts(&self) -> BTreeMap<VolumeId, u64> {
        self.numbers().reclaim.clone()
    }

    /// Transactions that are open; those that have expired count until they are swept.
    pub(super) fn open_txns(&self) -> usize {
        self.numbers().open_txns
    }

    /// A batch is durable.
    pub(super) fn count(&self, state: State, reclaim_change: &BTreeMap<VolumeId, i64>, open_txns: usize) {
        let mut numbers = self.numbers();
        numbers.state = state;
        numbers.open_txns = open_txns;
        for (volume, change) in reclaim_change {
            let count = numbers.reclaim.entry(*volume).or_default();
            *count = count.saturating_add_signed(*change);
        }
        numbers.reclaim.retain(|_, count| *count > 0);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// A key's record as far as it is durable, expired or not.
    pub(super) fn record(&self, key: &Key) -> Result<Option<Record>, CatalogError> {
        let at = keyspace::record(key);
        let shown = self.engine.get(&at)?;
        let durable = match self.in_flight.seen(&at) {
            Seen::Durable => shown,
            Seen::Before(before) => before,
            Seen::InDoubt => return Err(CatalogError::OutcomeUnknown),
        };
        durable.map(|b| decode(&b, format_args!("record of {key}"))).transpose()
    }

    /// While this is held, all that the engine shows is durable (except what is in doubt).
    pub(super) async fn durable_view(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.gate).read_owned().await
    }

    /// What a volume has still to remove. A durable view must be held. What is in doubt is left alone:
    /// after a failed batch nothing is given out for removal.
    pub(super) fn reclaim_list(&self, volume: VolumeId, limit: usize) -> Result<Vec<ReclaimItem>, CatalogError> {
        if self.is_stopped() {
            return Err(CatalogError::Stopped);
        }
        let mut items = Vec::new();
        for (key, value) in prefix_scan(self.engine.as_ref(), &keyspace::reclaim_of(volume), limit)? {
            let (_, version) =
                keyspace::parse_reclaim(&key).ok_or_else(|| CatalogError::corrupt("reclaim entry", "its key is malformed"))?;
            let entry: ReclaimEntry = decode(&value, "reclaim entry")?;
            items.push(ReclaimItem { key: entry.key, version, deleted: entry.deleted });
        }
        Ok(items)
    }

    /// Records after a key, in order. A durable view must be held.
    pub(super) fn records(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Record)>, CatalogError> {
        let from = after.map_or_else(|| Bound::Included(vec![keyspace::RECORD]), |k| Bound::Excluded(keyspace::record(k)));
        let end = keyspace::successor(&[keyspace::RECORD]);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let pairs = self.engine.scan(from.as_ref().map(Vec::as_slice), to, limit)?;
        let record = |(at, value): (Vec<u8>, Vec<u8>)| {
            let key = at.get(1..).and_then(|k| Key::new(k.to_vec()).ok());
            let key = key.ok_or_else(|| CatalogError::corrupt("record", "its key is malformed"))?;
            let record = decode(&value, format_args!("record of {key}"))?;
            Ok((key, record))
        };
        pairs.into_iter().map(record).collect()
    }

    /// Volumes and their last known addresses. A durable view must be held.
    pub(super) fn volumes(&self) -> Result<Vec<(VolumeId, String)>, CatalogError> {
        let mut volumes = Vec::new();
        for (key, value) in prefix_scan(self.engine.as_ref(), &[keyspace::VOLUME], usize::MAX)? {
            let id = keyspace::parse_volume(&key).ok_or_else(|| CatalogError::corrupt("volume entry", "its key is malformed"))?;
            volumes.push((id, decode::<VolumeEntry>(&value, "volume entry")?.address));
        }
        Ok(volumes)
    }
}

pub(super) fn prefix_scan(engine: &dyn Engine, prefix: &[u8], limit: usize) -> Result<Vec<super::engine::Pair>, CatalogError> {
    let end = keyspace::successor(prefix);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    Ok(engine.scan(Bound::Included(prefix), to, limit)?)
}

fn count_reclaim(engine: &dyn Engine) -> Result<BTreeMap<VolumeId, u64>, CatalogError> {
    let mut counts = BTreeMap::new();
    let end = keyspace::successor(&[keyspace::RECLAIM]);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut from = Bound::Included(vec![keyspace::RECLAIM]);
    loop {
        let pairs = engine.scan(from.as_ref().map(Vec::as_slice), to, SCAN_CHUNK)?;
        let Some((last, _)) = pairs.last() else { return Ok(counts) };
        from = Bound::Excluded(last.clone());
        for (volume, _) in pairs.iter().filter_map(|(k, _)| keyspace::parse_reclaim(k)) {
            *counts.entry(volume).or_default() += 1;
        }
    }
}
