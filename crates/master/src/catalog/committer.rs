//! The one thread that changes the catalog.
//!
//! It takes whatever waits, decides the operations in order, writes them as one durable batch, and then
//! answers all. While one batch is being synced the next one gathers.

use super::batch::{self, BatchAnswer, CommitBatch};
use super::core::Core;
use super::decide::{self, CommitDelete, CommitPut, Now, Room};
use super::delete_all::{self, DeleteAll, DeletedPage};
use super::directory::Marker;
use super::engine::{ApplyError, Batch, Engine, EngineError};
use super::error::CatalogError;
use super::expiry::{self, Swept};
use super::keyspace;
use super::placing::{self, Duty, Placed, SetReplicas};
use super::record::{State, VolumeEntry, decode, encode};
use super::resolve::{self, Doubt};
use super::transaction_ops::{TxnOp, TxnReply};
use super::unwanted::{self, Unlisted, Unwanted};
use super::view::{View, epoch};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{CommitAnswer, Outcome, SettleItem};
use kvdb_protocol::{VersionId, VolumeId};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Operations that may wait for the committer; callers beyond it wait for a place.
pub(super) const QUEUE_LENGTH: usize = 1024;
/// Most operations of a batch.
const MAX_BATCH_OPS: usize = 512;
/// A batch is closed when its keys and values exceed this. It keeps a batch well within one segment of
/// sled's log (512 KiB), so that sled does not reuse a segment within a batch, before our sync.
const MAX_BATCH_BYTES: usize = 128 << 10;
/// Entries of old decisions removed with a batch, besides two for each operation.
const SWEEP: usize = 64;
/// Removals that are forgotten in one batch.
const FORGET: usize = 512;
/// How often the lease and old decisions are seen to when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// How often it is noted how far the database has come.
const MARK_EVERY: Duration = Duration::from_secs(2);
/// Free bytes on the disk below which no values are added.
const PUT_RESERVE_BYTES: u64 = 64 << 20;
/// Free bytes on the disk below which nothing is written at all: sled does not survive a full disk.
const DELETE_RESERVE_BYTES: u64 = 16 << 20;

pub(super) type Reply<T> = oneshot::Sender<Result<T, CatalogError>>;

pub(super) enum Op {
    Put(CommitPut, Reply<CommitAnswer>),
    Delete(CommitDelete, Reply<CommitAnswer>),
    /// Several keys together.
    Batch(Box<CommitBatch>, Reply<BatchAnswer>),
    /// A page of the keys of a prefix.
    DeleteAll(DeleteAll, Reply<DeletedPage>),
    Resolve(Doubt, Reply<Option<CommitAnswer>>),
    Settle(VolumeId, Vec<SettleItem>, Reply<Vec<Outcome>>),
    SweepExpired(Reply<Swept>),
    Txn(TxnOp),
    ReclaimDone(VolumeId, Vec<VersionId>, Reply<()>),
    Volume(VolumeId, String, Reply<()>),
    SetReplicas(SetReplicas, Reply<Placed>),
    Duty(VolumeId, Option<Duty>, Reply<()>),
    Unwanted(Vec<Unwanted>, Reply<Vec<Unlisted>>),
    /// An address is listed, or no longer.
    Listed(String, bool, Reply<()>),
    /// Whether there is more to forget.
    ForgetReclaim(VolumeId, Reply<bool>),
    /// What waits before it is done; then the committer ends.
    Close(Reply<()>),
}

/// An answer that waits for its batch.
enum Answer {
    Commit(Reply<CommitAnswer>, CommitAnswer),
    Batch(Reply<BatchAnswer>, BatchAnswer),
    DeletedPage(Reply<DeletedPage>, DeletedPage),
    Resolved(Reply<Option<CommitAnswer>>, Option<CommitAnswer>),
    Settle(Reply<Vec<Outcome>>, Vec<Outcome>),
    Swept(Reply<Swept>, Swept),
    Txn(TxnReply),
    Placed(Reply<Placed>, Placed),
    Unlisted(Reply<Vec<Unlisted>>, Vec<Unlisted>),
    More(Reply<bool>, bool),
    Done(Reply<()>),
}

