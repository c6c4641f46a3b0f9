//! The ordered transactional key-value engine beneath the catalog. Nothing outside an implementation
//! knows which engine it is; every implementation passes the same contract suite.

use std::collections::BTreeMap;
use std::ops::Bound;
use thiserror::Error;

/// Longest key an engine must take, in bytes: a prefix byte and the longest key of the cluster, with room.
pub const MAX_ENGINE_KEY_BYTES: usize = 2 << 10;
/// Largest value an engine must take, in bytes.
pub const MAX_ENGINE_VALUE_BYTES: usize = 16 << 10;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered key-value store with atomic, durable batches.
pub trait Engine: Send + Sync + 'static {
    /// The value of a key. May show a batch that is applied but not yet durable.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// At most `limit` pairs between the bounds, ascending by key. Shows each batch whole or not at all.
    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, EngineError>;

    /// Checks all preconditions, then makes all writes: atomic, and durable when it returns `Ok`.
    fn apply(&self, batch: &Batch) -> Result<(), ApplyError>;

    /// Bytes that the engine's files take on disk.
    fn size_on_disk(&self) -> Result<u64, EngineError>;

    /// Bytes that the engine's file system still has room for.
    fn free_bytes(&self) -> Result<u64, EngineError>;
}

/// Why the engine could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EngineError {
    /// Reading or writing failed.
    #[error("reading or writing the catalog's database failed: {0}; see to the disk, then restart the master")]
    Io(String),
    /// What is on disk is not what was written.
    #[error("the catalog's database is damaged: {0}; restore the directory, or make a new one with `kvdb rebuild`")]
    Corrupt(String),
}

/// Why a batch was not applied, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// A precondition does not hold: nothing was changed.
    #[error("the value of {} is not what the batch expects", key.escape_ascii())]
    Precondition {
        /// The first key whose precondition does not hold.
        key: Vec<u8>,
    },
    /// A key or value is larger than an engine must take: nothing was changed.
    #[error("a pair of {key_bytes} + {value_bytes} bytes is too large for the catalog")]
    TooLarge {
        /// Length of the key.
        key_bytes: usize,
        /// Length of the value.
        value_bytes: usize,
    },
    /// An earlier batch failed, so that none is taken any more: nothing was changed.
    #[error("the catalog's database takes no writes since one failed; see to the disk, then restart the master")]
    Stopped,
    /// It failed before anything was changed.
    #[error("nothing was changed: {0}")]
    Unchanged(EngineError),
    /// It may or may not be applied, and may or may not be durable.
    #[error("the outcome is not known: {0}")]
    Unknown(EngineError),
}

/// Preconditions and writes that are applied together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    expected: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Expects that `key` has exactly this value (none: is absent).
    pub fn expect(&mut self, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) {
        self.expected.insert(key.into(), value);
    }

    /// Sets `key`; the last write to a key counts.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Removes `key`, present or not.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.writes.insert(key.into(), None);
    }

    /// Whether it would write nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Number of writes.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Bytes of the keys and values that it writes.
    pub fn bytes(&self) -> usize {
        self.writes().map(|(key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum()
    }

    /// The preconditions, by key.
    pub fn expected(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.expected.iter().map(|(k, v)| (k.as_slice(), v.as_deref()))
    }

    /// The writes, by key: a value, or none to delete.
    pub fn writes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.writes.iter().map(|(k, v)| (k.as_slice(), v.as_deref()))
    }

    /// Refuses what an engine need not take.
    pub fn check_sizes(&self) -> Result<(), ApplyError> {
        for (key, value) in self.writes() {
            let value_bytes = value.map_or(0, <[u8]>::len);
            if key.len() > MAX_ENGINE_KEY_BYTES || value_bytes > MAX_ENGINE_VALUE_BYTES {
                return Err(ApplyError::TooLarge { key_bytes: key.len(), value_bytes });
            }
        }
        Ok(())
    }

    /// Checks the preconditions against `get`.
    pub fn check_expected(&self, get: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, EngineError>) -> Result<(), ApplyError> {
        for (key, want) in self.expected() {
            if get(key).map_err(ApplyError::Unchanged)?.as_deref() != want {
                return Err(ApplyError::Precondition { key: key.to_vec() });
            }
        }
        Ok(())
    }
}

/// Whether no key lies between the bounds. Ordered maps panic on some of these.
pub(super) fn is_empty_range(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    use Bound::{Excluded, Included, Unbounded};
    match (from, to) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(a), Included(b)) => a > b,
        (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a >= b,
    }
}
