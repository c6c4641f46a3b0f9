//! A value on its way to a client: by the kernel where that is possible, else through this process ([`crate::stream`]).

use crate::bad;
use crate::disk::{BUFFER_BYTES, HUGE_PAGE_BYTES};
use crate::node::{Busy, Node};
use crate::outgoing::{Outgoing, Sending};
use crate::store::{ReadError, Stored};
use crate::stream::{MEMORY_WAIT, ReadFault, VerifiedReader};
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use kvdb_server::sendfile::{FileSender, FileSource, MAX_PART_BYTES};
use kvdb_server::{Body, BoxError, duplex};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Memory that a portion takes while it is checked, in KiB.
const PORTION_KIB: u32 = (BUFFER_BYTES >> 10) as u32;
/// Portions that are read at once: enough for disk, check and socket to overlap.
const AHEAD: usize = 4;

/// Sends a part of a value.
pub(crate) enum Reader {
    /// By the kernel.
    File(FileReader),
    /// Through this process.
    Copied(VerifiedReader),
}

impl Reader {
    /// Bytes `first..end` of a value. Without a sender of the connection they go through this process.
    pub fn new(node: &Arc<Node>, stored: Arc<Stored>, first: u64, end: u64, files: Option<&FileSender>) -> Self {
        match files.and_then(|files| Some((files, Outgoing::new(node, &stored)?))) {
            Some((files, value)) => Self::File(FileReader::new(node, value, first, end, files.clone())),
            None => Self::Copied(VerifiedReader::new(node.clone(), stored, first, end)),
        }
    }

    /// Checks the first bytes.
    pub async fn start(&mut self) -> Result<(), ReadFault> {
        match self {
            Self::File(reader) => reader.start().await,
            Self::Copied(reader) => reader.start().await,
        }
    }

    /// The body. It fails, and so cuts the connection, rather than to send a wrong byte.
    pub fn into_body(self) -> Body {
        duplex::body(futures_util::stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            let next = match &mut reader {
                Self::File(reader) => reader.next().await,
                Self::Copied(reader) => reader.next().await,
            };
            match next {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
                Ok(None) => None,
                Err(fault) => Some((Err(BoxError::from(format!("the value cannot be sent: {fault:?}"))), None)),
            }
        }))
    }
}

/// Sends a part of a value's file by the kernel. What may not go as it is is read and checked first, ahead of the socket.
pub(crate) struct FileReader {
    node: Arc<Node>,
    value: Arc<Outgoing>,
    source: Arc<dyn FileSource>,
    files: FileSender,
    at: u64,
    end: u64,
    /// Up to where it may be sent.
    ready_to: u64,
    /// Up to where it is ready or being checked; a multiple of a subtree, or the end.
    asked_to: u64,
    /// Portions that are being checked, each with its end.
    ahead: VecDeque<(u64, JoinHandle<Result<(), ReadError>>)>,
    _busy: Busy,
}

impl FileReader {
    fn new(node: &Arc<Node>, value: Arc<Outgoing>, first: u64, end: u64, files: FileSender) -> Self {
        let source = Arc::new(Sending(Arc::clone(&value)));
        let busy = node.busy_guard();
        Self {
            node: node.clone(),
            value,
            source,
            files,
            at: first,
            end,
            ready_to: first,
            asked_to: first,
            ahead: VecDeque::new(),
            _busy: busy,
        }
    }

    async fn start(&mut self) -> Result<(), ReadFault> {
        if self.at < self.end { self.make_ready().await } else { Ok(()) }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ReadFault> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.ready_to <= self.at {
            self.make_ready().await?;
        }
        let len = usize::try_from(self.ready_to - self.at).unwrap_or(MAX_PART_BYTES).min(MAX_PART_BYTES);
        let part = self.files.part(Arc::clone(&self.source), self.at, len).ok_or(ReadFault::BadCopy)?;
        self.at += len as u64;
        Ok(Some(part))
    }

    async fn make_ready(&mut self) -> Result<(), ReadFault> {
        if self.ahead.is_empty() {
            let run_end = (self.at / SUBTREE_BYTES * SUBTREE_BYTES + MAX_PART_BYTES as u64).min(self.end);
            let sendable = self.source.sendable(self.at, usize::try_from(run_end - self.at).unwrap_or(0)) as u64;
            if sendable > 0 {
                self.ready_to = self.at + sendable;
                self.asked_to = self.ready_to;
                return Ok(());
            }
            let memory = self.node.read_memory.clone().acquire_many_owned(PORTION_KIB);
            let memory = tokio::time::timeout(MEMORY_WAIT, memory).await.ok().and_then(Result::ok).ok_or(ReadFault::Busy)?;
            self.check_portion(memory);
        }
        self.check_ahead();
        let Some((to, checking)) = self.ahead.pop_front() else { return Err(ReadFault::BadCopy) };
        let entry = &self.value.stored().entry;
        match checking.await {
            Ok(Ok(())) => self.ready_to = to,
            Ok(Err(error)) => {
                bad::found(&self.node, &entry.key, entry.version, &error.to_problem()).await;
                return Err(ReadFault::BadCopy);
            }
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "a task that reads a value died");
                return Err(ReadFault::BadCopy);
            }
        }
        self.check_ahead();
        Ok(())
    }

    /// Has more portions checked, as long as there is memory, up to where the value may be sent as it is.
    fn check_ahead(&mut self) {
        while self.ahead.len() < AHEAD && self.asked_to < self.end {
            let len = usize::try_from(self.portion_end() - self.asked_to).unwrap_or(0);
            if self.source.sendable(self.asked_to, len) == len {
                return;
            }
            let Ok(memory) = self.node.read_memory.clone().try_acquire_many_owned(PORTION_KIB) else { return };
            self.check_portion(memory);
        }
    }

    /// A portion is what the page cache holds in one piece.
    fn portion_end(&self) -> u64 {
        ((self.asked_to / HUGE_PAGE_BYTES + 1) * HUGE_PAGE_BYTES).min(self.end)
    }

    fn check_portion(&mut self, memory: tokio::sync::OwnedSemaphorePermit) {
        let (first, to) = (self.asked_to / SUBTREE_BYTES, self.portion_end());
        let subtrees = first..to.div_ceil(SUBTREE_BYTES);
        let value = Arc::clone(&self.value);
        let checking = tokio::task::spawn_blocking(move || {
            let _memory = memory;
            value.check(subtrees)
        });
        self.ahead.push_back((to, checking));
        self.asked_to = to;
    }
}
