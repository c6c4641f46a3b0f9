//! The first entries of a new database, the entries read at opening, and a database made by a rebuild.

use super::clock::Clock;
use super::directory::Directory;
use super::engine::{ApplyError, Batch, Engine, EngineError};
use super::error::CatalogError;
use super::keyspace::{self, CATALOG_FORMAT};
use super::record::{State, decode, encode};
use super::sled_engine::SledEngine;
use kvdb_protocol::ClusterId;

/// What is read once at opening.
pub(super) struct Meta {
    pub(super) cluster: ClusterId,
    pub(super) state: State,
    pub(super) lease: u64,
    pub(super) floor: u64,
}

/// Makes the database of a new cluster.
pub(super) fn empty_database(directory: &Directory, cache_bytes: u64) -> Result<(), CatalogError> {
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
    apply(engine, &batch)
}

/// Reads the single values; the format first.
pub(super) fn read_meta(engine: &dyn Engine, directory: &Directory) -> Result<Meta, CatalogError> {
    directory.check_format(u32::from_le_bytes(fixed(engine, keyspace::META_FORMAT)?))?;
    let state = engine.get(keyspace::META_STATE)?.ok_or_else(|| CatalogError::corrupt("state", "it is missing"))?;
    Ok(Meta {
        cluster: ClusterId::from_bytes(fixed(engine, keyspace::META_CLUSTER)?),
        state: decode(&state, "state")?,
        lease: u64::from_le_bytes(fixed(engine, keyspace::META_LEASE)?),
        floor: u64::from_le_bytes(fixed(engine, keyspace::META_FLOOR)?),
    })
}

fn fixed<const N: usize>(engine: &dyn Engine, key: &[u8]) -> Result<[u8; N], CatalogError> {
    let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
    let bytes = engine.get(key)?.ok_or_else(|| CatalogError::corrupt(name.as_str(), "it is missing"))?;
    let found = bytes.len();
    bytes.try_into().map_err(|_| CatalogError::corrupt(name, format!("it has {found} bytes instead of {N}")))
}

/// Makes the clock's first lease durable, so that the clock goes before anything asks it.
pub(super) fn first_lease(engine: &dyn Engine, clock: &Clock) -> Result<(), CatalogError> {
    let Some(lease) = clock.wanted_lease() else { return Ok(()) };
    let mut batch = Batch::default();
    batch.put(keyspace::META_LEASE, lease.to_le_bytes());
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