pub(super) struct Committer {
    core: Arc<Core>,
    ops: mpsc::Receiver<Op>,
    waiting: Waiting,
    state: State,
    /// All decisions of epochs before this are removed.
    swept: u64,
    marker: Marker,
    /// The last commit that was noted, and when.
    marked: (u64, Instant),
}

/// Operations that were taken from the queue but found no place in a batch.
type Waiting = std::collections::VecDeque<Op>;

impl Committer {
    pub(super) fn new(core: Arc<Core>, ops: mpsc::Receiver<Op>, marker: Marker) -> Self {
        let state = core.state();
        Self { core, ops, waiting: Waiting::new(), state, swept: 0, marker, marked: (0, Instant::now()) }
    }

    /// Works until it is closed or all senders are gone.
    pub(super) fn run(mut self, timer: &Runtime) {
        while let Some(mut ops) = self.wait(timer) {
            let closes = take_close(&mut ops);
            self.waiting.extend(ops);
            self.batch(closes.is_some());
            while !self.waiting.is_empty() {
                self.batch(closes.is_some());
            }
            self.core.quotas.step(self.core.engine.as_ref());
            self.mark(closes.is_some());
            if let Some(reply) = closes {
                let _caller_gone = reply.send(if self.core.is_stopped() { Err(CatalogError::Stopped) } else { Ok(()) });
                return;
            }
        }
        self.batch(true);
        self.mark(true);
    }

    /// Notes how far the database has come, now and then: damage to it that takes back more is then found.
    fn mark(&mut self, now: bool) {
        let (marked, at) = self.marked;
        if self.state.seq == marked || self.core.is_stopped() || !(now || at.elapsed() >= MARK_EVERY) {
            return;
        }
        if let Err(error) = self.marker.note(self.state.seq) {
            tracing::warn!(%error, "how far the catalog has come is not noted");
        }
        self.marked = (self.state.seq, Instant::now());
    }

    /// What waits, or nothing at a tick; none when all senders are gone.
    fn wait(&mut self, timer: &Runtime) -> Option<Vec<Op>> {
        let mut ops = Vec::new();
        let stopped = self.core.is_stopped();
        let alive = timer.block_on(async {
            tokio::select! {
                n = self.ops.recv_many(&mut ops, MAX_BATCH_OPS) => n > 0,
                () = self.core.clock.low(), if !stopped => true,
                () = self.core.quotas.work() => true,
                () = tokio::time::sleep(TICK) => true,
            }
        });
        alive.then_some(ops)
    }

    /// Decides, writes and answers what fits in one batch.
    fn batch(&mut self, last: bool) {
        let core = Arc::clone(&self.core);
        if core.is_stopped() {
            return self.waiting.drain(..).for_each(|op| op.fail(&|| CatalogError::Stopped));
        }
        let mut view = View::new(core.engine.as_ref(), self.state, core.quotas.draft(), core.open_txns());
        let mut answers = Vec::new();
        let (expiry, _under_way) = core.deciding.begin(|| core.clock.expiry_now());
        let now = Now { time: core.clock.now(), expiry, floor: core.floor, room: room(core.engine.as_ref()) };
        while view.bytes() < MAX_BATCH_BYTES
            && let Some(op) = self.waiting.pop_front()
        {
            // One that changes many keys has a batch of the committer to itself, so that the two bounds do not add up.
            let large = matches!(&op, Op::Batch(..) | Op::DeleteAll(..)) || matches!(&op, Op::Txn(op) if op.is_large());
            if large && view.bytes() > 0 {
                self.waiting.push_front(op);
                break;
            }
            answers.extend(decide_one(&mut view, core.engine.as_ref(), &now, op));
            if large {
                break;
            }
        }
        let closing = last && self.waiting.is_empty();
        let lease = if closing { Some(core.clock.freeze()) } else { core.clock.wanted_lease() };
        let lease = lease.filter(|_| now.room.for_delete);
        if let Err(e) = self.housekeeping(&mut view, &now, lease, answers.len()) {
            tracing::error!(error = %e, "the catalog's upkeep failed");
        }
        if lab::has(Bug::AnsweredBeforeDurable) {
            answers.drain(..).for_each(Answer::give);
        }
        match self.write(view) {
            Ok(()) => {
                if let Some(lease) = lease.filter(|_| !closing) {
                    core.clock.extend(lease);
                }
                answers.into_iter().for_each(Answer::give);
            }
            Err(why) => answers.into_iter().for_each(|a| a.fail(why.error())),
        }
    }

