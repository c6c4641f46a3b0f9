//! Checking what is at rest, a step at a time: all of a copy, from the disk, against its hash and the index.

use super::error::{ReadError, StoreError};
use super::stored::agrees;
use super::{Inner, Store};
use crate::disk::{self, AlignedBuffer, BUFFER_BYTES, BufferPool, Context as _, DiskReader, Op};
use crate::format::blob::{Footer, Layout, TAIL_BYTES};
use crate::format::record::Place;
use bytes::Bytes;
use kvdb_protocol::message::ValueEntry;
use kvdb_protocol::tree::TreeHasher;
use kvdb_protocol::{ContentHash, Key, VersionId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A file without an entry that is younger may be a value on its way in, or out.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// One copy under check. It holds one buffer, and a footer as far as that is read.
pub struct Check {
    entry: ValueEntry,
    source: Source,
}

enum Source {
    Inline(Bytes),
    File(Box<FileSource>),
}

struct FileSource {
    reader: DiskReader,
    buffer: AlignedBuffer,
    at: u64,
    hasher: TreeHasher,
    footer: Vec<u8>,
}

/// What a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes that were read.
    pub bytes: u64,
    /// All was read, and all is right.
    pub done: bool,
}

impl Store {
    /// Memory for one read that is checked.
    pub(crate) fn buffer(&self) -> AlignedBuffer {
        self.inner.buffers.take()
    }

    /// Begins to check a copy. None: it is not here.
    ///
    /// # Errors
    /// It is damaged or missing, or cannot be read.
    pub fn check(&self, key: &Key, version: VersionId) -> Result<Option<Check>, StoreError> {
        self.inner.check(key, version)
    }

    /// Whether a value is here, by the index.
    ///
    /// # Errors
    /// The index failed.
    pub fn is_here(&self, key: &Key, version: VersionId) -> Result<bool, StoreError> {
        Ok(self.inner.value_record(key, version)?.is_some())
    }

    /// Blob files that have been in no index for a while. They are told and left alone: the next start takes them in
    /// or removes them, and does so while nothing else is at work. `stop` ends the search early.
    ///
    /// # Errors
    /// A directory cannot be listed, or the index failed.
    pub fn orphans(&self, stop: impl Fn() -> bool) -> Result<Vec<VersionId>, StoreError> {
        let Inner { blobs, index, .. } = &*self.inner;
        let mut orphans = Vec::new();
        for dir in disk::blob_dirs(blobs)? {
            if stop() {
                break;
            }
            for version in disk::list_blobs(blobs, dir)? {
                if !index.has_blob(version)? && is_old(&disk::blob_path(blobs, version))? {
                    orphans.push(version);
                }
            }
        }
        Ok(orphans)
    }
}

fn is_old(path: &std::path::Path) -> Result<bool, disk::DiskError> {
    match path.symlink_metadata().and_then(|m| m.modified()) {
        // A time in the future is no reason to wait.
        Ok(modified) => Ok(modified.elapsed().map_or(true, |age| age >= ORPHAN_AGE)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at(Op::Stat, path),
    }
}

impl Inner {
    fn check(&self, key: &Key, version: VersionId) -> Result<Option<Check>, StoreError> {
        let Some(record) = self.value_record(key, version)? else { return Ok(None) };
        let begun = match record.place {
            Place::Inline => match self.index.inline(key, version)? {
                Some(bytes) => Ok(Check { entry: record.into_entry(key.clone(), version), source: Source::Inline(bytes) }),
                None => Err(StoreError::Corrupt { version, what: "its bytes are not in the index".into() }),
            },
            Place::File { file_len } => {
                let path = disk::blob_path(&self.blobs, version);
                Check::file(record.into_entry(key.clone(), version), path, file_len, &self.buffers)
            }
        };
        match begun {
            // It may have been removed between the look-up and the opening.
            Err(StoreError::Corrupt { .. }) if self.value_record(key, version)?.is_none() => Ok(None),
            begun => begun.map(Some),
        }
    }
}

impl Check {
    fn file(entry: ValueEntry, path: PathBuf, file_len: u64, buffers: &Arc<BufferPool>) -> Result<Self, StoreError> {
        let corrupt = |what: String| StoreError::Corrupt { version: entry.version, what };
        let reader = match DiskReader::open(path) {
            Err(e) if e.is_not_found() => return Err(corrupt("its file is missing".into())),
            other => other?,
        };
        if reader.len() != file_len {
            return Err(corrupt(format!("its file has {} bytes where it had {file_len}", reader.len())));
        }
        let source = FileSource { reader, buffer: buffers.take(), at: 0, hasher: TreeHasher::new(), footer: Vec::new() };
        Ok(Self { entry, source: Source::File(Box::new(source)) })
    }

    /// Reads and checks the next part, of at most 1 MiB.
    ///
    /// # Errors
    /// The copy is damaged, or cannot be read.
    pub fn step(&mut self) -> Result<Step, ReadError> {
        let version = self.entry.version;
        let corrupt = |place: String| ReadError::Corrupt { version, place };
        match &mut self.source {
            Source::Inline(bytes) => {
                if bytes.len() as u64 != self.entry.len || ContentHash::of(bytes) != self.entry.hash {
                    return Err(corrupt("its bytes in the index".into()));
                }
                Ok(Step { bytes: self.entry.len, done: true })
            }
            Source::File(file) => {
                let bytes = file.advance(self.entry.len).map_err(|e| match e {
                    Fault::Short(at) => corrupt(format!("byte {at} and on: the file is cut short")),
                    Fault::Io(e) => e.into(),
                })?;
                let done = file.at >= file.reader.len();
                if done {
                    file.compare(&self.entry).map_err(corrupt)?;
                }
                Ok(Step { bytes, done })
            }
        }
    }
}

enum Fault {
    Short(u64),
    Io(disk::DiskError),
}

impl FileSource {
    fn advance(&mut self, content_len: u64) -> Result<u64, Fault> {
        let n = self.reader.read(&mut self.buffer, self.at).map_err(Fault::Io)?;
        let expected = (self.reader.len() - self.at).min(BUFFER_BYTES as u64);
        if n as u64 != expected {
            return Err(Fault::Short(self.at + n as u64));
        }
        let content = content_len.saturating_sub(self.at).min(expected);
        let (content, footer) = self.buffer.bytes()[..n].split_at(usize::try_from(content).unwrap_or(n));
        self.hasher.update(content);
        self.footer.extend_from_slice(footer);
        self.at += expected;
        Ok(expected)
    }

    /// All was read: the footer against its checksum, the index and the content; the content against its hash.
    fn compare(&mut self, entry: &ValueEntry) -> Result<(), String> {
        let tree = std::mem::take(&mut self.hasher).finish();
        if (tree.len, tree.root) != (entry.len, entry.hash) {
            return Err("its content".into());
        }
        let (footer, tail) = self.footer.split_last_chunk::<TAIL_BYTES>().ok_or("its end, which is gone")?;
        let layout = Layout::parse(self.reader.len(), *tail).map_err(|e| format!("the footer: {e}"))?;
        let footer = Footer::parse(&layout, footer).map_err(|e| format!("the footer: {e}"))?;
        if !agrees(&footer, entry) {
            return Err("the footer, which differs from the index".into());
        }
        if footer.subtrees != tree.subtrees {
            return Err("the chaining values, which are not the content's".into());
        }
        Ok(())
    }
}
