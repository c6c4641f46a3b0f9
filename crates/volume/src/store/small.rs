//! What is done where a request arrives, as a task, without a thread that may block.
//!
//! Small values wait for the index's thread alone; only where the disk has to be asked do they take a thread of their own. Values
//! that get a file and fit in one buffer are gathered so, too, and take a thread once they are complete; larger ones take one to
//! begin and one to end, and have their blocks written by the store's threads.

use super::error::StoreError;
use super::staged::Staged;
use super::stored::Stored;
use super::{NewValue, REMOVE_BATCH, Store};
use crate::disk::{self, BUFFER_BYTES};
use crate::index::IndexError;
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::{Key, UnixMillis, VersionId};
use std::sync::Arc;

impl Store {
    /// As [`Store::begin`], as a task: only a file that is made at once takes a thread.
    ///
    /// # Errors
    /// As of [`Store::begin`].
    pub async fn begin_in_task(&self, value: NewValue) -> Result<Staged, StoreError> {
        let store = Arc::clone(&self.inner);
        match value.len {
            Some(len) if len > BUFFER_BYTES as u64 => blocking(move || Staged::begin(store, value)).await,
            _ => Staged::begin(store, value),
        }
    }

    /// Whether this version is here. Looks in place: the index knows of most versions that it has not without asking the disk.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn has(&self, key: &Key, version: VersionId) -> Result<bool, StoreError> {
        Ok(self.inner.value_record(key, version)?.is_some())
    }

    /// A small value that was written or read lately.
    pub fn in_memory(&self, key: &Key, version: VersionId) -> Option<Stored> {
        self.inner.index.in_memory(key, version).map(Stored::in_memory)
    }

    /// As [`Store::get`]; a small value is checked, and stays in memory for the next readers if it is right.
    ///
    /// # Errors
    /// As of [`Store::get`].
    pub fn get_for_reader(&self, key: &Key, version: VersionId) -> Result<Option<Stored>, StoreError> {
        let read = || {
            let mut found = self.inner.get(key, version)?;
            if let Some(stored) = &mut found {
                stored.check_inline();
            }
            Ok(found)
        };
        self.inner.index.keeping(read, Stored::small)
    }

    /// Has it noted that a version was committed; as [`Store::mark_committed`], but nobody waits for it.
    ///
    /// # Errors
    /// The index failed.
    pub async fn note_committed(&self, key: Key, version: VersionId, seq: u64) -> Result<(), StoreError> {
        Ok(self.inner.index.leave_commit(key, version, seq).await?)
    }

    /// Has it noted that a version is staged in a transaction, which ends then; nobody waits for it.
    ///
    /// # Errors
    /// The index failed.
    pub async fn note_staged(&self, key: Key, version: VersionId, ends: UnixMillis) -> Result<(), StoreError> {
        Ok(self.inner.index.leave_extension(key, version, ends).await?)
    }

    /// As [`Store::remove`], as a task; only what has files takes a thread.
    ///
    /// # Errors
    /// As of [`Store::remove`].
    pub async fn remove_in_task(self: &Arc<Self>, items: Vec<ReclaimItem>) -> Result<(), StoreError> {
        for batch in items.chunks(REMOVE_BATCH) {
            let (store, again) = (Arc::clone(self), batch.to_vec());
            match self.inner.index.remove_in_task(batch.to_vec()).await {
                Ok(files) if files.is_empty() => {}
                Ok(files) => {
                    let unlink = move || {
                        store.inner.unlink(&files);
                        Ok(())
                    };
                    blocking(unlink).await?;
                }
                Err(IndexError::NoSpace { .. }) => blocking(move || store.remove(&again)).await?,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl super::Inner {
    /// Removes the files of values that are in the index no more.
    pub(super) fn unlink(&self, versions: &[VersionId]) {
        for version in versions {
            self.at_hand.remove(*version);
            let path = disk::blob_path(&self.blobs, *version);
            // Not durable: a file that comes back after a power cut is found at the next start.
            if let Err(error) = disk::remove_if_there(&path) {
                tracing::error!(%error, "the space of a removed value is not freed until the next start");
            }
        }
    }
}

/// Runs what may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(IndexError::Stopped(format!("a storage task failed: {e}")).into()))
}
