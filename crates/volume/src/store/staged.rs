//! A value on its way in.

use super::error::StoreError;
use super::sink::FileSink;
use super::small::blocking;
use super::space::{Reservation, Space};
use super::{Inner, NewValue};
use crate::disk::{self, BUFFER_BYTES, BufferPool, DiskError, Seat};
use crate::format::blob::{Footer, MAX_CONTENT_BYTES, max_overhead};
use crate::format::record::{Place, ValueRecord};
use crate::index::Outcome;
use kvdb_protocol::UnixMillis;
use kvdb_protocol::message::Prepared;
use kvdb_protocol::tree::{TreeHash, TreeHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a value in the index takes besides its bytes, generously.
const INLINE_OVERHEAD_BYTES: u64 = 4 << 10;
/// First room for a value of unknown length that turns out to need a file, in bytes.
const FIRST_ROOM_BYTES: u64 = 8 << 20;

/// A value that is being written. Dropping it before [`Staged::finish`] removes all trace of it.
pub struct Staged {
    store: Arc<Inner>,
    value: NewValue,
    hasher: TreeHasher,
    sink: Sink,
}

/// Where the bytes go.
enum Sink {
    /// Into the index, if it stays this small.
    Memory(Vec<u8>, Reservation),
    File(FileSink),
}

impl Staged {
    pub(super) fn begin(store: Arc<Inner>, value: NewValue) -> Result<Self, StoreError> {
        store.check_writable()?;
        let value = NewValue { max_len: value.max_len.min(MAX_CONTENT_BYTES), ..value };
        if value.len.is_some_and(|len| len > value.max_len) {
            return Err(StoreError::TooLarge { max: value.max_len });
        }
        let max_inline = store.options.max_inline_bytes;
        let sink = match value.len {
            Some(len) if len > max_inline && len <= BUFFER_BYTES as u64 => {
                disk::room_for_a_file(&store.tmp)?;
                Sink::File(start_file(&store, &value, len + max_overhead(len), len, FileSink::gather)?)
            }
            Some(len) if len > max_inline => Sink::File(start_file(&store, &value, len + max_overhead(len), len, FileSink::create)?),
            // It goes to the disk twice: into the journal, and later into a table.
            len => {
                // Of one whose length is not known the capacity is asked when it is.
                let room = 2 * len.unwrap_or(max_inline) + INLINE_OVERHEAD_BYTES;
                Sink::Memory(Vec::new(), store.space.reserve(room, len.unwrap_or(0))?)
            }
        };
        Ok(Self { store, value, hasher: TreeHasher::new(), sink })
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        let waiting = match &self.sink {
            Sink::Memory(bytes, _) => bytes.len(),
            Sink::File(file) => file.waiting().len(),
        };
        self.hasher.len() + waiting as u64
    }

    /// Whether no bytes were taken yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// More than announced or permitted, no room, or the disk failed. The value is then of no use: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_next(bytes)?;
        self.leave_memory(bytes.len())?;
        let mut rest = self.take(bytes);
        while !rest.is_empty() {
            let seat = self.store.writers.idle_seat();
            write_full(&mut self.sink, seat, self.hasher.len())?;
            rest = self.take(rest);
        }
        Ok(())
    }

    /// As [`Staged::write`], as a task, where it [has room](Staged::has_room): it waits for a thread that writes, and for no call.
    ///
    /// # Errors
    /// As of [`Staged::write`].
    pub async fn write_in_task(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        debug_assert!(self.has_room(bytes.len()));
        self.check_next(bytes)?;
        let mut rest = self.take(bytes);
        while !rest.is_empty() {
            let seat = self.store.writers.seat().await;
            write_full(&mut self.sink, seat, self.hasher.len())?;
            rest = self.take(rest);
        }
        Ok(())
    }

    /// Whether it takes so many more bytes without asking the file system for more room.
    pub fn has_room(&self, more: usize) -> bool {
        let after = self.len().saturating_add(more as u64);
        match &self.sink {
            Sink::Memory(..) => after <= self.store.options.max_inline_bytes,
            Sink::File(file) => file.has_room(after),
        }
    }

    fn check_next(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let after = self.len().saturating_add(bytes.len() as u64);
        if after > self.value.max_len {
            return Err(StoreError::TooLarge { max: self.value.max_len });
        }
        match self.value.len.filter(|len| after > *len) {
            Some(expected) => Err(StoreError::Length { expected, found: after }),
            None => Ok(()),
        }
    }

    /// Begins a file if it is too large for the index with so many more bytes, which its announced length did not say.
    fn leave_memory(&mut self, more: usize) -> Result<(), StoreError> {
        let after = self.len().saturating_add(more as u64);
        if let Sink::Memory(small, _) = &self.sink
            && after > self.store.options.max_inline_bytes
        {
            let room = FIRST_ROOM_BYTES.min(self.value.max_len) + max_overhead(0);
            let mut file = start_file(&self.store, &self.value, room, after, FileSink::create)?;
            file.take(small, &mut self.hasher);
            self.sink = Sink::File(file);
        }
        Ok(())
    }

    /// Takes bytes until the buffer is full; what is left comes back.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match &mut self.sink {
            Sink::Memory(small, _) => {
                small.extend_from_slice(bytes);
                &[]
            }
            Sink::File(file) => file.take(bytes, &mut self.hasher),
        }
    }

    /// Makes it durable, and known as prepared.
    ///
    /// # Errors
    /// Nothing of it is here, or it is not known to be.
    pub fn finish(self) -> Result<Prepared, StoreError> {
        self.check_length()?;
        let Self { store, value, hasher, sink } = self;
        store.check_writable()?;
        let finished = match sink {
            Sink::Memory(bytes, promise) => {
                // The rest of what it counts against the capacity.
                let rest = if value.len.is_none() { bytes.len() as u64 } else { 0 };
                store.space.reserve(0, rest).and_then(|_rest| {
                    let finished = finish_inline(&store, &value, hasher, bytes);
                    drop(promise);
                    finished
                })
            }
            Sink::File(file) => finish_file(&store, &value, hasher, file),
        };
        if let Err(e) = &finished {
            store.stop_if_sync_failed(e);
        }
        finished
    }

    /// As [`Staged::finish`], as a task: a value that lives in the index, of announced length, needs no thread that may block, and another one only now.
    ///
    /// # Errors
    /// As of [`Staged::finish`].
    pub async fn finish_in_task(self) -> Result<Prepared, StoreError> {
        self.check_length()?;
        match self {
            Self { store, value, mut hasher, sink: Sink::Memory(bytes, _promise) } if value.len.is_some() => {
                store.check_writable()?;
                hasher.update(&bytes);
                let tree = hasher.finish();
                let put = store.index.put_small(&value.key, value.version, record(&value, &tree, Place::Inline), bytes);
                entered(&value, put.await?, &tree, Place::Inline)
            }
            other => blocking(move || other.finish()).await,
        }
    }

    fn check_length(&self) -> Result<(), StoreError> {
        let found = self.len();
        match self.value.len.filter(|len| *len != found) {
            Some(expected) => Err(StoreError::Length { expected, found }),
            None => Ok(()),
        }
    }
}

