//! Listing keys in order.
//!
//! A page is made of entries, which are keys or, with a delimiter, common prefixes: the part of a key up
//! to and including the first delimiter after the query's prefix. A page is made of the keys greater than
//! `start`; where `start` is itself a common prefix, its keys are passed over too. So the last entry of a
//! page is the `start` of the next one, and any key can be given. A common prefix is left by one seek.

use super::core::Core;
use super::engine::Pair;
use super::error::CatalogError;
use super::keyspace;
use super::record::{Record, decode};
use kvdb_protocol::limits::MAX_LIST_PAGE_KEYS;
use kvdb_protocol::{Key, UnixMillis};
use std::ops::Bound;

/// Records read for one page at most; a page that meets many expired records may end early, with a `next`.
const MAX_SCANNED: usize = 4 * MAX_LIST_PAGE_KEYS;
const CHUNK: usize = 256;
/// With a delimiter most of a chunk may be skipped.
const DELIMITED_CHUNK: usize = 32;

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin with this.
    pub prefix: Vec<u8>,
    /// Only what comes after this: a key, a common prefix, or the `next` of the page before.
    pub start: Option<Vec<u8>>,
    /// Whether the key `start` itself is listed, too. Not for use with a delimiter.
    pub with_start: bool,
    /// Only keys up to and including this one.
    pub last: Option<Vec<u8>>,
    /// Group keys by what comes up to the first of these after the prefix. Empty is none.
    pub delimiter: Option<Vec<u8>>,
    /// Most entries of the page; at least 1 and at most [`MAX_LIST_PAGE_KEYS`] are taken.
    pub limit: usize,
    /// Whether records are wanted with the keys.
    pub detail: bool,
}

/// An entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// A key.
    Key {
        /// The key.
        key: Key,
        /// Its record, where detail was asked for.
        record: Option<Record>,
    },
    /// What several keys have in common, up to and including the delimiter.
    Prefix(Vec<u8>),
}

impl ListEntry {
    /// The key or prefix.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Key { key, .. } => key.as_bytes(),
            Self::Prefix(p) => p,
        }
    }
}

/// A page: as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Its entries, ascending.
    pub entries: Vec<ListEntry>,
    /// Give this as `start` for the next page; none: there is no more.
    pub next: Option<Vec<u8>>,
}

struct Lister<'a> {
    core: &'a Core,
    query: &'a ListQuery,
    delimiter: Option<&'a [u8]>,
    now: UnixMillis,
    page: ListPage,
    /// The latest expiry of those passed over.
    passed_over: UnixMillis,
}

/// Makes a page. A durable view must be held. An inner error: it is too early to tell, see [`Core::decided_past`].
pub(super) fn list(core: &Core, query: &ListQuery) -> Result<Result<ListPage, UnixMillis>, CatalogError> {
    if core.in_flight.doubtful(&keyspace::record_at(&query.prefix)) {
        return Err(CatalogError::OutcomeUnknown);
    }
    let delimiter = query.delimiter.as_deref().filter(|d| !d.is_empty());
    let mut lister = Lister { core, query, delimiter, now: core.clock.expiry_now(), page: ListPage::default(), passed_over: UnixMillis(0) };
    lister.run()?;
    Ok(if core.deciding.is_past(lister.passed_over) { Ok(lister.page) } else { Err(lister.passed_over) })
}

impl Lister<'_> {
    fn run(&mut self) -> Result<(), CatalogError> {
        let limit = self.query.limit.clamp(1, MAX_LIST_PAGE_KEYS);
        let end = keyspace::successor(&keyspace::record_at(&self.query.prefix));
        let last = self.query.last.as_deref().map(keyspace::record_at);
        let to = match (&end, &last) {
            (Some(end), Some(last)) if last >= end => Bound::Excluded(end.as_slice()),
            (_, Some(last)) => Bound::Included(last.as_slice()),
            (Some(end), None) => Bound::Excluded(end.as_slice()),
            (None, None) => Bound::Unbounded,
        };
        let chunk = if self.delimiter.is_some() { DELIMITED_CHUNK } else { CHUNK };
        let Some(mut from) = self.first() else { return Ok(()) };
        let mut scanned = 0;
        loop {
            let rows = self.core.engine.scan(from.as_ref().map(Vec::as_slice), to, chunk)?;
            if rows.is_empty() {
                return Ok(());
            }
            scanned += rows.len();
            let mut place = None;
            for row in rows {
                if let Some(Bound::Included(seek)) = &place
                    && row.0 < *seek
                {
                    continue;
                }
                if self.page.entries.len() == limit {
                    self.page.next = self.page.entries.last().map(|e| e.as_bytes().to_vec());
                    return Ok(());
                }
                match self.take(row)? {
                    Some(next) => place = Some(next),
                    None => return Ok(()),
                }
            }
            from = place.unwrap_or(from);
            if scanned >= MAX_SCANNED {
                self.page.next = self.resume(&from);
                return Ok(());
            }
        }
    }

    /// Where the first entry may be; none: there can be no entry.
    fn first(&self) -> Option<Bound<Vec<u8>>> {
        let prefix = self.query.prefix.as_slice();
        match self.query.start.as_deref() {
            Some(start) if start >= prefix && !start.starts_with(prefix) => None,
            Some(start) if start.starts_with(prefix) => match self.common_prefix(start) {
                // All keys with this common prefix belong to one entry, which was listed before.
                Some(common) if common == start => keyspace::successor(&keyspace::record_at(common)).map(Bound::Included),
                _ if self.query.with_start => Some(Bound::Included(keyspace::record_at(start))),
                _ => Some(Bound::Excluded(keyspace::record_at(start))),
            },
            _ => Some(Bound::Included(keyspace::record_at(prefix))),
        }
    }

    fn common_prefix<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        let delimiter = self.delimiter?;
        let rest = key.get(self.query.prefix.len()..)?;
        let at = rest.windows(delimiter.len()).position(|w| w == delimiter)?;
        key.get(..self.query.prefix.len() + at + delimiter.len())
    }

    /// The `start` of the page that goes on at `from`, where this one ends early: either after a record, or
    /// after a whole common prefix, which is the last entry then.
    fn resume(&self, from: &Bound<Vec<u8>>) -> Option<Vec<u8>> {
        match from {
            Bound::Excluded(at) => at.get(1..).map(<[u8]>::to_vec),
            _ => self.page.entries.last().map(|e| e.as_bytes().to_vec()),
        }
    }

    /// Takes a record into the page, and says where to go on; none: nothing can come after.
    fn take(&mut self, (at, value): Pair) -> Result<Option<Bound<Vec<u8>>>, CatalogError> {
        let bytes = at.get(1..).unwrap_or_default();
        let key = Key::new(bytes).map_err(|e| CatalogError::corrupt("record", e))?;
        let record: Record = decode(&value, format_args!("record of {key}"))?;
        if record.expired(self.now) {
            self.passed_over = self.passed_over.max(record.expires.unwrap_or_default());
            return Ok(Some(Bound::Excluded(at)));
        }
        if let Some(common) = self.common_prefix(bytes) {
            self.page.entries.push(ListEntry::Prefix(common.to_vec()));
            return Ok(keyspace::successor(&keyspace::record_at(common)).map(Bound::Included));
        }
        self.page.entries.push(ListEntry::Key { key, record: self.query.detail.then_some(record) });
        Ok(Some(Bound::Excluded(at)))
    }
}
