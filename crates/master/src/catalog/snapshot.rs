//! The catalog as of one point in time, read piece by piece while commits go on.
//!
//! A cursor moves through the engine's keys. Before the committer changes a key that the cursor has not
//! passed, it puts the value from before here. Both sides exclude each other by the durable view.

use super::core::Core;
use super::engine::{Batch, Engine, Pair};
use super::error::CatalogError;
use super::exported::{EXPORT_FORMAT, Header, KeyRecord, Line, Reclaimed, Sealer};
use super::keyspace;
use super::record::{ReclaimEntry, decode};
use super::{create, placing};
use bytes::Bytes;
use kvdb_protocol::{ClusterId, Key};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of values from before; beyond, the export is given up.
const MAX_IMAGE_BYTES: usize = 64 << 20;
/// What an image takes besides its key and value, roughly.
const IMAGE_OVERHEAD: usize = 128;
/// Pairs of one piece. Commits wait while one is read, so it is short.
const PIECE: usize = 256;

/// Values from before, for the one export that may run.
#[derive(Default)]
pub(super) struct Snapshot {
    /// So that the committer has one load to do while there is none.
    running: AtomicBool,
    images: Mutex<Images>,
}

#[derive(Default)]
pub(super) struct Images {
    pub(super) cursor: Vec<u8>,
    pub(super) before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    pub(super) bytes: usize,
    pub(super) failed: Option<String>,
}

impl Snapshot {
    fn images(&self) -> MutexGuard<'_, Images> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<(), CatalogError> {
        if self.running.swap(true, Ordering::SeqCst) {
            return Err(CatalogError::ExportRunning);
        }
        *self.images() = Images { cursor: vec![keyspace::RECORD], ..Images::default() };
        Ok(())
    }

    fn end(&self) {
        *self.images() = Images::default();
        self.running.store(false, Ordering::SeqCst);
    }

    /// A batch will be applied. No durable view is held by others.
    pub(super) fn keep(&self, engine: &dyn Engine, batch: &Batch) {
        if self.running.load(Ordering::SeqCst) {
            self.images().keep(engine, batch, MAX_IMAGE_BYTES);
        }
    }
}

impl Images {
    pub(super) fn keep(&mut self, engine: &dyn Engine, batch: &Batch, most: usize) {
        for (key, _) in batch.writes() {
            let wanted = matches!(key.first(), Some(&keyspace::RECORD | &keyspace::RECLAIM));
            if self.failed.is_some() || !wanted || key <= self.cursor.as_slice() || self.before.contains_key(key) {
                continue;
            }
            match engine.get(key) {
                Ok(before) => {
                    self.bytes += key.len() + before.as_ref().map_or(0, Vec::len) + IMAGE_OVERHEAD;
                    self.before.insert(key.to_vec(), before);
                }
                Err(e) => self.failed = Some(e.to_string()),
            }
            if self.bytes > most {
                self.failed = Some("too much was written meanwhile, or the export was read too slowly; try again".into());
            }
        }
        if self.failed.is_some() {
            self.before = BTreeMap::new();
        }
    }