/// Writes a full buffer, which only a file has.
fn write_full(sink: &mut Sink, seat: Option<Seat<'_>>, hashed: u64) -> Result<(), StoreError> {
    match sink {
        Sink::File(file) => file.write_full(seat, hashed),
        Sink::Memory(..) => Ok(()),
    }
}

type BeginFile = fn(PathBuf, bool, u64, u64, &Arc<Space>, &Arc<BufferPool>) -> Result<FileSink, StoreError>;

fn start_file(store: &Inner, value: &NewValue, room: u64, len: u64, begin: BeginFile) -> Result<FileSink, StoreError> {
    let n = store.temporary.fetch_add(1, Ordering::Relaxed);
    let path = store.tmp.join(format!("{}-{n}", value.version));
    begin(path, store.options.direct_io, room, len, &store.space, &store.buffers)
}

fn finish_inline(store: &Inner, value: &NewValue, mut hasher: TreeHasher, bytes: Vec<u8>) -> Result<Prepared, StoreError> {
    hasher.update(&bytes);
    enter(store, value, &hasher.finish(), Place::Inline, Some(bytes))
}

/// The order is that of `docs/format-volume.md`: what follows a step is worth nothing without it.
fn finish_file(store: &Inner, value: &NewValue, mut hasher: TreeHasher, file: FileSink) -> Result<Prepared, StoreError> {
    hasher.update(file.waiting());
    let tree = hasher.finish();
    let (mut writer, _promise) = file.end(tree.len, &footer(value, &tree).encode()?)?;
    let mut path = store.dirs.path_for(value.version)?;
    let place = Place::File { file_len: writer.written() };
    let mut published = writer.publish(&path);
    if published.as_ref().is_err_and(DiskError::is_not_found) {
        // Somebody has removed the directory: it is made again.
        store.dirs.forget();
        path = store.dirs.path_for(value.version)?;
        published = writer.publish(&path);
    }
    match published {
        // The same version is here: an earlier attempt got this far.
        Err(e) if e.is_exists() => compare_with_present(store, value, &tree, place),
        published => {
            published?;
            let prepared = enter(store, value, &tree, place, None)?;
            writer.keep();
            Ok(prepared)
        }
    }
}

