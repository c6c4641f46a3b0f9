//! The file that a download is made in: `FILE.kvdb-part`, beside the file that it will be.
//!
//! It holds nothing but bytes of the value, at their places. What of it is right is found by hashing it when a download
//! goes on, so it may be of any age, of another version, or torn by a power cut.

use super::fetch::Sink;
use super::pinned::Pinned;
use crate::error::Error;
use crate::file::{put_in_place, resolve};
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_protocol::tree::{subtree_count, subtree_range, verify_subtree};
use rustix::fs::{OFlags, SeekFrom};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// What is added to the file's name.
const SUFFIX: &str = ".kvdb-part";
/// How often it is opened again because another download took it away.
const MAX_TRIES: u32 = 16;

/// Where [`Client::download`](crate::Client::download) keeps what it received for this file until all is there.
pub fn part_path(target: &Path) -> io::Result<PathBuf> {
    places(target).map(|(path, ..)| path)
}

/// The file of parts, the file that it will be, and that one's permissions if it is there.
fn places(target: &Path) -> io::Result<(PathBuf, PathBuf, Option<Permissions>)> {
    let (target, permissions) = resolve(target)?;
    let mut name = target.file_name().map(OsString::from).ok_or_else(|| invalid("it names no file"))?;
    name.push(SUFFIX);
    Ok((target.with_file_name(name), target, permissions))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// An open one, which no other process of ours writes to.
pub(super) struct PartFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    permissions: Option<Permissions>,
    /// Whether nothing may be written any more.
    closed: RwLock<bool>,
}

impl PartFile {
    /// Opens it, or makes it, `len` bytes long.
    pub(super) fn open(target: &Path, len: u64) -> io::Result<Self> {
        let (path, target, permissions) = places(target)?;
        for _ in 0..MAX_TRIES {
            // In a directory that others can write to, it might lead elsewhere or be theirs.
            let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(&path)?;
            let meta = file.metadata()?;
            if !meta.is_file() || meta.nlink() > 1 || meta.uid() != rustix::process::geteuid().as_raw() {
                return Err(invalid(&format!("{} is in the way and was not left by a download; remove it", path.display())));
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(invalid("another download into it is under way")),
                Err(TryLockError::Error(e)) => return Err(e),
            }
            // Until it was locked, another download may have finished it, and it is the target by now.
            if std::fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino())) {
                file.set_len(len)?;
                return Ok(Self { file, path, target, permissions, closed: RwLock::new(false) });
            }
        }
        Err(invalid("other downloads into it come and go"))
    }

    /// The runs of subtrees that are not right yet.
    pub(super) fn missing(&self, pinned: &Pinned) -> io::Result<Vec<Range<u64>>> {
        let (info, mut missing) = (&pinned.info, Vec::<Range<u64>>::new());
        let (mut buffer, mut data) = (Vec::new(), 0..0);
        for index in 0..subtree_count(info.len) {
            let range = subtree_range(info.len, index).unwrap_or_default();
            // Holes need no reading: nothing was ever written there.
            if data.end <= range.start {
                data = self.data_after(range.start, info.len)?;
            }
            let right = data.start < range.end && {
                buffer.resize(usize::try_from(range.end - range.start).unwrap_or_default(), 0);
                self.file.read_exact_at(&mut buffer, range.start)?;
                verify_subtree(info.len, &info.etag, &pinned.subtrees, index, &buffer)
            };
            match missing.last_mut() {
                _ if right => {}
                Some(last) if last.end == index => last.end += 1,
                _ => missing.push(index..index + 1),
            }
        }
        Ok(missing)
    }

    /// The first run of data that ends after `at`; where the file system does not tell, all of the file.
    fn data_after(&self, at: u64, len: u64) -> io::Result<Range<u64>> {
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(len..u64::MAX),
            Err(rustix::io::Errno::INVAL) => return Ok(0..len),
            Err(e) => return Err(e.into()),
        };
        Ok(start..rustix::fs::seek(&self.file, SeekFrom::Hole(start))?)
    }

    /// All of it is right: it becomes the target.
    pub(super) fn finish(&self) -> io::Result<()> {
        if let Some(p) = &self.permissions {
            self.file.set_permissions(p.clone())?;
        }
        put_in_place(&self.file, &self.path, &self.target)
    }

    /// Waits for writes under way, and lets no more pass.
    pub(super) fn close(&self) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Removes it.
    pub(super) fn discard(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was received; remove it by hand");
        }
    }
}

impl Sink for PartFile {
    fn take(&self, offset: u64, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        let written = if *closed { Err(io::Error::other("the download is over")) } else { self.file.write_all_at(&bytes, offset) };
        written.map(|()| bytes).map_err(|error| Error::Target { path: self.path.clone(), error })
    }
}

/// Bytes in these runs of subtrees of a value of `len` bytes.
pub(super) fn bytes_of(runs: &[Range<u64>], len: u64) -> u64 {
    runs.iter().map(|r| (r.end * SUBTREE_BYTES).min(len) - (r.start * SUBTREE_BYTES).min(len)).sum()
}

/// Cuts runs into parts of at most `most` subtrees.
pub(super) fn parts(runs: Vec<Range<u64>>, most: u64) -> impl Iterator<Item = Range<u64>> {
    runs.into_iter().flat_map(move |run| {
        let starts = run.clone().step_by(usize::try_from(most).unwrap_or(usize::MAX));
        starts.map(move |start| start..run.end.min(start.saturating_add(most)))
    })
}
