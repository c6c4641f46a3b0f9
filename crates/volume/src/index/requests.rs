//! The way to the committer's thread: changes, and the answers to them.

use super::{Aside, IndexError};
use crate::format::record::ValueRecord;
use kvdb_protocol::message::ReclaimItem;
use kvdb_protocol::{Key, UnixMillis, VersionId};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Changes that wait; whoever comes next waits outside. Each may carry a small value.
const MAX_WAITING: usize = 64;
/// Changes of which nobody waits for the end, that may wait besides.
const MAX_NOTES: usize = 1024;
/// A batch that takes longer than this is not waited for: the engine can wait for ever on a full disk.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How soon a task looks again for a place where all are taken.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A change.
pub enum Op {
    Put {
        key: Key,
        version: VersionId,
        record: ValueRecord,
        inline: Option<Vec<u8>>,
    },
    Adopt {
        values: Vec<(Key, VersionId, ValueRecord)>,
    },
    Commit {
        key: Key,
        version: VersionId,
        seq: u64,
    },
    /// What is prepared may be committed until then.
    Extend {
        key: Key,
        version: VersionId,
        commit_by: UnixMillis,
    },
    Remove {
        items: Vec<ReclaimItem>,
    },
    PutAside {
        copies: Vec<Aside>,
    },
    Told {
        copies: Vec<(Key, VersionId)>,
    },
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A put found the version there already, as this.
    Present(Box<ValueRecord>),
    /// A put found that the version was deleted.
    Deleted,
    /// A commit found no such version.
    Absent,
    /// A remove left these blob files without an entry.
    Removed(Vec<VersionId>),
}

pub(super) struct Request {
    pub(super) op: Op,
    pub(super) answer: Answer,
}

type Answered = Result<Outcome, IndexError>;

/// Who waits for the answer.
pub(super) enum Answer {
    Thread(SyncSender<Answered>),
    Task(oneshot::Sender<Answered>),
    Nobody,
}

impl Answer {
    /// Whoever asked may have stopped waiting; the change stands all the same.
    pub(super) fn give(self, outcome: Answered) {
        match self {
            Self::Thread(sender) => drop(sender.send(outcome)),
            Self::Task(sender) => drop(sender.send(outcome)),
            Self::Nobody => {}
        }
    }
}

/// Changes that nobody waits for: they need not wake the thread, which makes them with the next ones, or soon.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Op>>>);

impl Notes {
    /// All so far, in order.
    pub(super) fn take(&self) -> Vec<Op> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Comes back where there are too many.
    fn leave(&self, op: Op) -> Option<Op> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= MAX_NOTES {
            return Some(op);
        }
        notes.push(op);
        None
    }
}

/// Asks for changes.
pub struct Requests {
    sender: SyncSender<Request>,
    notes: Notes,
    stopped: Arc<Mutex<Option<String>>>,
}

impl Requests {
    pub(super) fn new() -> (Self, Receiver<Request>) {
        let (sender, waiting) = sync_channel(MAX_WAITING);
        (Self { sender, notes: Notes::default(), stopped: Arc::default() }, waiting)
    }

    pub(super) fn stopped_slot(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.stopped)
    }

    pub(super) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// Makes a change and waits for it. Blocks.
    pub fn run(&self, op: Op) -> Answered {
        self.check()?;
        let (answer, result) = sync_channel(1);
        if self.sender.send(Request { op, answer: Answer::Thread(answer) }).is_err() {
            return Err(self.stop(GONE));
        }
        match result.recv_timeout(MAX_WAIT) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(self.stop(NO_END)),
            Err(RecvTimeoutError::Disconnected) => Err(self.stop(GONE)),
        }
    }

    /// Makes a change and waits for it as a task. Once it has a place in the queue it is made, whether or not the task goes on.
    pub async fn run_in_task(&self, op: Op) -> Answered {
        let (answer, result) = oneshot::channel();
        self.put_in_queue(op, Answer::Task(answer)).await?;
        match tokio::time::timeout(MAX_WAIT, result).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.stop(GONE)),
            Err(_) => Err(self.stop(NO_END)),
        }
    }

    /// Has a change made that nobody waits for. Changes that are asked for afterwards come after it.
    pub async fn leave(&self, op: Op) -> Result<(), IndexError> {
        self.check()?;
        match self.notes.leave(op) {
            None => Ok(()),
            Some(op) => self.put_in_queue(op, Answer::Nobody).await,
        }
    }

    async fn put_in_queue(&self, op: Op, answer: Answer) -> Result<(), IndexError> {
        self.check()?;
        let give_up = Instant::now() + MAX_WAIT;
        let mut request = Request { op, answer };
        loop {
            match self.sender.try_send(request) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(self.stop(GONE)),
                Err(TrySendError::Full(_)) if Instant::now() >= give_up => return Err(self.stop(NO_END)),
                Err(TrySendError::Full(back)) => request = back,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn check(&self) -> Result<(), IndexError> {
        self.stopped().map_or(Ok(()), |reason| Err(IndexError::Stopped(reason)))
    }

    /// Why nothing more is written, if so.
    pub fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(&self, reason: &str) -> IndexError {
        stop(&self.stopped, reason)
    }
}

const GONE: &str = "its thread has ended";
const NO_END: &str = "a write did not end";

/// Notes that nothing more is written, with the first reason.
pub(super) fn stop(stopped: &Mutex<Option<String>>, reason: &str) -> IndexError {
    let mut slot = stopped.lock().unwrap_or_else(PoisonError::into_inner);
    let first = slot.get_or_insert_with(|| {
        tracing::error!(reason, "the index takes no more writes");
        reason.to_string()
    });
    IndexError::Stopped(first.clone())
}
