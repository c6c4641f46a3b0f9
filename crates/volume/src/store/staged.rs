//! A value on its way in.

use super::error::StoreError;
use super::space::Reservation;
use super::{Inner, NewValue};
use crate::disk::{AlignedBuffer, BLOCK_BYTES, BUFFER_BYTES, BlobWriter};
use crate::format::blob::{Footer, max_overhead};
use crate::format::record::{Place, ValueRecord};
use crate::index::Outcome;
use kvdb_protocol::UnixMillis;
use kvdb_protocol::limits::MAX_INLINE_VALUE_BYTES;
use kvdb_protocol::message::Prepared;
use kvdb_protocol::tree::{TreeHash, TreeHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// First reservation for a value of unknown length that goes to a file, in bytes; it doubles from there.
const FIRST_STEP_BYTES: u64 = 8 << 20;
/// Largest such step, in bytes.
const MAX_STEP_BYTES: u64 = 128 << 20;
/// What a value in the index takes besides its bytes, generously.
const INLINE_OVERHEAD_BYTES: u64 = 4 << 10;

/// A value that is being written. Dropping it before [`Staged::finish`] removes all trace of it.
pub struct Staged {
    store: Arc<Inner>,
    value: NewValue,
    hasher: TreeHasher,
    /// What arrived and is neither hashed nor written yet.
    pending: Pending,
    /// None while it may still go into the index.
    writer: Option<BlobWriter>,
    reservation: Reservation,
}

enum Pending {
    Small(Vec<u8>),
    Large(AlignedBuffer, usize),
}

impl Staged {
    pub(super) fn begin(store: Arc<Inner>, value: NewValue) -> Result<Self, StoreError> {
        store.check_writable()?;
        if let Some(len) = value.len.filter(|len| *len > value.max_len) {
            tracing::debug!(len, max = value.max_len, "a value is too large");
            return Err(StoreError::TooLarge { max: value.max_len });
        }
        let first = match value.len {
            Some(len) if len <= store.options.max_inline_bytes => len + INLINE_OVERHEAD_BYTES,
            Some(len) => len.saturating_add(max_overhead(len)),
            None => store.options.max_inline_bytes + INLINE_OVERHEAD_BYTES,
        };
        let reservation = store.space.reserve(first)?;
        let mut staged = Self { store, value, hasher: TreeHasher::new(), pending: Pending::Small(Vec::new()), writer: None, reservation };
        if staged.value.len.is_some_and(|len| len > staged.store.options.max_inline_bytes) {
            staged.start_file(first)?;
        }
        Ok(staged)
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.hasher.len() + self.pending.filled() as u64
    }

    /// Whether no bytes were taken yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// More than announced or permitted, no room, or the disk failed. The value is then of no use: drop it.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        let after = self.len().saturating_add(bytes.len() as u64);
        if after > self.value.max_len {
            return Err(StoreError::TooLarge { max: self.value.max_len });
        }
        if let Some(expected) = self.value.len.filter(|len| after > *len) {
            return Err(StoreError::Length { expected, found: after });
        }
        if let Pending::Small(small) = &mut self.pending {
            if after <= self.store.options.max_inline_bytes {
                small
                    .reserve_exact(self.value.len.map_or(bytes.len(), |len| usize::try_from(len).unwrap_or(0)).saturating_sub(small.len()));
                small.extend_from_slice(bytes);
                return Ok(());
            }
            self.start_file_of_unknown_length()?;
        }
        while !bytes.is_empty() {
            if self.pending.filled() == BUFFER_BYTES {
                self.write_out()?;
            }
            bytes = self.pending.fill(bytes);
        }
        Ok(())
    }

    /// Makes it durable, and known as prepared.
    ///
    /// # Errors
    /// Nothing of it is here, or it is not known to be.
    pub fn finish(self) -> Result<Prepared, StoreError> {
        let store = Arc::clone(&self.store);
        let finished = self.finish_inner();
        if let Err(e) = &finished {
            store.stop_if_sync_failed(e);
        }
        finished
    }

    fn finish_inner(mut self) -> Result<Prepared, StoreError> {
        if let Some(expected) = self.value.len.filter(|len| *len != self.len()) {
            return Err(StoreError::Length { expected, found: self.len() });
        }
        self.store.check_writable()?;
        match self.writer.take() {
            None => self.finish_inline(),
            Some(writer) => self.finish_file(writer),
        }
    }

    fn finish_inline(mut self) -> Result<Prepared, StoreError> {
        let Pending::Small(bytes) = std::mem::replace(&mut self.pending, Pending::Small(Vec::new())) else {
            return Err(StoreError::Corrupt { version: self.value.version, what: "a small value has no bytes in memory".into() });
        };
        self.hasher.update(&bytes);
        let tree = std::mem::take(&mut self.hasher).finish();
        self.enter(&tree, Place::Inline, Some(bytes)).map(|(prepared, _)| prepared)
    }

    fn finish_file(mut self, writer: BlobWriter) -> Result<Prepared, StoreError> {
        self.writer = Some(writer);
        if self.pending.filled() == BUFFER_BYTES {
            self.write_out()?;
        }
        self.hasher.update(self.pending.bytes());
        let tree = std::mem::take(&mut self.hasher).finish();
        let footer = self.footer(&tree).encode()?;
        let file_len = tree.len + footer.len() as u64;
        self.reserve_file(file_len)?;
        let mut rest = &footer[..];
        while !rest.is_empty() {
            if self.pending.filled() == BUFFER_BYTES {
                self.write_block()?;
            }
            rest = self.pending.fill(rest);
        }
        self.write_block()?;

        let path = self.store.dirs.path_for(self.value.version)?;
        let Some(writer) = self.writer.take() else {
            return Err(StoreError::Corrupt { version: self.value.version, what: "its file is gone".into() });
        };
        match writer.publish(&path) {
            // The same version is here: an earlier attempt got this far.
            Err(e) if e.is_exists() => return self.compare_with_present(&tree),
            other => {
                let unsure = Unsure::after(&other, path);
                other?;
                let (prepared, is_new) = self.enter(&tree, Place::File { file_len }, None)?;
                if is_new {
                    unsure.keep();
                }
                Ok(prepared)
            }
        }
    }

    /// Adds the entry to the index. Returns whether it is a new one.
    fn enter(&self, tree: &TreeHash, place: Place, inline: Option<Vec<u8>>) -> Result<(Prepared, bool), StoreError> {
        let v = &self.value;
        let record = ValueRecord {
            len: tree.len,
            hash: tree.root,
            place,
            content_type: v.content_type.clone(),
            modified: UnixMillis(v.version.unix_millis()),
            expires: v.expires,
            commit_by: v.commit_by,
            replicas: v.replicas.clone(),
            seq: None,
        };
        let prepared = Prepared { len: tree.len, hash: tree.root };
        match self.store.index.put(&v.key, v.version, record, inline)? {
            Outcome::Present(there) if there.len == tree.len && there.hash == tree.root => Ok((prepared, false)),
            Outcome::Present(_) | Outcome::Deleted => Err(StoreError::VersionUsed { version: v.version }),
            _ => Ok((prepared, true)),
        }
    }

    /// The same bytes under the same version again are the same value.
    fn compare_with_present(&self, tree: &TreeHash) -> Result<Prepared, StoreError> {
        let v = &self.value;
        match self.store.value_record(&v.key, v.version)? {
            Some(there) if there.len == tree.len && there.hash == tree.root => Ok(Prepared { len: tree.len, hash: tree.root }),
            _ => Err(StoreError::VersionUsed { version: v.version }),
        }
    }

    fn footer(&self, tree: &TreeHash) -> Footer {
        let v = &self.value;
        Footer {
            key: v.key.clone(),
            version: v.version,
            len: tree.len,
            hash: tree.root,
            content_type: v.content_type.clone(),
            modified: UnixMillis(v.version.unix_millis()),
            expires: v.expires,
            commit_by: v.commit_by,
            replicas: v.replicas.clone(),
            subtrees: tree.subtrees.clone(),
        }
    }

    fn start_file_of_unknown_length(&mut self) -> Result<(), StoreError> {
        let step = FIRST_STEP_BYTES.min(self.value.max_len.saturating_add(max_overhead(self.value.max_len)));
        self.reservation = self.store.space.reserve(step)?;
        self.start_file(step)
    }

    /// Makes the temporary file and reserves `bytes` in it, which are promised already.
    fn start_file(&mut self, bytes: u64) -> Result<(), StoreError> {
        let mut buffer = self.store.buffers.take();
        let arrived = self.pending.bytes();
        debug_assert!(arrived.len() as u64 <= MAX_INLINE_VALUE_BYTES, "more would not fit a buffer");
        buffer.bytes_mut()[..arrived.len()].copy_from_slice(arrived);
        self.pending = Pending::Large(buffer, arrived.len());

        let n = self.store.temporary.fetch_add(1, Ordering::Relaxed);
        let path: PathBuf = self.store.tmp.join(format!("{}-{n}", self.value.version));
        let mut writer = BlobWriter::create(path, self.store.options.direct_io)?;
        let reserved = writer.reserve(bytes);
        self.writer = Some(writer);
        self.took_room(reserved, bytes)
    }

    /// Reserves up to `bytes` in the file, where that is not done.
    fn reserve_file(&mut self, bytes: u64) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let Some(more) = bytes.checked_sub(writer.reserved()).filter(|more| *more > 0) else { return Ok(()) };
        // Where the file system cannot reserve, the promise of the whole is kept to the end.
        let promise = self.store.space.reserve(more)?;
        let reserved = writer.reserve(bytes);
        if writer.reserved() == bytes {
            self.reservation = promise;
        }
        self.took_room(reserved, more)
    }

    fn took_room(&mut self, reserved: Result<bool, crate::disk::DiskError>, need: u64) -> Result<(), StoreError> {
        match reserved {
            Ok(true) => self.reservation.settle(),
            Ok(false) => {}
            Err(e) if e.is_no_space() => {
                let free = self.store.space.total_and_free()?.1;
                return Err(StoreError::NoSpace { need, free });
            }
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Hashes and writes a full buffer, and reserves the next step where the length is not known.
    fn write_out(&mut self) -> Result<(), StoreError> {
        let written = self.hasher.len();
        self.hasher.update(self.pending.bytes());
        if self.value.len.is_none() {
            let need = written + BUFFER_BYTES as u64;
            if self.writer.as_ref().is_some_and(|w| w.reserved() < need) {
                let step = need.clamp(FIRST_STEP_BYTES, MAX_STEP_BYTES);
                let most = self.value.max_len.saturating_add(max_overhead(self.value.max_len));
                self.reserve_file(need.saturating_add(step).min(most.max(need)))?;
            }
        }
        self.write_block()
    }

    /// Writes what is in the buffer and empties it.
    fn write_block(&mut self) -> Result<(), StoreError> {
        let (Pending::Large(buffer, filled), Some(writer)) = (&mut self.pending, &mut self.writer) else { return Ok(()) };
        let padded = filled.next_multiple_of(BLOCK_BYTES);
        buffer.bytes_mut()[*filled..padded].fill(0);
        writer.write(&buffer.bytes()[..*filled], &buffer.bytes()[..padded])?;
        *filled = 0;
        Ok(())
    }
}

impl Pending {
    fn filled(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(_, filled) => *filled,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(buffer, filled) => &buffer.bytes()[..*filled],
        }
    }

    /// Copies as much as fits into a buffer; what does not comes back.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Small(small) => {
                small.extend_from_slice(bytes);
                &[]
            }
            Self::Large(buffer, filled) => {
                let (now, rest) = bytes.split_at(bytes.len().min(BUFFER_BYTES - *filled));
                buffer.bytes_mut()[*filled..*filled + now.len()].copy_from_slice(now);
                *filled += now.len();
                rest
            }
        }
    }
}

/// A blob file that has its name and no entry yet. Dropping it removes the file.
struct Unsure(Option<PathBuf>);

impl Unsure {
    /// A failed sync may leave either name; other errors leave the temporary one, which its writer removes.
    fn after(published: &Result<(), crate::disk::DiskError>, path: PathBuf) -> Self {
        let has_name = published.as_ref().map_or_else(|e| e.op == crate::disk::Op::Sync, |()| true);
        Self(has_name.then_some(path))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unsure {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = crate::disk::remove_if_there(path)
        {
            tracing::warn!(%error, "a copy without an entry stays until the next start");
        }
    }
}
