//! A new catalog, made of an export.

use super::CatalogOptions;
use super::create::{Bulk, first_entries};
use super::directory::Directory;
use super::engine::Engine;
use super::error::CatalogError;
use super::exported::{Checker, ExportError, Header, Line, Reclaimed, read_line};
use super::keyspace;
use super::record::{ReclaimEntry, Record, State, VolumeEntry, decode, encode};
use super::sled_engine::SledEngine;
use kvdb_protocol::limits::MAX_REPLICAS;
use kvdb_protocol::{ClusterSecret, UnixMillis};
use std::io::BufRead;
use thiserror::Error;

/// Commits that the old catalog may have made after its export. Volumes know their sequences; those of the new one
/// must be greater, or a later rebuild would take older values for newer ones.
const SEQUENCE_GAP: u64 = 1 << 40;

/// Why an import made no catalog. The directory is as empty as before.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The new catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A line whose content cannot be.
    #[error("the export holds what no catalog does: {0}")]
    Content(String),
}

/// What an import brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The export's first line.
    pub header: Header,
    /// Records.
    pub keys: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
    /// Copies that volumes have still to remove.
    pub reclaim: u64,
}

/// Makes the catalog; `now` is the machine's time. See [`super::Catalog::import`].
pub(super) fn import(
    options: &CatalogOptions,
    secret: &ClusterSecret,
    mut from: impl BufRead,
    now: UnixMillis,
) -> Result<Imported, ImportError> {
    let directory = Directory::lock(&options.dir)?;
    directory.must_be_empty()?;
    let engine = SledEngine::open(&directory.new_database()?, options.cache_bytes).map_err(CatalogError::from)?;
    let (mut checker, mut text) = (Checker::default(), Vec::new());
    let (mut header, mut state, mut reclaim) = (None, State::default(), 0);
    let mut batch = Bulk::new(&engine);
    while read_line(&mut from, &mut text).map_err(ExportError::Io)? {
        match checker.line(&text)? {
            Line::Catalog(first) => header = Some(first),
            Line::Volume { id, address } => batch.put(keyspace::volume(id), encode(&VolumeEntry { address }, "volume entry")?)?,
            Line::Duty { id, duty } => batch.put(keyspace::duty(id), encode(&duty, "duty of a volume")?)?,
            Line::Listed { address } => batch.put(keyspace::listed(&address), Vec::new())?,
            Line::Record(r) => {
                check(&r.record, header.as_ref())?;
                (state.keys, state.bytes) = (state.keys + 1, state.bytes.saturating_add(r.record.len));
                batch.record(&r.key, &r.record)?;
            }
            Line::Reclaim(item) => {
                if reclaim == 0 {
                    // The records are looked at.
                    batch.flush()?;
                }
                reclaim += u64::from(reclaimed(&engine, &mut batch, item)?);
            }
            Line::Failed(_) | Line::End(_) => {}
        }
    }
    checker.finish()?;
    batch.flush()?;
    let header = header.ok_or(ExportError::Cut("its beginning is missing"))?;
    state.seq = header.seq.checked_add(SEQUENCE_GAP).ok_or_else(|| ImportError::Content("its sequence is too great".into()))?;
    // What the old catalog gave out until its end is refused from now on, and none of it is given out again. Its
    // clock was at most a lease ahead of the machine's.
    let after = header.lease.max(now.plus(super::clock::LEASE_AHEAD).0);
    first_entries(&engine, header.cluster, state, after, after)?;
    drop(engine);
    // Before the catalog is there: without it, a master would make a secret that no volume knows.
    directory.store_secret(secret)?;
    directory.take_new_database()?;
    directory.note_format()?;
    Ok(Imported { header, keys: state.keys, bytes: state.bytes, reclaim })
}

fn check(record: &Record, header: Option<&Header>) -> Result<(), ImportError> {
    if record.replicas.is_empty() || record.replicas.len() > MAX_REPLICAS {
        return Err(ImportError::Content(format!("version {} has {} replicas", record.version, record.replicas.len())));
    }
    if header.is_none_or(|h| record.seq > h.seq) {
        return Err(ImportError::Content(format!("version {} was committed after the export", record.version)));
    }
    Ok(())
}

/// Takes a removal over; not that of a copy of a present version: such a copy may have been made a replica again since
/// the export, and be the only one.
fn reclaimed(engine: &dyn Engine, batch: &mut Bulk<'_>, item: Reclaimed) -> Result<bool, ImportError> {
    let record = engine.get(&keyspace::record(&item.key)).map_err(CatalogError::from)?;
    let record: Option<Record> = record.map(|bytes| decode(&bytes, "record")).transpose()?;
    if record.is_some_and(|r| r.version == item.version) {
        return Ok(false);
    }
    let entry = ReclaimEntry { key: item.key, deleted: item.deleted, committed: item.committed.map(Into::into) };
    batch.put(keyspace::reclaim(item.volume, item.version), encode(&entry, "reclaim entry")?)?;
    Ok(true)
}
