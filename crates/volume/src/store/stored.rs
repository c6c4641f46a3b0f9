//! A value on its way out.

use super::error::{ReadError, StoreError};
use crate::checked::Changed;
use crate::disk::{self, AlignedBuffer, BUFFER_BYTES, Context as _, DiskError, Op};
use crate::format::blob::{Footer, Layout, TAIL_BYTES};
use crate::index::Small;
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_protocol::message::ValueEntry;
use kvdb_protocol::tree::{ChainingValue, root_of, subtree_count, subtree_range, verify_subtree};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A value that is open for reading. A removal or an overwrite afterwards does not disturb it.
pub struct Stored {
    /// What is known of it.
    pub entry: ValueEntry,
    source: Source,
}

enum Source {
    Inline {
        bytes: Bytes,
        /// Against the hash.
        checked: bool,
    },
    File {
        file: Arc<File>,
        path: PathBuf,
        file_len: u64,
        changed: Changed,
        /// Read and checked before the first subtree is; a reader that needs no check never reads them.
        subtrees: OnceLock<Vec<ChainingValue>>,
    },
}

impl Stored {
    pub(super) fn inline(entry: ValueEntry, bytes: Bytes) -> Result<Self, StoreError> {
        if bytes.len() as u64 != entry.len {
            return Err(StoreError::Corrupt {
                version: entry.version,
                what: format!("{} bytes of {} are in the index", bytes.len(), entry.len),
            });
        }
        Ok(Self { entry, source: Source::Inline { bytes, checked: false } })
    }

    pub(super) fn file(entry: ValueEntry, path: PathBuf, file_len: u64) -> Result<Self, StoreError> {
        let corrupt = |what: String| StoreError::Corrupt { version: entry.version, what };
        let file = match disk::open_regular(&path) {
            Err(e) if e.is_not_found() => return Err(corrupt("its file is missing".into())),
            other => other?,
        };
        let found = file.metadata().at(Op::Stat, &path)?;
        if found.len() != file_len {
            return Err(corrupt(format!("its file has {} bytes where it had {file_len}", found.len())));
        }
        // Only advice. Where it is not taken, more is read than was asked for, and checked when it is.
        let _ = disk::no_read_ahead(&file);
        let changed = (found.ctime(), found.ctime_nsec());
        Ok(Self { entry, source: Source::File { file: Arc::new(file), path, file_len, changed, subtrees: OnceLock::new() } })
    }

    /// Number of subtrees.
    pub fn subtree_count(&self) -> u64 {
        subtree_count(self.entry.len)
    }

    /// The file whose first `entry.len` bytes are the content, for a value that has one.
    ///
    /// What is read through it is not checked.
    pub fn content_file(&self) -> Option<&Arc<File>> {
        match &self.source {
            Source::Inline { .. } => None,
            Source::File { file, .. } => Some(file),
        }
    }

    /// A value whose bytes were checked when they came into memory.
    pub(super) fn in_memory(small: Small) -> Self {
        Self { entry: small.entry, source: Source::Inline { bytes: small.bytes, checked: true } }
    }

    /// Checks a value in the index; whether it is right shows when it is read.
    pub(super) fn check_inline(&mut self) {
        if let Source::Inline { bytes, checked } = &mut self.source {
            *checked = verify_subtree(self.entry.len, &self.entry.hash, &[], 0, bytes);
        }
    }

    /// A value in the index that was checked and found right, as it may stay in memory.
    pub(super) fn small(&self) -> Option<Small> {
        match &self.source {
            Source::Inline { bytes, checked: true } => Some(Small { entry: self.entry.clone(), bytes: bytes.clone() }),
            _ => None,
        }
    }

    /// When its file was last changed, be it only its name or its permissions; none for a value in the index.
    pub fn changed(&self) -> Option<Changed> {
        match &self.source {
            Source::Inline { .. } => None,
            Source::File { changed, .. } => Some(*changed),
        }
    }

