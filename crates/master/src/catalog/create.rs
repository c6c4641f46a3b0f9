//! The first entries of a new database, the entries read at opening, and a database made by a rebuild.

use super::CatalogOptions;
use super::clock::Clock;
use super::directory::Directory;
use super::engine::{ApplyError, Batch, Engine, EngineError};
use super::error::CatalogError;
use super::keyspace::{self, CATALOG_FORMAT};
use super::record::{ReclaimEntry, Record, State, VolumeEntry, decode, encode};
use super::sled_engine::SledEngine;
use crate::rebuild::{MergeError, MergedKey, Merger, Summary};
use kvdb_protocol::{ClusterId, ClusterSecret, Key, VolumeId};
use std::ops::Bound;
use thiserror::Error;

/// What is read once at opening.
pub(super) struct Meta {
    pub(super) cluster: ClusterId,
    pub(super) state: State,
    pub(super) lease: u64,
    pub(super) floor: u64,
    pub(super) expiry: u64,
}

/// Makes the database of a new cluster.
pub(super) fn empty_database(directory: &Directory, cache_bytes: u64) -> Result<(), CatalogError> {
    directory.must_be_empty()?;
    let path = directory.new_database()?;
    let engine = SledEngine::open(&path, cache_bytes)?;
    first_entries(&engine, ClusterId::random(), State::default(), 0, 0)?;
    drop(engine);
    directory.take_new_database()
}

/// Writes the single values of a new database.
pub(super) fn first_entries(engine: &dyn Engine, cluster: ClusterId, state: State, lease: u64, floor: u64) -> Result<(), CatalogError> {
    let mut batch = Batch::default();
    batch.expect(keyspace::META_CLUSTER, None);
    batch.put(keyspace::META_FORMAT, CATALOG_FORMAT.to_le_bytes());
    batch.put(keyspace::META_CLUSTER, *cluster.as_bytes());
    batch.put(keyspace::META_STATE, encode(&state, "state")?);
    batch.put(keyspace::META_LEASE, lease.to_le_bytes());
    batch.put(keyspace::META_FLOOR, floor.to_le_bytes());
    batch.put(keyspace::META_EXPIRY, 0u64.to_le_bytes());
    apply(engine, &batch)
}

/// Reads the single values; the format first.
pub(super) fn read_meta(engine: &dyn Engine, directory: &Directory) -> Result<Meta, CatalogError> {
    directory.check_format(u32::from_le_bytes(fixed(engine, keyspace::META_FORMAT)?))?;
    let state = engine.get(keyspace::META_STATE)?.ok_or_else(|| CatalogError::corrupt("state", "it is missing"))?;
    let state: State = decode(&state, "state")?;
    if let Some(mark) = directory.mark()?.filter(|mark| state.seq < *mark) {
        let why = format!(
            "commit {mark} was durable, and the database ends at {}: it is damaged, or older than the file `committed` beside it",
            state.seq
        );
        return Err(CatalogError::corrupt("last commits", why));
    }
    Ok(Meta {
        cluster: ClusterId::from_bytes(fixed(engine, keyspace::META_CLUSTER)?),
        state,
        lease: read_lease(engine)?,
        floor: u64::from_le_bytes(fixed(engine, keyspace::META_FLOOR)?),
        // A catalog from before values could expire has none.
        expiry: if engine.get(keyspace::META_EXPIRY)?.is_some() { u64::from_le_bytes(fixed(engine, keyspace::META_EXPIRY)?) } else { 0 },
    })
}

