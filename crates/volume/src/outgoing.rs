//! A value's file as the kernel sends it: what is in the page cache and was checked goes as it is, all else is read and
//! checked first.

use crate::bad;
use crate::checked::CheckedParts;
use crate::config::VerifyReads;
use crate::disk::{BUFFER_BYTES, HUGE_PAGE_BYTES, is_absent, is_resident};
use crate::node::Node;
use crate::store::{ReadError, Stored};
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_server::sendfile::FileSource;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Subtrees that are read at once.
const BUFFER_SUBTREES: usize = BUFFER_BYTES / SUBTREE_BYTES as usize;

/// A value that has a file.
pub(crate) struct Outgoing {
    node: Arc<Node>,
    stored: Arc<Stored>,
    file: Arc<File>,
    parts: Arc<CheckedParts>,
}

impl Outgoing {
    /// None: it is in the index, or the kernel cannot tell what is in its page cache, or every byte is to be checked.
    pub fn new(node: &Arc<Node>, stored: &Arc<Stored>) -> Option<Arc<Self>> {
        let sends = match node.config.verify_reads {
            VerifyReads::Always => false,
            VerifyReads::Never => true,
            VerifyReads::Cold => stored.content_file().is_some_and(|f| crate::disk::is_known(f)),
        };
        let (file, changed) = (stored.content_file().filter(|_| sends)?.clone(), stored.changed()?);
        let parts = node.checked.of(stored.entry.version, changed, stored.subtree_count());
        Some(Arc::new(Self { node: Arc::clone(node), stored: Arc::clone(stored), file, parts }))
    }

    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Reads and checks these subtrees, which then are in the page cache; nothing to do where another reader has done it meanwhile.
    pub fn check(&self, subtrees: Range<u64>) -> Result<(), ReadError> {
        let (first, len) = self.bytes(&subtrees);
        if self.may_go(first, len) {
            return Ok(());
        }
        let is_huge_page = first.is_multiple_of(HUGE_PAGE_BYTES) && len == HUGE_PAGE_BYTES.min(self.stored.entry.len - first);
        self.forget(subtrees.clone(), is_huge_page);
        if is_huge_page {
            self.stored.bring_in(first);
        }
        let mut buffer = self.node.store.buffer();
        for first in subtrees.clone().step_by(BUFFER_SUBTREES) {
            let count = (subtrees.end - first).min(BUFFER_SUBTREES as u64);
            self.stored.check_subtrees(first, count, &mut buffer, |subtree| self.parts.add(subtree))?;
        }
        Ok(())
    }

    /// To be called before subtrees are read, which makes the kernel read ahead after a huge page, and after what it read ahead.
    fn forget(&self, subtrees: Range<u64>, is_huge_page: bool) {
        let (first, len) = self.bytes(&subtrees);
        let end = subtrees.end;
        self.parts.forget(subtrees);
        if is_huge_page || is_absent(&self.file, first, len) != Some(true) {
            self.parts.forget_absent(end, |subtrees| {
                let (first, len) = self.bytes(&subtrees);
                is_resident(&self.file, first, len) == Some(true)
            });
        }
    }

    /// Where they lie in the file, and how long they are.
    fn bytes(&self, subtrees: &Range<u64>) -> (u64, u64) {
        let first = subtrees.start * SUBTREE_BYTES;
        (first, (subtrees.end * SUBTREE_BYTES).min(self.stored.entry.len).saturating_sub(first))
    }

    /// Asks the kernel first: what it tells of may be read anew by the time it is believed to be checked, and is not then.
    fn may_go(&self, offset: u64, len: u64) -> bool {
        is_resident(&self.file, offset, len) == Some(true)
            && self.parts.cover(offset / SUBTREE_BYTES..(offset + len).div_ceil(SUBTREE_BYTES))
    }

    /// A part that was to go as it is has left the page cache, and is bad on the disk.
    fn tell(self: &Arc<Self>, error: &ReadError) {
        let (this, problem) = (Arc::clone(self), error.to_problem());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { bad::found(&this.node, &this.stored.entry.key, this.stored.entry.version, &problem).await });
        }
    }
}

/// The part of a value that one connection sends.
pub(crate) struct Sending(pub Arc<Outgoing>);

impl FileSource for Sending {
    fn file(&self) -> &File {
        &self.0.file
    }

    fn sendable(&self, offset: u64, len: usize) -> usize {
        if self.0.node.config.verify_reads == VerifyReads::Never || self.0.may_go(offset, len as u64) {
            return len;
        }
        // Not all of it: as many whole subtrees from its begin as may.
        let end = offset + len as u64;
        let mut at = offset;
        while at < end {
            let next = ((at / SUBTREE_BYTES + 1) * SUBTREE_BYTES).min(end);
            if !self.0.may_go(at, next - at) {
                break;
            }
            at = next;
        }
        // At most `len`.
        (at - offset) as usize
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (subtree, skip) = (offset / SUBTREE_BYTES, (offset % SUBTREE_BYTES) as usize);
        self.0.forget(subtree..subtree + 1, false);
        match self.0.stored.read_subtree(subtree) {
            Ok(bytes) if skip < bytes.len() => {
                self.0.parts.add(subtree);
                Ok(bytes.slice(skip..bytes.len().min(skip + len)))
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                self.0.tell(&error);
                Err(io::Error::other(error))
            }
        }
    }
}
