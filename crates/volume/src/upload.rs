//! A value on its way to disk here, and to the next volume of its chain at the same time.

use crate::content::ContentCheck;
use crate::node::Node;
use crate::store::{NewValue, Staged};
use bytes::Bytes;
use http::HeaderMap;
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{Committed, Prepared, ReclaimItem, Standing};
use kvdb_protocol::{ErrorCode, Problem, Ticket, VolumeId};
use kvdb_server::duplex::{ChainOpen, ChainSender};
use std::sync::Arc;
use tokio::runtime::Handle;

/// The copy that is being written here. Dropped before it is finished, it leaves nothing.
pub(crate) struct LocalCopy {
    /// None while a thread has it, and at the end.
    staged: Option<Box<Staged>>,
}

impl LocalCopy {
    /// Reserves space.
    pub async fn begin(node: &Node, value: NewValue) -> Result<Self, Problem> {
        let staged = node.store.begin_in_task(value).await.map_err(|e| e.to_problem())?;
        Ok(Self { staged: Some(Box::new(staged)) })
    }

    /// Takes bytes; waits while the disk is slower than the sender.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        let written = match &mut self.staged {
            Some(staged) if staged.has_room(bytes.len()) => staged.write_in_task(&bytes).await,
            _ => {
                let mut staged = self.staged.take().ok_or_else(given_up)?;
                let write = move || (staged.write(&bytes), staged);
                let (written, staged) = tokio::task::spawn_blocking(write).await.map_err(|_| given_up())?;
                self.staged = Some(staged);
                written
            }
        };
        written.map_err(|e| e.to_problem())
    }

    /// Makes it durable, as prepared.
    pub async fn finish(mut self) -> Result<Prepared, Problem> {
        let staged = self.staged.take().ok_or_else(given_up)?;
        staged.finish_in_task().await.map_err(|e| e.to_problem())
    }
}

impl Drop for LocalCopy {
    fn drop(&mut self) {
        // It takes time to remove a large file: not that of this thread's connections.
        if let Some(staged) = self.staged.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(|| drop(staged));
        }
    }
}

fn given_up() -> Problem {
    Problem::new(ErrorCode::Internal, "the thread that writes the value died; see the volume's log")
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
        tokio::try_join!(forward, self.local.write(bytes.clone()))?;
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
