//! An engine in memory, for tests of everything above it: durable means nothing here.

use super::engine::{ApplyError, Batch, Engine, EngineError, Pair, is_empty_range};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Keeps everything in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    map: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryEngine {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.read().get(key).cloned())
    }

    fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Pair>, EngineError> {
        if is_empty_range(from, to) {
            return Ok(Vec::new());
        }
        Ok(self.read().range::<[u8], _>((from, to)).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn apply(&self, batch: &Batch) -> Result<(), ApplyError> {
        batch.check_sizes()?;
        let mut map = self.write();
        batch.check_expected(|key| Ok(map.get(key).cloned()))?;
        for (key, value) in batch.writes() {
            match value {
                Some(value) => map.insert(key.to_vec(), value.to_vec()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, EngineError> {
        Ok(0)
    }

    fn free_bytes(&self) -> Result<u64, EngineError> {
        Ok(u64::MAX)
    }
}