    /// The lease, and the removal of old decisions.
    fn housekeeping(&mut self, view: &mut View<'_>, now: &Now, lease: Option<u64>, ops: usize) -> Result<(), CatalogError> {
        if let Some(lease) = lease {
            view.put(keyspace::META_LEASE.to_vec(), lease.to_le_bytes().to_vec());
            view.put(keyspace::META_EXPIRY.to_vec(), self.core.clock.expiry_bound().to_le_bytes().to_vec());
        }
        let keep_from = epoch(now.time).saturating_sub(1);
        if self.swept < keep_from && now.room.for_delete {
            let (from, to) = (keyspace::decisions_from(0), keyspace::decisions_from(keep_from));
            let limit = SWEEP + 2 * ops;
            let old = self.core.engine.scan(Bound::Included(&from), Bound::Excluded(&to), limit)?;
            if old.len() < limit {
                self.swept = keep_from;
            }
            old.into_iter().for_each(|(key, _)| view.delete(key));
        }
        Ok(())
    }

    fn write(&mut self, mut view: View<'_>) -> Result<(), Failure> {
        let core = Arc::clone(&self.core);
        let (draft, open_txns) = (std::mem::take(&mut view.draft), view.open_txns);
        let (batch, before, state, reclaim_change) = view.finish().map_err(|e| self.stop(&e.to_string(), Failure::Unchanged))?;
        if batch.is_empty() {
            return Ok(());
        }
        let gate = core.gate.blocking_write();
        core.snapshot.keep(core.engine.as_ref(), &batch);
        core.in_flight.begin(before);
        match apply(core.engine.as_ref(), &batch) {
            Ok(()) => {
                core.in_flight.durable();
                self.state = state;
                core.count(state, &reclaim_change, open_txns);
                core.quotas.commit(&draft);
                drop(gate);
                Ok(())
            }
            Err(ApplyError::Unknown(e)) => {
                core.in_flight.failed();
                Err(self.stop(&e.to_string(), Failure::Unknown))
            }
            Err(unchanged) => {
                core.in_flight.unchanged();
                Err(self.stop(&unchanged.to_string(), Failure::Unchanged))
            }
        }
    }

    /// After a failed batch none is taken: what the disk holds is only known after a restart.
    fn stop(&self, why: &str, failure: Failure) -> Failure {
        self.core.stopped.store(true, Ordering::SeqCst);
        tracing::error!(error = why, "a batch of the catalog failed; it takes no more writes until the master is restarted");
        failure
    }
}

/// How a batch failed.
#[derive(Clone, Copy)]
enum Failure {
    Unchanged,
    Unknown,
}

impl Failure {
    fn error(self) -> CatalogError {
        match self {
            Self::Unchanged => CatalogError::Stopped,
            Self::Unknown => CatalogError::OutcomeUnknown,
        }
    }
}

