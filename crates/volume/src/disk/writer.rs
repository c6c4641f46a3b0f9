//! Writes one new file front to back: around the page cache where the file system takes that, else
//! through it with early write-back.

use super::writers::Seat;
use super::{AlignedBuffer, BLOCK_BYTES, Context, DiskError, Existing, Op, create_new, publish};
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, TryRecvError};

/// Readable by the owner and its group.
const FILE_MODE: u32 = 0o640;

/// A file that is being written. Dropping it before [`BlobWriter::keep`] removes it, under whatever name it has.
pub struct BlobWriter {
    target: Arc<Target>,
    path: PathBuf,
    /// Up to where space is reserved.
    reserved: u64,
    /// Up to where it is written, or being written.
    written: u64,
    /// What becomes of the blocks that other threads write.
    in_flight: VecDeque<Receiver<Result<(), DiskError>>>,
    keep: bool,
}

/// What several threads write to, each elsewhere.
struct Target {
    file: File,
    /// Its first name.
    path: PathBuf,
    direct: AtomicBool,
}

impl BlobWriter {
    /// Makes the file `path`, which must not exist.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: PathBuf, direct: bool) -> Result<Self, DiskError> {
        let file = create_new(&path, FILE_MODE)?;
        // Set afterwards: an open that is refused because of the flag could leave an empty file behind.
        let direct = direct && set_direct(&file, true).is_ok();
        let target = Arc::new(Target { file, path: path.clone(), direct: AtomicBool::new(direct) });
        Ok(Self { target, path, reserved: 0, written: 0, in_flight: VecDeque::new(), keep: false })
    }

    /// Reserves space up to `bytes` from the start. Returns whether the file system did so; where it
    /// has no such call, nothing is reserved.
    ///
    /// The file's length grows with it, so that the writes that follow need not change it one by one;
    /// [`BlobWriter::publish`] sets the true length.
    ///
    /// # Errors
    /// There is no room.
    pub fn reserve(&mut self, bytes: u64) -> Result<bool, DiskError> {
        let Some(more) = bytes.checked_sub(self.reserved).and_then(NonZeroU64::new) else { return Ok(true) };
        loop {
            match rustix::fs::fallocate(&self.target.file, FallocateFlags::empty(), self.reserved, more.get()) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(e) => return Err(e).at(Op::Reserve, &self.path),
            }
        }
        self.reserved = bytes;
        Ok(true)
    }

    /// Bytes written so far: the file's length once it is published.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes `block` at the end. All calls but the last give a multiple of [`BLOCK_BYTES`]; `padded` is
    /// `block` with what follows it in memory, up to such a multiple: writes around the page cache write
    /// that, and the surplus is cut off when the file is published.
    ///
    /// # Errors
    /// The disk is full or failing; the file is then useless.
    pub fn write(&mut self, block: &[u8], padded: &[u8]) -> Result<(), DiskError> {
        self.target.write(block, padded, self.written)?;
        self.written += block.len() as u64;
        Ok(())
    }

    /// Has another thread write the whole buffer at the end, and leaves another one in its place.
    ///
    /// # Errors
    /// As of [`BlobWriter::write`], of a write before.
    pub fn write_beside(&mut self, buffer: &mut AlignedBuffer, seat: Seat<'_>) -> Result<(), DiskError> {
        self.reap()?;
        let (full, target, at) = (buffer.exchange(), Arc::clone(&self.target), self.written);
        let (answer, outcome) = mpsc::sync_channel(1);
        self.written += full.bytes().len() as u64;
        self.in_flight.push_back(outcome);
        seat.run(move || {
            let written = target.write(full.bytes(), full.bytes(), at);
            // Before the answer: who has that may count on the memory being free again.
            drop((full, target));
            // It is there until the file is published or given up.
            let _ = answer.send(written);
        });
        Ok(())
    }

    /// Takes note of the writes that are done.
    fn reap(&mut self) -> Result<(), DiskError> {
        while let Some(first) = self.in_flight.front() {
            match first.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                done => {
                    self.in_flight.pop_front();
                    done.unwrap_or_else(|_| Err(writer_died()).at(Op::Write, &self.path))?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the writes in flight.
    fn settle(&mut self) -> Result<(), DiskError> {
        let outcomes = self.in_flight.drain(..).map(|o| o.recv().unwrap_or_else(|_| Err(writer_died()).at(Op::Write, &self.path)));
        // To the last, whatever becomes of the first.
        outcomes.fold(Ok(()), Result::and)
    }

    /// Cuts the file to what was written and gives it its name, durably. See [`publish`].
    ///
    /// # Errors
    /// The disk is full or failing, or `to` exists, which is then left as it is.
    pub fn publish(&mut self, to: &Path) -> Result<(), DiskError> {
        self.settle()?;
        self.target.file.set_len(self.written).at(Op::Truncate, &self.path)?;
        let published = publish(&self.target.file, &self.path, to, Existing::Keep);
        if published.as_ref().err().is_none_or(|e| e.op == Op::SyncDir) {
            self.path = to.to_path_buf();
        }
        published
    }

    /// Keeps the file.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Its space is free only when nobody writes to it any more.
        let _ = self.settle();
        if !self.keep
            && let Err(error) = super::remove_if_there(&self.path)
        {
            tracing::warn!(%error, "a file of no value stays until the next start");
        }
    }
}

impl Target {
    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// As [`BlobWriter::write`], at `offset`.
    fn write(&self, block: &[u8], padded: &[u8], offset: u64) -> Result<(), DiskError> {
        debug_assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "only the last block may be short");
        debug_assert!(padded.starts_with(block) && padded.len().is_multiple_of(BLOCK_BYTES));
        let mut done = 0;
        while done < block.len() {
            let direct = self.is_direct();
            let rest = if direct { &padded[done..] } else { &block[done..] };
            match self.file.write_at(rest, offset + done as u64) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)).at(Op::Write, &self.path),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The file system asks for another alignment, or stopped short at one: go on through the cache.
                Err(e) if direct && e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    set_direct(&self.file, false).at(Op::Write, &self.path)?;
                    self.direct.store(false, Ordering::Relaxed);
                }
                Err(e) => return Err(e).at(Op::Write, &self.path),
            }
        }
        if !self.is_direct() {
            // Starts write-back, so that the sync at the end is short. Only a hint: that sync is what counts.
            let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(block.len() as u64), Advice::DontNeed);
        }
        Ok(())
    }
}

