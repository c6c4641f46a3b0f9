//! A value on its way to disk here, and to the next volume of its chain at the same time.

use crate::content::ContentCheck;
use crate::node::Node;
use crate::store::{NewValue, Staged, StoreError};
use bytes::Bytes;
use http::HeaderMap;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{Committed, Prepared, ReclaimItem, Standing};
use kvdb_protocol::{ErrorCode, Problem, Ticket, VolumeId};
use kvdb_server::duplex::{ChainOpen, ChainSender};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Portions of a value that may wait for the disk; each is at most what one read of the socket brought.
const WAITING_PORTIONS: usize = 4;

enum ToDisk {
    Bytes(Bytes),
    Finish(oneshot::Sender<Result<Prepared, StoreError>>),
}

/// The copy that is being written here. Dropped before it is finished, it leaves nothing.
pub(crate) enum LocalCopy {
    /// Of a buffer at most, and kept in memory until it is complete.
    Memory(Box<Staged>),
    /// Written by a thread of its own.
    Thread(CopyThread),
}

pub(crate) struct CopyThread {
    to_disk: mpsc::Sender<ToDisk>,
    failed: oneshot::Receiver<StoreError>,
}

impl LocalCopy {
    /// Reserves space.
    pub async fn begin(node: &Node, value: NewValue) -> Result<Self, Problem> {
        match node.store.begin_in_memory(&value) {
            Some(begun) => begun.map(|staged| Self::Memory(Box::new(staged))).map_err(|e| e.to_problem()),
            None => CopyThread::begin(node, value).await.map(Self::Thread),
        }
    }

    /// Takes bytes; waits while the disk is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        match self {
            Self::Memory(staged) => staged.write(&bytes).map_err(|e| e.to_problem()),
            Self::Thread(thread) => thread.write(bytes).await,
        }
    }

    /// Makes it durable, as prepared.
    pub async fn finish(self) -> Result<Prepared, Problem> {
        match self {
            Self::Memory(staged) => staged.finish_in_task().await.map_err(|e| e.to_problem()),
            Self::Thread(thread) => thread.finish().await,
        }
    }
}

