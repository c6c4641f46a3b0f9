//! A store and its calls.

use crate::error::{Error, OpenError};
use crate::housekeeping::{self, Housekeeping};
use crate::keys::Keys;
use crate::open::{self, Waiter};
use crate::options::{MAX_VALUE_BYTES, Options};
use kvdb_master::catalog::{Catalog, CatalogError, CommitDelete, CommitPut, DeleteAll, MAX_DELETED_KEYS, Record};
use kvdb_protocol::message::{CommitAnswer, ReclaimItem};
use kvdb_protocol::ttl::{MAX_TTL, TtlError};
use kvdb_protocol::{Condition, ErrorCode, Key, UnixMillis, VersionId};
use kvdb_volume::store::{NewValue, Store as Volume, StoreError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// A write that takes longer from its start to its commit is refused.
const COMMIT_WITHIN: Duration = Duration::from_secs(3600);

/// An open directory. It is closed, and can be opened again, when this is dropped.
pub struct Store {
    // In this order: the thread has a share of the rest.
    housekeeping: Housekeeping,
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) volume: Volume,
    options: Options,
    dir: PathBuf,
    handle: Handle,
    /// Told when something was replaced or deleted.
    pub(crate) to_remove: Notify,
}

impl Store {
    /// Opens a directory, or makes one; settles what was under way when it was last in use. Blocks.
    ///
    /// # Errors
    /// It is open already, or see [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        options.check()?;
        let dir = options.dir_or_new();
        let (runtime, handle) = housekeeping::runtime()?;
        let (catalog, volume) = match open::open(&dir, &options, &handle) {
            Ok(opened) => opened,
            Err(e) => {
                // Not dropped here: that is not permitted inside of somebody's runtime.
                runtime.shutdown_background();
                return Err(e);
            }
        };
        let inner = Arc::new(Inner { catalog, volume, options, dir, handle, to_remove: Notify::new() });
        Ok(Self { housekeeping: Housekeeping::start(runtime, Arc::clone(&inner))?, inner })
    }

    /// Makes a new store in the working directory, with the limits of [`Options::key_value_ds`].
    ///
    /// # Errors
    /// As of [`Store::open`].
    pub fn open_default() -> Result<Self, OpenError> {
        Self::open(Options::default())
    }

    /// Its directory, as it was given, or as it was made up.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Stores a value under a key that has none; durable on return. With a time to live it is absent again after that, 1 ms to 36500 days.
    ///
    /// # Errors
    /// [`Error::KeyExists`]; a limit is exceeded; no room; or see [`Error`].
    pub fn create(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<(), Error> {
        self.inner.write(key.as_ref(), value.as_ref(), ttl, true).map(drop)
    }

    /// Stores a value, in place of the one that is there, if any; durable on return. Otherwise as [`Store::create`]. Returns whether the key was new.
    ///
    /// # Errors
    /// A limit is exceeded; no room; or see [`Error`].
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<bool, Error> {
        self.inner.write(key.as_ref(), value.as_ref(), ttl, false)
    }

    /// The value of a key, checked; none where there is none, or it has expired.
    ///
    /// # Errors
    /// [`Error::Damaged`], or it cannot be read.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        self.inner.get(&Key::new(key.as_ref())?)
    }

    /// Deletes a key; durable on return. Returns whether there was a value.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.inner.delete(Key::new(key.as_ref())?)
    }

    /// Deletes all keys, in order and some hundred in each durable step, and says how many. What is stored meanwhile may be deleted or stay. If it is cut
    /// off, the rest stays, and it can be called again.
    ///
    /// # Errors
    /// See [`Error`]; some keys may be deleted then.
    pub fn delete_all(&self) -> Result<u64, Error> {
        self.inner.delete_all(b"")
    }

    /// Deletes all keys that begin with a prefix; otherwise as [`Store::delete_all`].
    ///
    /// # Errors
    /// The prefix is empty, or as of [`Store::delete_all`].
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64, Error> {
        if prefix.as_ref().is_empty() {
            return Err(Error::EmptyPrefix);
        }
        self.inner.delete_all(prefix.as_ref())
    }

    /// The keys that begin with a prefix, in order of their bytes; with an empty one, all.
    pub fn keys(&self, prefix: impl AsRef<[u8]>) -> Keys {
        Keys::new(Arc::clone(&self.inner), prefix.as_ref())
    }

    /// Closes the store, as dropping it does, and says if that failed.
    ///
    /// # Errors
    /// The catalog could not be closed in order. Nothing that was acknowledged is lost.
    pub fn close(self) -> Result<(), Error> {
        let Self { housekeeping, inner } = self;
        drop(housekeeping);
        Ok(pollster::block_on(inner.catalog.clone().close())?)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Inner {
    /// Waits for the catalog.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        Waiter(&self.handle).on(future)
    }

    fn write(&self, key: &[u8], value: &[u8], ttl: Option<Duration>, create: bool) -> Result<bool, Error> {
        let key = self.options.key(key)?;
        self.options.check_value(value)?;
        let ttl = ttl.map(checked_ttl).transpose()?;
        // Before anything is written to the disk; the commit looks again.
        if create && self.wait(self.catalog.lookup(&key))?.is_some() {
            return Err(Error::KeyExists(key.display()));
        }
        let len = value.len() as u64;
        let new = NewValue {
            key: key.clone(),
            version: self.catalog.next_version(),
            len: Some(len),
            max_len: len,
            content_type: self.options.content_type(),
            expires: ttl.map(|t| self.catalog.expiry_now().plus(t)),
            commit_by: self.commit_by(),
            replicas: vec![self.volume.volume()],
        };
        let commit = self.prepare(new, value, create)?;
        let version = commit.version;
        match self.wait(self.catalog.commit(commit)) {
            Ok(CommitAnswer::Committed(done)) => {
                // If it is not noted, it is settled when the store is opened the next time.
                if let Err(error) = self.volume.mark_committed(&key, version, done.seq) {
                    tracing::warn!(%key, %version, %error, "a commit is not noted beside its value");
                }
                if !done.created {
                    self.to_remove.notify_one();
                }
                Ok(done.created)
            }
            Ok(CommitAnswer::Refused(problem)) => {
                self.abandon(&key, version);
                Err(Error::refused(&key, problem))
            }
            // The value stays, in doubt, until the store is opened the next time.
            Err(e @ CatalogError::OutcomeUnknown) => Err(e.into()),
            Err(e) => {
                self.abandon(&key, version);
                Err(e.into())
            }
        }
    }

    /// Makes the value durable, and says what is to be committed.
    fn prepare(&self, new: NewValue, value: &[u8], create: bool) -> Result<CommitPut, Error> {
        let mut staged = self.volume.begin(new.clone())?;
        staged.write(value)?;
        let prepared = staged.finish()?;
        Ok(CommitPut {
            key: new.key,
            version: new.version,
            create,
            condition: Condition::default(),
            commit_by: new.commit_by,
            len: prepared.len,
            hash: prepared.hash,
            content_type: new.content_type,
            expires: new.expires,
            replicas: new.replicas,
        })
    }

    fn commit_by(&self) -> UnixMillis {
        self.catalog.now().plus(COMMIT_WITHIN)
    }

    fn abandon(&self, key: &Key, version: VersionId) {
        if let Err(error) = self.volume.remove(&[ReclaimItem { key: key.clone(), version, deleted: None }]) {
            tracing::warn!(%key, %version, %error, "the space of a write that was refused is given back when the store is opened again");
        }
    }

    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let mut missing = None;
        loop {
            let Some(record) = self.wait(self.catalog.lookup(key))? else { return Ok(None) };
            if missing == Some(record.version) {
                return Err(Error::Damaged { key: key.display(), what: "its bytes are missing".into() });
            }
            match self.read(key, &record)? {
                Some(bytes) => return Ok(Some(bytes)),
                // It was replaced and removed since, unless the record is the same still.
                None => missing = Some(record.version),
            }
        }
    }

    fn read(&self, key: &Key, record: &Record) -> Result<Option<Vec<u8>>, Error> {
        if record.len > MAX_VALUE_BYTES {
            return Err(Error::ValueTooLarge { found: record.len, max: MAX_VALUE_BYTES });
        }
        let damaged = |e| match e {
            StoreError::Corrupt { what, .. } => Error::Damaged { key: key.display(), what },
            e => e.into(),
        };
        let Some(stored) = self.volume.get(key, record.version).map_err(damaged)? else { return Ok(None) };
        if (stored.entry.len, stored.entry.hash) != (record.len, record.hash) {
            return Err(Error::Damaged { key: key.display(), what: "it is not the value that its record speaks of".into() });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(record.len).unwrap_or_default());
        for index in 0..stored.subtree_count() {
            bytes.extend_from_slice(&stored.read_subtree(index).map_err(|e| damaged(e.into()))?);
        }
        Ok(Some(bytes))
    }

    fn delete(&self, key: Key) -> Result<bool, Error> {
        let request = CommitDelete { key: key.clone(), version: None, condition: Condition::default(), commit_by: self.commit_by() };
        match self.wait(self.catalog.delete(request))? {
            CommitAnswer::Committed(_) => {
                self.to_remove.notify_one();
                Ok(true)
            }
            CommitAnswer::Refused(problem) if problem.code == ErrorCode::NotFound => Ok(false),
            CommitAnswer::Refused(problem) => Err(Error::refused(&key, problem)),
        }
    }

    fn delete_all(&self, prefix: &[u8]) -> Result<u64, Error> {
        let mut deleted = 0;
        let mut what = DeleteAll { prefix: prefix.to_vec(), start: None, limit: MAX_DELETED_KEYS };
        loop {
            let page = self.wait(self.catalog.delete_all(what.clone()))?;
            deleted += page.deleted;
            self.to_remove.notify_one();
            if page.next.is_none() {
                return Ok(deleted);
            }
            what.start = page.next;
        }
    }
}

fn checked_ttl(ttl: Duration) -> Result<Duration, TtlError> {
    if ttl.as_millis() == 0 {
        return Err(TtlError::Zero);
    }
    if ttl > MAX_TTL { Err(TtlError::TooLong) } else { Ok(ttl) }
}
