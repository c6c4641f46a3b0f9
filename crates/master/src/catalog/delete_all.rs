//! All keys of a prefix removed, a page of them in one durable step.
//!
//! Each key is removed as by a delete of its own: tombstones at the volumes, its copies on their reclaim lists. What is stored while
//! the pages go by may come before or after the page that its place is in.

use super::decide::{self, Now};
use super::engine::Engine;
use super::error::CatalogError;
use super::keyspace;
use super::view::View;
use super::{Catalog, Op};
use kvdb_protocol::Key;
use kvdb_protocol::message::Deleted;
use std::ops::Bound;

/// Most keys of one page.
pub const MAX_KEYS: usize = 1_000;
/// A page ends when its keys and values exceed this: like other steps it stays within one segment of sled's log (512 KiB).
const MAX_WRITTEN_BYTES: usize = 192 << 10;

/// Which keys to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteAll {
    /// What they begin with; empty: all keys.
    pub prefix: Vec<u8>,
    /// Only those after this: the `next` of the page before.
    pub start: Option<Vec<u8>>,
    /// At most so many; 1 to [`MAX_KEYS`] are taken.
    pub limit: usize,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedPage {
    /// Number of keys; those that had expired are removed and not counted.
    pub deleted: u64,
    /// Bytes of their values, one copy of each.
    pub bytes: u64,
    /// Where to go on; none: there were no more.
    pub next: Option<Vec<u8>>,
}

/// Removes a page. No operation before it in its batch has written anything.
pub(super) fn remove(view: &mut View<'_>, engine: &dyn Engine, now: &Now, what: &DeleteAll) -> Result<DeletedPage, CatalogError> {
    now.require(now.room.for_delete)?;
    let first = keyspace::record_at(&what.prefix);
    let end = keyspace::successor(&first);
    let start = what.start.as_deref().map(keyspace::record_at).filter(|start| *start >= first);
    let from = start.as_deref().map_or(Bound::Included(first.as_slice()), Bound::Excluded);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    if end.as_ref().zip(start.as_ref()).is_some_and(|(end, start)| start >= end) {
        return Ok(DeletedPage::default());
    }
    let limit = what.limit.clamp(1, MAX_KEYS);
    let rows = engine.scan(from, to, limit + 1)?;
    let (mut page, began, found) = (DeletedPage::default(), view.bytes(), rows.len());
    for (n, (at, _)) in rows.into_iter().take(limit).enumerate() {
        let bytes = at.get(1..).unwrap_or_default();
        let key = Key::new(bytes).map_err(|e| CatalogError::corrupt("record", e))?;
        if let Some(record) = view.record(&key)? {
            let deleted = Deleted { seq: view.next_seq(), time: now.time };
            view.set_record(&key, Some(&record), None)?;
            decide::retire(view, now, &key, &record, Some(deleted))?;
            if !record.expired(now.expiry) {
                page.deleted += 1;
                page.bytes = page.bytes.saturating_add(record.len);
            }
        }
        let full = n + 1 == limit || view.bytes() - began > MAX_WRITTEN_BYTES;
        if full && n + 1 < found {
            page.next = Some(bytes.to_vec());
            break;
        }
    }
    Ok(page)
}

impl Catalog {
    /// Removes a page of the keys of a prefix, in one durable step. Errors are as with [`Catalog::commit`]; asked again, it removes
    /// what is left.
    pub async fn delete_all(&self, what: DeleteAll) -> Result<DeletedPage, CatalogError> {
        self.ask(|reply| Op::DeleteAll(what, reply)).await
    }
}
