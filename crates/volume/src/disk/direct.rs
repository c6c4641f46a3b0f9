//! Reads a file from the disk itself: what the page cache holds is neither believed nor pushed out.

use super::writer::set_direct;
use super::{AlignedBuffer, BLOCK_BYTES, BUFFER_BYTES, Context, DiskError, Op, open_regular};
use rustix::fs::Advice;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// A file that is read around the page cache. Where the file system refuses that, its pages are dropped before
/// and after each read instead.
pub struct DiskReader {
    file: File,
    path: PathBuf,
    len: u64,
    direct: bool,
}

impl DiskReader {
    /// Opens a regular file.
    ///
    /// # Errors
    /// As of [`open_regular`].
    pub fn open(path: PathBuf) -> Result<Self, DiskError> {
        let file = open_regular(&path)?;
        let len = file.metadata().at(Op::Stat, &path)?.len();
        let direct = set_direct(&file, true).is_ok();
        Ok(Self { file, path, len, direct })
    }

    /// Its length when it was opened, in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills the buffer from `offset`, a multiple of [`BUFFER_BYTES`]. Returns the number of bytes; fewer than fit
    /// only at the file's end.
    ///
    /// # Errors
    /// The disk cannot be read there.
    pub fn read(&mut self, buffer: &mut AlignedBuffer, offset: u64) -> Result<usize, DiskError> {
        debug_assert!(offset.is_multiple_of(BUFFER_BYTES as u64));
        self.drop_cached(offset);
        let bytes = buffer.bytes_mut();
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    let at_end = offset + done as u64 >= self.len;
                    if self.direct && !n.is_multiple_of(BLOCK_BYTES) && !at_end {
                        self.give_up_direct(offset)?;
                    } else if at_end {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if self.direct && e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => self.give_up_direct(offset)?,
                Err(e) => return Err(e).at(Op::Read, &self.path),
            }
        }
        self.drop_cached(offset);
        Ok(done)
    }

    /// The file system asks for another alignment: on through the cache.
    fn give_up_direct(&mut self, offset: u64) -> Result<(), DiskError> {
        set_direct(&self.file, false).at(Op::Read, &self.path)?;
        self.direct = false;
        self.drop_cached(offset);
        Ok(())
    }

    /// Only a hint, and none is needed where the cache is not used.
    fn drop_cached(&self, offset: u64) {
        if !self.direct {
            let _ = rustix::fs::fadvise(&self.file, offset, NonZeroU64::new(BUFFER_BYTES as u64), Advice::DontNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::BufferPool;
    use std::sync::Arc;

    fn read_all(path: PathBuf, direct: bool) -> Vec<u8> {
        let mut reader = DiskReader::open(path).unwrap();
        if !direct {
            reader.give_up_direct(0).unwrap();
        }
        let mut buffer = Arc::new(BufferPool::default()).take();
        let mut all = Vec::new();
        while (all.len() as u64) < reader.len() {
            let n = reader.read(&mut buffer, all.len() as u64).unwrap();
            assert!(n > 0);
            all.extend_from_slice(&buffer.bytes()[..n]);
        }
        all
    }

    #[test]
    fn files_of_every_length_are_read_whole_with_and_without_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 4095, 4096, 4097, BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 3 * BUFFER_BYTES + 4097] {
            let path = dir.path().join(len.to_string());
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            for direct in [true, false] {
                assert!(read_all(path.clone(), direct) == bytes, "{len} bytes, direct {direct}");
            }
        }
    }
}