/// Notes that a database of an older format is of this one from now on.
pub(super) fn note_format(engine: &dyn Engine) -> Result<(), CatalogError> {
    if fixed(engine, keyspace::META_FORMAT)? == CATALOG_FORMAT.to_le_bytes() {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.put(keyspace::META_FORMAT, CATALOG_FORMAT.to_le_bytes());
    apply(engine, &batch)
}

fn fixed<const N: usize>(engine: &dyn Engine, key: &[u8]) -> Result<[u8; N], CatalogError> {
    let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
    let bytes = engine.get(key)?.ok_or_else(|| CatalogError::corrupt(name.as_str(), "it is missing"))?;
    let found = bytes.len();
    bytes.try_into().map_err(|_| CatalogError::corrupt(name, format!("it has {found} bytes instead of {N}")))
}

/// All times and versions given out are before this.
pub(super) fn read_lease(engine: &dyn Engine) -> Result<u64, CatalogError> {
    Ok(u64::from_le_bytes(fixed(engine, keyspace::META_LEASE)?))
}

/// Makes the clock's first lease durable, so that the clock goes before anything asks it.
pub(super) fn first_lease(engine: &dyn Engine, clock: &Clock) -> Result<(), CatalogError> {
    let Some(lease) = clock.wanted_lease() else { return Ok(()) };
    let mut batch = Batch::default();
    batch.put(keyspace::META_LEASE, lease.to_le_bytes());
    batch.put(keyspace::META_EXPIRY, clock.expiry_bound().to_le_bytes());
    apply(engine, &batch)?;
    clock.extend(lease);
    Ok(())
}

pub(super) fn apply(engine: &dyn Engine, batch: &Batch) -> Result<(), CatalogError> {
    engine.apply(batch).map_err(|e| match e {
        ApplyError::Unknown(e) | ApplyError::Unchanged(e) => CatalogError::Engine(e),
        other => CatalogError::Engine(EngineError::Io(other.to_string())),
    })
}

/// Why a rebuild did not make a catalog. The directory is as empty as before.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// The new catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The volumes' entries.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Bytes of keys and values in one batch of a rebuild.
const REBUILD_BATCH_BYTES: usize = 128 << 10;
/// Records looked at together when sequences are given out.
const REBUILD_SCAN: usize = 256;
/// Sequence of a record that is to get one at the end.
const NO_SEQ: u64 = 0;

/// Makes a catalog of merged records in an empty directory. See [`super::Catalog::create_from`].
pub(super) fn from_merged(
    options: &CatalogOptions,
    (cluster, secret): (ClusterId, &ClusterSecret),
    members: &[(VolumeId, String)],
    mut merger: Merger,
) -> Result<Summary, RebuildError> {
    let directory = Directory::lock(&options.dir)?;
    directory.must_be_empty()?;
    let engine = SledEngine::open(&directory.new_database()?, options.cache_bytes).map_err(CatalogError::from)?;
    let mut batch = Bulk::new(&engine);
    for (id, address) in members {
        batch.put(keyspace::volume(*id), encode(&VolumeEntry { address: address.clone() }, "volume entry")?)?;
    }
    for merged in merger.by_ref() {
        add(&mut batch, merged?)?;
    }
    batch.flush()?;
    let summary = merger.summary().clone();
    let seq = give_sequences(&engine, summary.max_seq, summary.uncertain_kept)?;
    // All versions and times from before are refused from now on, and none is given out again.
    let after = summary.max_time.0.saturating_add(1);
    first_entries(&engine, cluster, State { seq, keys: summary.keys, bytes: summary.bytes }, after, after)?;
    drop(engine);
    // Before the catalog is there: without it, a master would make a secret that no volume knows.
    directory.store_secret(secret)?;
    directory.take_new_database()?;
    directory.note_format()?;
    Ok(summary)
}

fn add(batch: &mut Bulk<'_>, merged: MergedKey) -> Result<(), CatalogError> {
    if let Some(r) = merged.record {
        let record = Record {
            version: r.version,
            len: r.len,
            hash: r.hash,
            content_type: r.content_type,
            modified: r.modified,
            expires: r.expires,
            replicas: r.replicas,
            seq: r.seq.unwrap_or(NO_SEQ),
            created: false,
        };
        batch.record(&merged.key, &record)?;
    }
    for copy in merged.surplus {
        let entry = ReclaimEntry { key: merged.key.clone(), deleted: copy.deleted, committed: None };
        batch.put(keyspace::reclaim(copy.volume, copy.version), encode(&entry, "reclaim entry")?)?;
    }
    Ok(())
}

/// Gives the records without a commit sequence the ones after `last`; the last one given is returned.
fn give_sequences(engine: &dyn Engine, mut last: u64, expected: u64) -> Result<u64, CatalogError> {
    let end = keyspace::successor(&[keyspace::RECORD]);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut from = Bound::Included(vec![keyspace::RECORD]);
    let mut left = expected;
    while left > 0 {
        let pairs = engine.scan(from.as_ref().map(Vec::as_slice), to, REBUILD_SCAN)?;
        let Some((end_of_chunk, _)) = pairs.last() else { break };
        from = Bound::Excluded(end_of_chunk.clone());
        let mut batch = Bulk::new(engine);
        for (key, value) in pairs {
            let mut record: Record = decode(&value, "record")?;
            if record.seq == NO_SEQ {
                last += 1;
                left = left.saturating_sub(1);
                record.seq = last;
                batch.put(key, encode(&record, "record")?)?;
            }
        }
        batch.flush()?;
    }
    Ok(last)
}

/// Writes in batches.
pub(super) struct Bulk<'a> {
    engine: &'a dyn Engine,
    batch: Batch,
    bytes: usize,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(engine: &'a dyn Engine) -> Self {
        Self { engine, batch: Batch::default(), bytes: 0 }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), CatalogError> {
        self.bytes += key.len() + value.len();
        self.batch.put(key, value);
        if self.bytes >= REBUILD_BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// A record, and when it expires.
    pub(super) fn record(&mut self, key: &Key, record: &Record) -> Result<(), CatalogError> {
        if let Some(at) = record.expires {
            self.put(keyspace::expiry(at, key), Vec::new())?;
        }
        self.put(keyspace::record(key), encode(record, "record")?)
    }

    pub(super) fn flush(&mut self) -> Result<(), CatalogError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Ok(()) } else { apply(self.engine, &batch) }
    }
}