/// Adds the entry to the index.
fn enter(store: &Inner, value: &NewValue, tree: &TreeHash, place: Place, inline: Option<Vec<u8>>) -> Result<Prepared, StoreError> {
    let outcome = store.index.put(&value.key, value.version, record(value, tree, place), inline)?;
    entered(value, outcome, tree, place)
}

fn record(value: &NewValue, tree: &TreeHash, place: Place) -> ValueRecord {
    ValueRecord {
        len: tree.len,
        hash: tree.root,
        place,
        content_type: value.content_type.clone(),
        modified: UnixMillis(value.version.unix_millis()),
        expires: value.expires,
        commit_by: value.commit_by,
        replicas: value.replicas.clone(),
        seq: None,
    }
}

fn entered(value: &NewValue, outcome: Outcome, tree: &TreeHash, place: Place) -> Result<Prepared, StoreError> {
    match outcome {
        Outcome::Present(there) => same_or_used(value, &there, tree, place),
        Outcome::Deleted => Err(StoreError::VersionUsed { version: value.version }),
        _ => Ok(Prepared { len: tree.len, hash: tree.root }),
    }
}

fn compare_with_present(store: &Inner, value: &NewValue, tree: &TreeHash, place: Place) -> Result<Prepared, StoreError> {
    match store.value_record(&value.key, value.version)? {
        Some(there) => same_or_used(value, &there, tree, place),
        None => Err(StoreError::VersionUsed { version: value.version }),
    }
}

/// The same bytes under the same version again are the same value.
fn same_or_used(value: &NewValue, there: &ValueRecord, tree: &TreeHash, place: Place) -> Result<Prepared, StoreError> {
    if there.hash == tree.root && there.len == tree.len && there.place == place {
        return Ok(Prepared { len: tree.len, hash: tree.root });
    }
    Err(StoreError::VersionUsed { version: value.version })
}

fn footer(value: &NewValue, tree: &TreeHash) -> Footer {
    Footer {
        key: value.key.clone(),
        version: value.version,
        len: tree.len,
        hash: tree.root,
        content_type: value.content_type.clone(),
        modified: UnixMillis(value.version.unix_millis()),
        expires: value.expires,
        commit_by: value.commit_by,
        replicas: value.replicas.clone(),
        subtrees: tree.subtrees.clone(),
    }
}