    /// The next pairs with this prefix, as of the beginning, and whether they are the last.
    pub(super) fn piece(&mut self, engine: &dyn Engine, prefix: u8, limit: usize) -> Result<(Vec<Pair>, bool), CatalogError> {
        if let Some(why) = &self.failed {
            return Err(CatalogError::ExportFailed(why.clone()));
        }
        if self.cursor.first() != Some(&prefix) {
            self.cursor = vec![prefix];
        }
        let end = keyspace::successor(&[prefix]);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let now = engine.scan(Bound::Excluded(&self.cursor), to, limit)?;
        let last = now.len() < limit;
        let beyond = match now.last() {
            // Images between the last pair and the end of the prefix belong to this piece, too.
            _ if last => self.before.split_off(end.as_deref().unwrap_or_default()),
            Some((at, _)) => {
                self.cursor.clone_from(at);
                self.before.split_off(&[at.as_slice(), &[0]].concat())
            }
            None => BTreeMap::new(),
        };
        let passed = std::mem::replace(&mut self.before, beyond);
        let mut pairs: BTreeMap<Vec<u8>, Vec<u8>> = now.into_iter().collect();
        for (key, before) in passed {
            self.bytes = self.bytes.saturating_sub(key.len() + before.as_ref().map_or(0, Vec::len) + IMAGE_OVERHEAD);
            match before {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        if last {
            self.cursor = end.unwrap_or_default();
        }
        Ok((pairs.into_iter().collect(), last))
    }
}

/// An export under way. Dropped, it ends.
pub struct Export {
    core: Arc<Core>,
    seal: Sealer,
    /// Lines that need no cursor.
    first: Option<Vec<Line>>,
    /// What comes next; none: the end was given.
    part: Option<u8>,
}

impl Export {
    /// Fixes the point in time. A durable view must be held.
    pub(super) fn begin(core: &Arc<Core>, cluster: ClusterId) -> Result<Self, CatalogError> {
        if core.is_stopped() {
            return Err(CatalogError::Stopped);
        }
        core.snapshot.begin()?;
        // From here on, its end frees the place for the next.
        let mut export = Self { core: Arc::clone(core), seal: Sealer::default(), first: None, part: Some(keyspace::RECORD) };
        let (state, lease) = (core.state(), create::read_lease(core.engine.as_ref())?);
        let mut lines = vec![Line::Catalog(Header {
            format: EXPORT_FORMAT,
            cluster,
            time: core.clock.now(),
            seq: state.seq,
            lease,
            keys: state.keys,
            bytes: state.bytes,
        })];
        lines.extend(core.volumes()?.into_iter().map(|(id, address)| Line::Volume { id, address }));
        lines.extend(placing::duties(core.engine.as_ref())?.into_iter().map(|(id, duty)| Line::Duty { id, duty }));
        lines.extend(placing::listed(core.engine.as_ref())?.into_iter().map(|address| Line::Listed { address }));
        export.first = Some(lines);
        Ok(export)
    }

    /// The next lines; none at the end. Once it has failed, a line that says so ends it, so that whoever reads it knows why.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(lines) = self.first.take() {
            return Some(self.write(lines));
        }
        let prefix = self.part?;
        match self.piece(prefix).await {
            Ok((lines, last)) => {
                if last {
                    self.part = (prefix == keyspace::RECORD).then_some(keyspace::RECLAIM);
                }
                let mut text = self.write(lines).to_vec();
                if self.part.is_none() {
                    text.extend(self.seal.end());
                }
                // Empty portions would end the answer.
                if text.is_empty() { Box::pin(self.next()).await } else { Some(text.into()) }
            }
            Err(e) => {
                self.part = None;
                Some(self.write(vec![Line::Failed(e.to_string())]))
            }
        }
    }

    fn write(&mut self, lines: Vec<Line>) -> Bytes {
        lines.iter().map(|l| self.seal.line(l)).collect::<Vec<_>>().concat().into()
    }

    async fn piece(&self, prefix: u8) -> Result<(Vec<Line>, bool), CatalogError> {
        let core = Arc::clone(&self.core);
        let view = core.durable_view().await;
        let read = tokio::task::spawn_blocking(move || {
            let piece = core.snapshot.images().piece(core.engine.as_ref(), prefix, PIECE);
            drop(view);
            piece
        });
        let (pairs, last) = read.await.map_err(|e| CatalogError::corrupt("pages", e))??;
        let lines = pairs.iter().map(|(key, value)| parse(key, value)).collect::<Result<_, _>>()?;
        Ok((lines, last))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.core.snapshot.end();
    }
}

fn parse(at: &[u8], value: &[u8]) -> Result<Line, CatalogError> {
    if at.first() == Some(&keyspace::RECORD) {
        let key = at.get(1..).and_then(|k| Key::new(k.to_vec()).ok());
        let key = key.ok_or_else(|| CatalogError::corrupt("record", "its key is malformed"))?;
        let record = decode(value, format_args!("record of {key}"))?;
        return Ok(Line::Record(KeyRecord { key, record }));
    }
    let at = keyspace::parse_reclaim(at).ok_or_else(|| CatalogError::corrupt("reclaim entry", "its key is malformed"))?;
    let entry: ReclaimEntry = decode(value, "reclaim entry")?;
    let committed = entry.committed.map(Into::into);
    Ok(Line::Reclaim(Reclaimed { volume: at.0, version: at.1, key: entry.key, deleted: entry.deleted, committed }))
}