/// A panic inside the engine is a failure like others; it must not leave callers without an answer.
fn apply(engine: &dyn Engine, batch: &Batch) -> Result<(), ApplyError> {
    catch_unwind(AssertUnwindSafe(|| engine.apply(batch)))
        .unwrap_or_else(|_| Err(ApplyError::Unknown(EngineError::Io("the database panicked (see the log above)".into()))))
}

fn room(engine: &dyn Engine) -> Room {
    let free = engine.free_bytes().unwrap_or_else(|e| {
        tracing::warn!(error = %e, "the free space of the catalog's disk is not known; no writes are taken");
        0
    });
    Room { free, for_put: free >= PUT_RESERVE_BYTES, for_delete: free >= DELETE_RESERVE_BYTES }
}

/// Takes the request to close out of the operations; those after it are refused.
fn take_close(ops: &mut Vec<Op>) -> Option<Reply<()>> {
    let at = ops.iter().position(|op| matches!(op, Op::Close(_)))?;
    let mut tail = ops.drain(at..);
    let close = tail.next();
    tail.for_each(|op| op.fail(&|| CatalogError::Closed));
    match close {
        Some(Op::Close(reply)) => Some(reply),
        _ => None,
    }
}

/// Decides one operation. Its answer is given once the batch is durable; an error is answered at once, as
/// nothing of the operation is in the batch then.
fn decide_one(view: &mut View<'_>, engine: &dyn Engine, now: &Now, op: Op) -> Option<Answer> {
    match op {
        Op::Put(put, reply) => ready(decide::put(view, now, &put), reply, Answer::Commit),
        Op::Delete(delete, reply) => ready(decide::delete(view, now, &delete), reply, Answer::Commit),
        Op::Batch(several, reply) => ready(batch::of_client(view, now, &several), reply, Answer::Batch),
        Op::DeleteAll(what, reply) => ready(delete_all::remove(view, engine, now, &what), reply, Answer::DeletedPage),
        Op::Resolve(doubt, reply) => ready(resolve::resolve(view, now, &doubt), reply, Answer::Resolved),
        Op::Settle(volume, items, reply) => {
            ready(items.iter().map(|item| decide::settle(view, now, volume, item)).collect(), reply, Answer::Settle)
        }
        Op::ReclaimDone(volume, versions, reply) => {
            let done = need_room(now).and_then(|()| versions.iter().try_for_each(|v| view.drop_reclaim(volume, *v)));
            ready(done, reply, |reply, ()| Answer::Done(reply))
        }
        Op::SweepExpired(reply) => ready(expiry::sweep(view, engine, now), reply, Answer::Swept),
        Op::Txn(op) => op.decide(view, engine, now).map(Answer::Txn),
        Op::SetReplicas(change, reply) => ready(placing::set_replicas(view, now, &change), reply, Answer::Placed),
        Op::Unwanted(copies, reply) => ready(copies.iter().map(|u| unwanted::remove(view, now, u)).collect(), reply, Answer::Unlisted),
        Op::Duty(id, duty, reply) => {
            let done = need_room(now).and_then(|()| placing::set_duty(view, id, duty));
            ready(done, reply, |reply, ()| Answer::Done(reply))
        }
        Op::Listed(address, listed, reply) => {
            let done = need_room(now).map(|()| placing::set_listed(view, &address, listed));
            ready(done, reply, |reply, ()| Answer::Done(reply))
        }
        Op::ForgetReclaim(volume, reply) => {
            let more = need_room(now).and_then(|()| placing::forget_reclaim(view, engine, volume, FORGET));
            ready(more, reply, Answer::More)
        }
        Op::Volume(id, address, reply) => ready(remember(view, now, id, address), reply, |reply, ()| Answer::Done(reply)),
        Op::Close(reply) => Some(Answer::Done(reply)),
    }
}

fn ready<T>(result: Result<T, CatalogError>, reply: Reply<T>, answer: impl FnOnce(Reply<T>, T) -> Answer) -> Option<Answer> {
    match result {
        Ok(value) => Some(answer(reply, value)),
        Err(e) => {
            let _caller_gone = reply.send(Err(e));
            None
        }
    }
}

