//! The file of a value on its way in: a buffer is filled, hashed, and written while the next one is filled.

use super::error::StoreError;
use super::space::{Reservation, Space};
use crate::disk::{AlignedBuffer, BLOCK_BYTES, BUFFER_BYTES, BlobWriter, BufferPool, DiskError, LAST_WRITE_BYTES, Seat};
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_protocol::tree::TreeHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Least and most by which the room of a value of unknown length grows at a time, in bytes.
const MIN_STEP_BYTES: u64 = 8 << 20;
const MAX_STEP_BYTES: u64 = 128 << 20;

/// A file with its buffer and its room.
pub struct FileSink {
    path: PathBuf,
    direct: bool,
    /// None until it is made.
    writer: Option<BlobWriter>,
    buffer: AlignedBuffer,
    /// Bytes of the buffer that are not written yet.
    filled: usize,
    /// Those of them that are hashed.
    hashed: usize,
    space: Arc<Space>,
    /// What is promised to it and not yet taken on the file system.
    promise: Reservation,
    /// Up to where room is promised or taken, in bytes of the file.
    room_to: u64,
    /// Bytes of the value that are counted against the capacity.
    counted: u64,
}

impl FileSink {
    /// Makes the file, with room for `room` bytes, for a value of at least `len`. Without room there is no trace of it.
    pub fn create(
        path: PathBuf,
        direct: bool,
        room: u64,
        len: u64,
        space: &Arc<Space>,
        buffers: &Arc<BufferPool>,
    ) -> Result<Self, StoreError> {
        let mut sink = Self::gather(path, direct, room, len, space, buffers)?;
        sink.take_room(room)?;
        Ok(sink)
    }

    /// The same for a value that fits in a buffer, without a call that waits for the disk: the file is made when it is complete.
    pub fn gather(
        path: PathBuf,
        direct: bool,
        room: u64,
        len: u64,
        space: &Arc<Space>,
        buffers: &Arc<BufferPool>,
    ) -> Result<Self, StoreError> {
        let promise = space.reserve(room, len)?;
        let (buffer, space) = (buffers.take(), Arc::clone(space));
        Ok(Self { path, direct, writer: None, buffer, filled: 0, hashed: 0, space, promise, room_to: 0, counted: len })
    }

    /// What waits to be hashed.
    pub fn waiting(&self) -> &[u8] {
        &self.buffer.bytes()[self.hashed..self.filled]
    }

    /// Whether it has room for so many bytes of the file, or never writes but at its end.
    pub fn has_room(&self, bytes: u64) -> bool {
        bytes <= self.room_to.max(BUFFER_BYTES as u64)
    }

    /// Takes content until the buffer is full; what is left comes back, for after [`FileSink::write_full`].
    pub fn take<'a>(&mut self, bytes: &'a [u8], hasher: &mut TreeHasher) -> &'a [u8] {
        let rest = self.fill(bytes, BUFFER_BYTES);
        // Whole subtrees, while they are in the processor's cache.
        let whole = self.filled - self.filled % SUBTREE_BYTES as usize;
        hasher.update(&self.buffer.bytes()[self.hashed..whole]);
        self.hashed = whole;
        rest
    }

    /// Writes the full buffer; more will come. Without a seat it waits for the disk.
    pub fn write_full(&mut self, seat: Option<Seat<'_>>, hashed: u64) -> Result<(), StoreError> {
        debug_assert_eq!((self.filled, self.hashed), (BUFFER_BYTES, BUFFER_BYTES));
        self.count(hashed)?;
        if hashed > self.room_to {
            // As much again as there is, so that a long value asks seldom and a short one takes little.
            self.ensure_room(hashed + hashed.clamp(MIN_STEP_BYTES, MAX_STEP_BYTES))?;
        }
        let writer = writer(&mut self.writer, &self.path, self.direct)?;
        match seat {
            Some(seat) => writer.write_beside(&mut self.buffer, seat)?,
            None => writer.write(self.buffer.bytes(), self.buffer.bytes())?,
        }
        (self.filled, self.hashed) = (0, 0);
        Ok(())
    }

    /// Writes what waits with the footer after it, and gives the file out to be published, with what is to be kept until it
    /// is in the index. `content_len` is the length of all content, which is hashed already.
    pub fn end(mut self, content_len: u64, footer: &[u8]) -> Result<(BlobWriter, Reservation), StoreError> {
        self.count(content_len)?;
        let file_len = content_len + footer.len() as u64;
        // A file that is made now is written at one go, and takes its room with that.
        if self.writer.is_some() {
            self.ensure_room(file_len)?;
        }
        let mut rest = self.fill(footer, LAST_WRITE_BYTES);
        while !rest.is_empty() {
            self.write()?;
            rest = self.fill(rest, LAST_WRITE_BYTES);
        }
        self.write()?;
        let Self { path, direct, writer, promise, .. } = self;
        let writer = match writer {
            Some(writer) => writer,
            None => BlobWriter::create(path, direct)?,
        };
        debug_assert_eq!(writer.written(), file_len);
        Ok((writer, promise))
    }

    /// Copies as much as fits into so much of the buffer; what does not comes back.
    fn fill<'a>(&mut self, bytes: &'a [u8], size: usize) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(size - self.filled));
        self.buffer.with_room_mut()[self.filled..self.filled + now.len()].copy_from_slice(now);
        self.filled += now.len();
        rest
    }

    /// Writes what is in the buffer and empties it.
    fn write(&mut self) -> Result<(), StoreError> {
        let padded = self.filled.next_multiple_of(BLOCK_BYTES);
        self.buffer.with_room_mut()[self.filled..padded].fill(0);
        let filled = std::mem::take(&mut self.filled);
        let writer = writer(&mut self.writer, &self.path, self.direct)?;
        Ok(writer.write(&self.buffer.with_room()[..filled], &self.buffer.with_room()[..padded])?)
    }

    /// Counts `len` bytes of the value against the capacity, or fails.
    fn count(&mut self, len: u64) -> Result<(), StoreError> {
        if len > self.counted {
            self.promise.add(self.space.reserve(0, len - self.counted)?);
            self.counted = len;
        }
        Ok(())
    }

    /// Has room for `bytes` of the file, or fails.
    fn ensure_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        if bytes > self.room_to {
            self.promise.add(self.space.reserve(bytes - self.room_to, 0)?);
            self.take_room(bytes)?;
        }
        Ok(())
    }

    /// Takes what is promised on the file system, up to `bytes` of the file. Where the file system cannot
    /// do that, the promise stands until the file is written.
    fn take_room(&mut self, bytes: u64) -> Result<(), StoreError> {
        let need = bytes.saturating_sub(self.room_to);
        match writer(&mut self.writer, &self.path, self.direct)?.reserve(bytes) {
            Ok(true) => self.promise.settle(),
            Ok(false) => {}
            Err(e) if e.is_no_space() => {
                let free = self.space.total_and_free()?.1;
                return Err(StoreError::NoSpace { need, free });
            }
            Err(e) => return Err(e.into()),
        }
        self.room_to = bytes;
        Ok(())
    }
}

/// The file, made when it is first needed.
fn writer<'a>(slot: &'a mut Option<BlobWriter>, path: &Path, direct: bool) -> Result<&'a mut BlobWriter, DiskError> {
    match slot {
        Some(writer) => Ok(writer),
        none => Ok(none.insert(BlobWriter::create(path.to_path_buf(), direct)?)),
    }
}