fn writer_died() -> io::Error {
    io::Error::other("the thread that writes died")
}

pub(super) fn set_direct(file: &File, on: bool) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let flags = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BUFFER_BYTES, BufferPool, Writers};

    async fn write_through(direct: bool, len: usize, writers: &Writers) {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let mut w = BlobWriter::create(dir.path().join("from"), direct).unwrap();
        w.reserve(len as u64 + 3).unwrap();
        let pool = Arc::new(BufferPool::default());
        let mut buffer = pool.take();
        let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
        for part in bytes.chunks(BUFFER_BYTES) {
            buffer.bytes_mut()[..part.len()].copy_from_slice(part);
            if part.len() == BUFFER_BYTES {
                w.write_beside(&mut buffer, writers.seat().await.unwrap()).unwrap();
            } else {
                w.write(&buffer.bytes()[..part.len()], &buffer.bytes()[..part.len().next_multiple_of(BLOCK_BYTES)]).unwrap();
            }
        }
        w.publish(&to).unwrap();
        w.keep();
        assert!(std::fs::read(&to).unwrap() == bytes, "{len} bytes, direct {direct}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn files_have_the_length_and_bytes_that_were_written() {
        let writers = Writers::start().unwrap();
        for direct in [true, false] {
            for len in [0, 1, 4095, 4096, 4097, BUFFER_BYTES, BUFFER_BYTES + 1, 12 * BUFFER_BYTES + 5] {
                write_through(direct, len, &writers).await;
            }
        }
    }

    #[test]
    fn a_write_of_another_thread_that_fails_fails_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (writers, mut buffer) = (Writers::start().unwrap(), Arc::new(BufferPool::default()).take());
        let mut w = BlobWriter::create(dir.path().join("from"), true).unwrap();
        // For reading only.
        let file = File::open(&w.path).unwrap();
        w.target = Arc::new(Target { file, path: w.path.clone(), direct: AtomicBool::new(true) });
        w.write_beside(&mut buffer, writers.idle_seat().unwrap()).unwrap();
        assert_eq!(w.publish(&dir.path().join("to")).unwrap_err().op, Op::Write);
        drop(w);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_kept_is_gone_and_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let create = || BlobWriter::create(dir.path().join("from"), true).unwrap();
        let mut w = create();
        w.reserve(1 << 20).unwrap();
        drop(w);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut w = create();
        w.publish(&dir.path().join("to")).unwrap();
        drop(w);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        std::fs::write(dir.path().join("to"), b"another's").unwrap();
        let mut w = create();
        assert!(w.publish(&dir.path().join("to")).unwrap_err().is_exists());
        drop(w);
        assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), b"another's");
    }
}