impl CopyThread {
    /// Reserves space, on the thread that then writes until the end.
    async fn begin(node: &Node, value: NewValue) -> Result<Self, Problem> {
        let (to_disk, from_socket) = mpsc::channel(WAITING_PORTIONS);
        let (ready, is_ready) = oneshot::channel();
        let (fail, failed) = oneshot::channel();
        let store = node.store.clone();
        tokio::task::spawn_blocking(move || match store.begin(value) {
            Ok(staged) => {
                if ready.send(Ok(())).is_ok() {
                    write_until_finished(staged, from_socket, fail);
                }
            }
            Err(e) => drop(ready.send(Err(e))),
        });
        match is_ready.await {
            Ok(Ok(())) => Ok(Self { to_disk, failed }),
            Ok(Err(e)) => Err(e.to_problem()),
            Err(_) => Err(thread_died()),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        match self.to_disk.send(ToDisk::Bytes(bytes)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn finish(mut self) -> Result<Prepared, Problem> {
        let (tx, rx) = oneshot::channel();
        if self.to_disk.send(ToDisk::Finish(tx)).await.is_err() {
            return Err(self.failure().await);
        }
        match rx.await {
            Ok(result) => result.map_err(|e| e.to_problem()),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn failure(&mut self) -> Problem {
        match (&mut self.failed).await {
            Ok(e) => e.to_problem(),
            Err(_) => thread_died(),
        }
    }
}

fn thread_died() -> Problem {
    Problem::new(ErrorCode::Internal, "the thread that writes the value died; see the volume's log")
}

fn write_until_finished(mut staged: Staged, mut from_socket: mpsc::Receiver<ToDisk>, fail: oneshot::Sender<StoreError>) {
    while let Some(message) = from_socket.blocking_recv() {
        match message {
            ToDisk::Bytes(bytes) => {
                if let Err(e) = staged.write(&bytes) {
                    drop(fail.send(e));
                    return;
                }
            }
            ToDisk::Finish(answer) => {
                drop(answer.send(staged.finish()));
                return;
            }
        }
    }
}

/// Why an upload cannot begin, and at which volume.
pub(crate) struct OpenFailure {
    pub problem: Problem,
    pub volume: VolumeId,
}

/// How a value comes to this volume.
#[derive(Clone, Copy)]
pub(crate) struct Leg {
    /// This volume's place in the chain.
    pub at: usize,
    /// The value's length, where it is known.
    pub len: Option<u64>,
    /// Whether the copies stay prepared until the master says more.
    pub hold: bool,
}

/// A value that is being received.
pub(crate) struct Upload {
    node: Arc<Node>,
    ticket: Ticket,
    local: LocalCopy,
    next: Option<ChainSender>,
    len: u64,
    content: Option<ContentCheck>,
}

impl Upload {
    /// Reserves space here, then opens the rest of the chain.
    pub async fn open(node: &Arc<Node>, ticket: &Ticket, encoded: &str, leg: Leg, headers: HeaderMap) -> Result<Self, OpenFailure> {
        let Leg { at, len, hold } = leg;
        let here = |problem| OpenFailure { problem, volume: node.volume() };
        if len.is_some_and(|n| n > ticket.max_bytes) {
            return Err(here(too_large(ticket)));
        }
        let content = ContentCheck::begin(node, ticket, leg).await.map_err(here)?;
        let local = LocalCopy::begin(node, new_value(ticket, leg)).await.map_err(here)?;
        let next = match ticket.volumes.get(at + 1) {
            None => None,
            Some(volume) => {
                let credentials = node.membership().map_err(here)?.credentials;
                let call = ChainOpen { ticket: encoded, at: at + 1, len, hold, headers };
                let sender = ChainSender::open(&node.peers, &credentials, volume, call).await.map_err(|e| {
                    let problem = e.to_problem();
                    OpenFailure { volume: problem.volume.unwrap_or(volume.id), problem }
                })?;
                Some(sender)
            }
        };
        Ok(Self { node: node.clone(), ticket: ticket.clone(), local, next, len: 0, content })
    }

    /// Takes bytes of the value; waits while the disk or the next volume is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.len += bytes.len() as u64;
        if self.len > self.ticket.max_bytes {
            return Err(too_large(&self.ticket));
        }
        if let Some(content) = &mut self.content {
            content.take(&bytes);
        }
        let next = self.next.as_mut();
        let forward = async {
            match next {
                Some(n) => n.data(bytes.clone()).await.map_err(|e| e.to_problem()),
                None => Ok(()),
            }
        };
        tokio::try_join!(self.local.write(bytes.clone()), forward)?;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Makes all copies from here on durable, and compares them.
    pub async fn finish(self) -> Result<Durable, Problem> {
        let Self { node, ticket, local, mut next, len, content } = self;
        content.map_or(Ok(()), ContentCheck::finish)?;
        let others = async {
            match &mut next {
                None => Ok(None),
                Some(n) if lab::has(Bug::ReplicaNotAwaited) => n.end(len).await.map(|()| None),
                Some(n) => {
                    n.end(len).await?;
                    n.prepared().await.map(Some)
                }
            }
        };
        let (here, others) = tokio::join!(local.finish(), others);
        let prepared = PreparedUpload { node, ticket, next };
        let here = match here {
            Ok(p) => p,
            Err(problem) => return Err(prepared.abandon(problem).await),
        };
        let problem = match others {
            Ok(None) => None,
            Ok(Some(o)) if (o == here && here.len == len) || lab::has(Bug::CopiesNotCompared) => None,
            Ok(Some(_)) => {
                Some(Problem::new(ErrorCode::Corrupt, "the copies differ from each other; the value was not stored, send it again"))
            }
            Err(e) => Some(e.to_problem()),
        };
        match problem {
            None => Ok(prepared.with(here)),
            Some(problem) => Err(prepared.abandon(problem).await),
        }
    }
}

fn too_large(ticket: &Ticket) -> Problem {
    Problem::new(ErrorCode::ValueTooLarge, format!("a value may have at most {} bytes", ticket.max_bytes))
}

fn new_value(ticket: &Ticket, leg: Leg) -> NewValue {
    NewValue {
        key: ticket.key.clone(),
        version: ticket.version,
        len: leg.len,
        max_len: ticket.max_bytes,
        content_type: ticket.content_type.clone(),
        expires: ticket.expires,
        commit_by: ticket.commit_by,
        // A copy that names no chain is never taken by a rebuild for one that may have been acknowledged by itself.
        replicas: ticket.volumes.iter().map(|v| v.id).filter(|_| !leg.hold && ticket.txn.is_none()).collect(),
    }
}

/// A value whose copies, here and further on, are durable (or were tried to be made so).
pub(crate) struct PreparedUpload {
    node: Arc<Node>,
    ticket: Ticket,
    next: Option<ChainSender>,
}

impl PreparedUpload {
    fn with(self, prepared: Prepared) -> Durable {
        Durable { upload: self, prepared }
    }

    /// Removes the copies here and further on. What cannot be removed now is settled later.
    async fn abandon(self, problem: Problem) -> Problem {
        let item = ReclaimItem { key: self.ticket.key.clone(), version: self.ticket.version, deleted: None };
        if let Err(e) = self.node.with_store(move |s| s.remove(&[item])).await {
            tracing::warn!(key = %self.ticket.key, version = %self.ticket.version, error = %e, "an abandoned copy stays until it is settled");
        }
        if let Some(next) = self.next
            && let Err(e) = next.abort().await
        {
            tracing::debug!(key = %self.ticket.key, version = %self.ticket.version, error = %e, "the next volume settles the copy by itself");
        }
        problem
    }
}

/// A value of which all copies are durable and equal, and that waits for its commit.
pub(crate) struct Durable {
    upload: PreparedUpload,
    /// Its length and hash.
    pub prepared: Prepared,
}

impl Durable {
    /// The master committed it, or staged it in its transaction: now, or long ago, if its ticket was used once more after this volume had forgotten it.
    /// What is not the record's copy must not be marked as if it were: nobody would ever remove it.
    pub async fn committed(self, committed: Committed) {
        let PreparedUpload { node, ticket, next } = self.upload;
        let (key, version) = (ticket.key.clone(), ticket.version);
        let done = match committed.standing {
            Standing::Current => node.store.note_committed(key, version, committed.seq).await.map_err(|e| e.to_problem()),
            // The master says of each volume's copy whether it stays, when asked.
            Standing::Moved => Ok(()),
            // So it does when the transaction is committed or ends.
            Standing::Staged => match ticket.txn {
                Some(txn) => node.store.note_staged(key, version, txn.ends).await.map_err(|e| e.to_problem()),
                None => Ok(()),
            },
            Standing::Gone => node.remove(vec![ReclaimItem { key, version, deleted: None }]).await,
        };
        if let Err(e) = done {
            tracing::warn!(key = %ticket.key, version = %ticket.version, error = %e, "the commit is not noted here and will be asked for");
        }
        if let Some(next) = next
            && let Err(e) = next.commit(committed).await
        {
            tracing::debug!(key = %ticket.key, version = %ticket.version, error = %e, "the next volume asks for the commit by itself");
        }
    }

    /// It will not be committed: removes the copies.
    pub async fn abandon(self, problem: Problem) -> Problem {
        self.upload.abandon(problem).await
    }

    /// It stays prepared here and further on, until the master says more or its time is over.
    pub async fn hold(self) {
        if let Some(next) = self.upload.next
            && let Err(e) = next.held().await
        {
            tracing::debug!(key = %self.upload.ticket.key, version = %self.upload.ticket.version, error = %e, "the next volume holds its copy");
        }
    }

    /// The upstream volume went away; what became of the version is asked of the master.
    pub fn leave_in_doubt(self) {
        self.upload.node.settle_soon.notify_one();
    }
}
