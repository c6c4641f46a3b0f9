//! A value's file as the kernel sends it: what is in the page cache and was checked goes as it is, all else is read and
//! checked first.

use crate::bad;
use crate::checked::CheckedParts;
use crate::config::VerifyReads;
use crate::disk::is_resident;
use crate::node::Node;
use crate::store::{ReadError, Stored};
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_server::sendfile::FileSource;
use std::fs::File;
use std::io;
use std::sync::Arc;

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

    /// Reads and checks `count` subtrees, which then are in the page cache.
    pub fn check(&self, first: u64, count: u64) -> Result<(), ReadError> {
        let mut buffer = self.node.store.buffer();
        self.stored.check_subtrees(first, count, &mut buffer, |subtree| self.parts.add(subtree))
    }

    fn may_go(&self, offset: u64, len: u64) -> bool {
        self.parts.cover(offset / SUBTREE_BYTES..(offset + len).div_ceil(SUBTREE_BYTES))
            && is_resident(&self.file, offset, len) == Some(true)
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
