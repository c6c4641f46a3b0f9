//! Keys in order of their bytes.

use crate::error::Error;
use crate::store::Inner;
use kvdb_master::catalog::{ListEntry, ListQuery};
use kvdb_protocol::Key;
use kvdb_protocol::limits::DEFAULT_LIST_PAGE_KEYS;
use std::sync::Arc;

/// Iterates over keys in order of their bytes, a thousand at a time: those of one page are as of one moment.
///
/// It ends after an error.
pub struct Keys {
    store: Arc<Inner>,
    query: ListQuery,
    page: std::vec::IntoIter<Key>,
    ended: bool,
}

impl Keys {
    pub(crate) fn new(store: Arc<Inner>, prefix: &[u8]) -> Self {
        let query = ListQuery { prefix: prefix.to_vec(), limit: DEFAULT_LIST_PAGE_KEYS, ..ListQuery::default() };
        Self { store, query, page: Vec::new().into_iter(), ended: false }
    }

    fn next_page(&mut self) -> Result<(), Error> {
        let page = self.store.wait(self.store.catalog.list(&self.query))?;
        let key = |entry| if let ListEntry::Key { key, .. } = entry { Some(key) } else { None };
        self.page = page.entries.into_iter().filter_map(key).collect::<Vec<_>>().into_iter();
        self.ended = page.next.is_none();
        self.query.start = page.next;
        Ok(())
    }
}

impl Iterator for Keys {
    type Item = Result<Key, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            if self.ended {
                return None;
            }
            if let Err(e) = self.next_page() {
                self.ended = true;
                return Some(Err(e));
            }
        }
    }
}
