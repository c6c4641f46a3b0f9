//! Writes one new file front to back: around the page cache where the file system takes that, else
//! through it with early write-back.

use super::{BLOCK_BYTES, Context, DiskError, Existing, Op, create_new, publish};
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// In buffered writes: how much is handed to the disk at a time, so that the final sync is short, in bytes.
const WRITE_BACK_BYTES: u64 = 8 << 20;
/// Readable by the owner and its group.
const FILE_MODE: u32 = 0o640;

/// A file that is being written. Dropping it before [`BlobWriter::keep`] removes it, under whatever name it has.
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    direct: bool,
    /// Up to where space is reserved.
    reserved: u64,
    /// Up to where it is written.
    written: u64,
    /// Up to where buffered writes were handed to the disk.
    handed_over: u64,
    keep: bool,
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
        Ok(Self { file, path, direct, reserved: 0, written: 0, handed_over: 0, keep: false })
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
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), self.reserved, more.get()) {
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
        debug_assert!(self.written.is_multiple_of(BLOCK_BYTES as u64), "only the last block may be short");
        debug_assert!(padded.starts_with(block) && padded.len().is_multiple_of(BLOCK_BYTES));
        let mut done = 0;
        while done < block.len() {
            let rest = if self.direct { &padded[done..] } else { &block[done..] };
            match self.file.write_at(rest, self.written + done as u64) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)).at(Op::Write, &self.path),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The file system asks for another alignment, or stopped short at one: go on through the cache.
                Err(e) if self.direct && e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    set_direct(&self.file, false).at(Op::Write, &self.path)?;
                    self.direct = false;
                    self.handed_over = self.written;
                }
                Err(e) => return Err(e).at(Op::Write, &self.path),
            }
        }
        self.written += block.len() as u64;
        self.hand_over();
        Ok(())
    }

    /// Starts write-back of what lies in the page cache. Only a hint: the sync at the end is what counts.
    fn hand_over(&mut self) {
        if !self.direct && self.written - self.handed_over >= WRITE_BACK_BYTES {
            let len = NonZeroU64::new(self.written - self.handed_over);
            let _ = rustix::fs::fadvise(&self.file, self.handed_over, len, Advice::DontNeed);
            self.handed_over = self.written;
        }
    }

    /// Cuts the file to what was written and gives it its name, durably. See [`publish`].
    ///
    /// # Errors
    /// The disk is full or failing, or `to` exists, which is then left as it is.
    pub fn publish(&mut self, to: &Path) -> Result<(), DiskError> {
        self.file.set_len(self.written).at(Op::Truncate, &self.path)?;
        let published = publish(&self.file, &self.path, to, Existing::Keep);
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
        if !self.keep
            && let Err(error) = super::remove_if_there(&self.path)
        {
            tracing::warn!(%error, "a file of no value stays until the next start");
        }
    }
}

pub(super) fn set_direct(file: &File, on: bool) -> rustix::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let flags = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    rustix::fs::fcntl_setfl(file, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{BUFFER_BYTES, BufferPool};
    use std::sync::Arc;

    fn write_through(direct: bool, len: usize) {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let mut w = BlobWriter::create(dir.path().join("from"), direct).unwrap();
        w.reserve(len as u64 + 3).unwrap();
        let pool = Arc::new(BufferPool::default());
        let mut buffer = pool.take();
        let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
        for part in bytes.chunks(BUFFER_BYTES) {
            buffer.bytes_mut()[..part.len()].copy_from_slice(part);
            w.write(&buffer.bytes()[..part.len()], &buffer.bytes()[..part.len().next_multiple_of(BLOCK_BYTES)]).unwrap();
        }
        w.publish(&to).unwrap();
        w.keep();
        assert!(std::fs::read(&to).unwrap() == bytes, "{len} bytes, direct {direct}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_have_the_length_and_bytes_that_were_written() {
        for direct in [true, false] {
            for len in [0, 1, 4095, 4096, 4097, BUFFER_BYTES, BUFFER_BYTES + 1, 12 * BUFFER_BYTES + 5] {
                write_through(direct, len);
            }
        }
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
