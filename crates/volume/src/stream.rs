//! A value's bytes on their way from disk to a client through this process: checked, in bounded memory, read one portion
//! ahead. Values that the kernel can send go another way, see [`crate::send`].

use crate::bad;
use crate::node::{Busy, Node};
use crate::store::{ReadError, Stored};
use bytes::Bytes;
use kvdb_protocol::limits::SUBTREE_BYTES;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// Subtrees of one portion: what is read and checked in one visit to a blocking thread.
pub(crate) const PORTION_SUBTREES: u64 = 4;
/// Memory that one subtree takes, in KiB.
const SUBTREE_KIB: u32 = (SUBTREE_BYTES >> 10) as u32;
/// How long a read waits for memory.
pub(crate) const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// Why a value cannot be sent from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// No memory became free in time.
    Busy,
    /// The copy is damaged or unreadable.
    BadCopy,
}

type Portion = Result<VecDeque<Bytes>, ReadError>;

/// Sends bytes `at..end` of a value.
pub(crate) struct VerifiedReader {
    node: Arc<Node>,
    stored: Arc<Stored>,
    at: u64,
    end: u64,
    ready: VecDeque<Bytes>,
    ahead: Option<JoinHandle<Portion>>,
    _busy: Busy,
}

impl VerifiedReader {
    pub fn new(node: Arc<Node>, stored: Arc<Stored>, first: u64, end: u64) -> Self {
        let busy = node.busy_guard();
        Self { node, stored, at: first, end, ready: VecDeque::new(), ahead: None, _busy: busy }
    }

    /// Reads and checks the first portion.
    pub async fn start(&mut self) -> Result<(), ReadFault> {
        if self.at >= self.end {
            return Ok(());
        }
        if self.stored.content_file().is_none() {
            // It is in memory already, and small.
            let bytes = read_and_check(&self.stored, self.at, self.end, None);
            self.at = self.end;
            return self.take(bytes).await;
        }
        self.fill().await
    }

    /// The next bytes; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadFault> {
        if self.ready.is_empty() && (self.at < self.end || self.ahead.is_some()) {
            self.fill().await?;
        }
        Ok(self.ready.pop_front())
    }

    /// Takes the portion that was read ahead, or reads one, and has the next one read.
    async fn fill(&mut self) -> Result<(), ReadFault> {
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None => {
                let want = self.portion_kib();
                let memory = self.node.read_memory.clone().acquire_many_owned(want);
                let permit = tokio::time::timeout(MEMORY_WAIT, memory).await.ok().and_then(Result::ok).ok_or(ReadFault::Busy)?;
                self.read_portion(permit)
            }
        };
        if self.at < self.end {
            // Reading ahead is a luxury that nobody waits for.
            self.ahead = self.node.read_memory.clone().try_acquire_many_owned(self.portion_kib()).ok().map(|p| self.read_portion(p));
        }
        match reading.await {
            Ok(portion) => self.take(portion).await,
            Err(error) => {
                tracing::error!(key = %self.stored.entry.key, %error, "a task that reads a value died");
                Err(ReadFault::BadCopy)
            }
        }
    }

    async fn take(&mut self, portion: Portion) -> Result<(), ReadFault> {
        match portion {
            Ok(portion) => {
                self.ready = portion;
                Ok(())
            }
            Err(error) => {
                let entry = &self.stored.entry;
                bad::found(&self.node, &entry.key, entry.version, &error.to_problem()).await;
                Err(ReadFault::BadCopy)
            }
        }
    }

    fn portion_end(&self) -> u64 {
        let subtree = self.at / SUBTREE_BYTES;
        ((subtree + PORTION_SUBTREES) * SUBTREE_BYTES).min(self.end)
    }

    fn portion_kib(&self) -> u32 {
        let subtrees = self.portion_end().div_ceil(SUBTREE_BYTES) - self.at / SUBTREE_BYTES;
        u32::try_from(subtrees).unwrap_or(1) * SUBTREE_KIB
    }

    fn read_portion(&mut self, permit: OwnedSemaphorePermit) -> JoinHandle<Portion> {
        let (from, to) = (self.at, self.portion_end());
        self.at = to;
        let stored = self.stored.clone();
        tokio::task::spawn_blocking(move || read_and_check(&stored, from, to, Some(permit)))
    }
}

fn read_and_check(stored: &Stored, from: u64, to: u64, permit: Option<OwnedSemaphorePermit>) -> Portion {
    let permit = permit.map(Arc::new);
    let mut parts = VecDeque::new();
    let mut at = from;
    while at < to {
        let subtree = at / SUBTREE_BYTES;
        let start = subtree * SUBTREE_BYTES;
        let bytes = stored.read_subtree(subtree)?;
        let stop = (to - start).min(bytes.len() as u64);
        let skip = at - start;
        if stop <= skip {
            return Err(ReadError::Corrupt { version: stored.entry.version, place: format!("subtree {subtree}, which is short") });
        }
        // Both are at most a subtree, which fits any usize.
        parts.push_back(Bytes::from_owner(Counted { bytes: bytes.slice(skip as usize..stop as usize), _permit: permit.clone() }));
        at = start + stop;
    }
    Ok(parts)
}

/// Bytes that give their memory back to the bound when the socket has taken them.
struct Counted {
    bytes: Bytes,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