fn need_room(now: &Now) -> Result<(), CatalogError> {
    if now.room.for_delete { Ok(()) } else { Err(CatalogError::NoSpace { free: now.room.free }) }
}

fn remember(view: &mut View<'_>, now: &Now, id: VolumeId, address: String) -> Result<(), CatalogError> {
    let key = keyspace::volume(id);
    let known = view.get(&key)?.map(|b| decode::<VolumeEntry>(&b, "volume entry")).transpose()?;
    if known.is_some_and(|v| v.address == address) {
        return Ok(());
    }
    need_room(now)?;
    view.put(key, encode(&VolumeEntry { address }, "volume entry")?);
    Ok(())
}

impl Op {
    fn fail(self, error: &dyn Fn() -> CatalogError) {
        // A caller that has gone away needs no answer.
        let _gone = match self {
            Self::Put(_, r) | Self::Delete(_, r) => r.send(Err(error())).is_err(),
            Self::Batch(_, r) => r.send(Err(error())).is_err(),
            Self::DeleteAll(_, r) => r.send(Err(error())).is_err(),
            Self::Resolve(_, r) => r.send(Err(error())).is_err(),
            Self::Settle(_, _, r) => r.send(Err(error())).is_err(),
            Self::SweepExpired(r) => r.send(Err(error())).is_err(),
            Self::Txn(op) => return op.fail(error()),
            Self::SetReplicas(_, r) => r.send(Err(error())).is_err(),
            Self::Unwanted(_, r) => r.send(Err(error())).is_err(),
            Self::ForgetReclaim(_, r) => r.send(Err(error())).is_err(),
            Self::ReclaimDone(_, _, r) | Self::Volume(_, _, r) | Self::Duty(_, _, r) | Self::Listed(_, _, r) | Self::Close(r) => {
                r.send(Err(error())).is_err()
            }
        };
    }
}

impl Answer {
    fn give(self) {
        // A caller that has gone away needs no answer: what was decided stands.
        let _gone = match self {
            Self::Commit(r, a) => r.send(Ok(a)).is_err(),
            Self::Batch(r, a) => r.send(Ok(a)).is_err(),
            Self::DeletedPage(r, a) => r.send(Ok(a)).is_err(),
            Self::Resolved(r, a) => r.send(Ok(a)).is_err(),
            Self::Settle(r, a) => r.send(Ok(a)).is_err(),
            Self::Swept(r, a) => r.send(Ok(a)).is_err(),
            Self::Txn(reply) => return reply.give(Ok(())),
            Self::Placed(r, a) => r.send(Ok(a)).is_err(),
            Self::Unlisted(r, a) => r.send(Ok(a)).is_err(),
            Self::More(r, a) => r.send(Ok(a)).is_err(),
            Self::Done(r) => r.send(Ok(())).is_err(),
        };
    }

    fn fail(self, error: CatalogError) {
        let _gone = match self {
            Self::Commit(r, _) => r.send(Err(error)).is_err(),
            Self::Batch(r, _) => r.send(Err(error)).is_err(),
            Self::DeletedPage(r, _) => r.send(Err(error)).is_err(),
            Self::Resolved(r, _) => r.send(Err(error)).is_err(),
            Self::Settle(r, _) => r.send(Err(error)).is_err(),
            Self::Swept(r, _) => r.send(Err(error)).is_err(),
            Self::Txn(reply) => return reply.give(Err(error)),
            Self::Placed(r, _) => r.send(Err(error)).is_err(),
            Self::Unlisted(r, _) => r.send(Err(error)).is_err(),
            Self::More(r, _) => r.send(Err(error)).is_err(),
            Self::Done(r) => r.send(Err(error)).is_err(),
        };
    }
}