    /// Whether its file is as it was when it was opened, by length and ctime: not removed, renamed or written since.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.source {
            Source::Inline { .. } => true,
            Source::File { file, file_len, changed, .. } => {
                file.metadata().is_ok_and(|now| now.len() == *file_len && (now.ctime(), now.ctime_nsec()) == *changed)
            }
        }
    }

    /// Has the kernel bring [`disk::HUGE_PAGE_BYTES`] of its file into the page cache, from a multiple of them on. Only advice.
    pub(crate) fn bring_in(&self, offset: u64) {
        if let Source::File { path, .. } = &self.source {
            disk::bring_in(path, offset);
        }
    }

    /// Reads `count` subtrees of a value that has a file, at most as many as fit a buffer, and checks them; each is told as
    /// soon as it is found to be right.
    ///
    /// # Errors
    /// One is damaged, or cannot be read.
    pub(crate) fn check_subtrees(
        &self,
        first: u64,
        count: u64,
        buffer: &mut AlignedBuffer,
        mut right: impl FnMut(u64),
    ) -> Result<(), ReadError> {
        let Source::File { file, path, file_len, subtrees, .. } = &self.source else { return Ok(()) };
        let subtrees = self.checked_subtrees(file, path, *file_len, subtrees)?;
        let end = ((first + count) * SUBTREE_BYTES).min(self.entry.len);
        let len = usize::try_from(end.saturating_sub(first * SUBTREE_BYTES)).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        let bytes = &mut buffer.bytes_mut()[..len];
        self.read_at(file, path, bytes, first * SUBTREE_BYTES)?;
        for (index, bytes) in (first..).zip(bytes.chunks(SUBTREE_BYTES as usize)) {
            if !verify_subtree(self.entry.len, &self.entry.hash, subtrees, index, bytes) {
                return Err(self.corrupt(format!("subtree {index} of 256 KiB")));
            }
            right(index);
        }
        Ok(())
    }

    /// The chaining values of the subtrees, which add up to the hash; none where the value is a single subtree.
    ///
    /// # Errors
    /// They are damaged, or cannot be read.
    pub fn chaining_values(&self) -> Result<&[ChainingValue], ReadError> {
        match &self.source {
            Source::Inline { .. } => Ok(&[]),
            Source::File { file, path, file_len, subtrees, .. } => self.checked_subtrees(file, path, *file_len, subtrees),
        }
    }

    /// The bytes of subtree `index` (256 KiB; the last may be shorter), read and checked against the hash.
    ///
    /// # Errors
    /// They are damaged, or cannot be read.
    pub fn read_subtree(&self, index: u64) -> Result<Bytes, ReadError> {
        let Some(range) = subtree_range(self.entry.len, index) else {
            return Err(self.corrupt(format!("subtree {index}, which a value of {} bytes has not", self.entry.len)));
        };
        let (bytes, subtrees): (Bytes, &[ChainingValue]) = match &self.source {
            Source::Inline { bytes, checked: true } => return Ok(bytes.clone()),
            Source::Inline { bytes, .. } => (bytes.clone(), &[]),
            Source::File { file, path, file_len, subtrees, .. } => {
                let subtrees = self.checked_subtrees(file, path, *file_len, subtrees)?;
                let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let mut bytes = vec![0; len];
                self.read_at(file, path, &mut bytes, range.start)?;
                (bytes.into(), subtrees)
            }
        };
        if !verify_subtree(self.entry.len, &self.entry.hash, subtrees, index, &bytes) {
            return Err(self.corrupt(format!("bytes {} to {}", range.start, range.end)));
        }
        Ok(bytes)
    }

    /// Reads and checks everything, what the file says of itself included. Returns the number of subtrees.
    ///
    /// # Errors
    /// As of [`Stored::read_subtree`].
    pub(super) fn verify(&self) -> Result<u64, ReadError> {
        if let Source::File { file, path, file_len, .. } = &self.source
            && !agrees(&self.footer(file, path, *file_len)?, &self.entry)
        {
            return Err(self.corrupt("the footer, which differs from the index".into()));
        }
        for index in 0..self.subtree_count() {
            self.read_subtree(index)?;
        }
        Ok(self.subtree_count())
    }

    fn checked_subtrees<'a>(
        &self,
        file: &File,
        path: &std::path::Path,
        file_len: u64,
        slot: &'a OnceLock<Vec<ChainingValue>>,
    ) -> Result<&'a [ChainingValue], ReadError> {
        if let Some(subtrees) = slot.get() {
            return Ok(subtrees);
        }
        let footer = self.footer(file, path, file_len)?;
        Ok(slot.get_or_init(|| footer.subtrees))
    }

    /// The footer, which says the same as the index, and whose chaining values add up to the hash.
    fn footer(&self, file: &File, path: &std::path::Path, file_len: u64) -> Result<Footer, ReadError> {
        let footer = match read_footer(file, path, file_len) {
            Ok(footer) => footer,
            Err(FooterError::Io(e)) if e.source.kind() == ErrorKind::UnexpectedEof => {
                return Err(self.corrupt("its end, which is gone".into()));
            }
            Err(FooterError::Io(e)) => return Err(e.into()),
            Err(FooterError::Format(e)) => return Err(self.corrupt(format!("the footer: {e}"))),
        };
        let e = &self.entry;
        if footer.version != e.version || footer.len != e.len || footer.hash != e.hash {
            return Err(self.corrupt("the footer, which is another value's".into()));
        }
        if !footer.subtrees.is_empty() && root_of(e.len, &footer.subtrees) != Some(e.hash) {
            return Err(self.corrupt("the chaining values, which do not add up to the hash".into()));
        }
        Ok(footer)
    }

    fn read_at(&self, file: &File, path: &std::path::Path, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
        match file.read_exact_at(bytes, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(self.corrupt(format!("byte {offset} and on: the file is cut short"))),
            Err(e) => Err(e).at(Op::Read, path).map_err(ReadError::Io),
        }
    }

    fn corrupt(&self, place: String) -> ReadError {
        ReadError::Corrupt { version: self.entry.version, place }
    }
}

/// Whether a footer says what the index says.
pub(super) fn agrees(footer: &Footer, e: &ValueEntry) -> bool {
    (footer.version, footer.len, footer.hash) == (e.version, e.len, e.hash)
        && footer.key == e.key
        && footer.content_type == e.content_type
        && footer.modified == e.modified
        && footer.expires == e.expires
        && footer.replicas == e.replicas
}

/// Why a footer cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FooterError {
    #[error(transparent)]
    Io(#[from] DiskError),
    #[error(transparent)]
    Format(#[from] crate::format::FormatError),
}

/// Reads the footer of a blob file from its end. Allocates no more than the file's length can ask for.
pub(super) fn read_footer(file: &File, path: &std::path::Path, file_len: u64) -> Result<Footer, FooterError> {
    let mut tail = [0; TAIL_BYTES];
    let tail_at =
        file_len.checked_sub(TAIL_BYTES as u64).ok_or(crate::format::FormatError::TooShort { what: "the file", found: file_len })?;
    file.read_exact_at(&mut tail, tail_at).at(Op::Read, path)?;
    let layout = Layout::parse(file_len, tail)?;
    let mut bytes = vec![0; layout.footer_len];
    file.read_exact_at(&mut bytes, layout.content_len).at(Op::Read, path)?;
    Ok(Footer::parse(&layout, &bytes)?)
}
