//! Transactions as the catalog is asked for them, and as their answers wait for their batch.

use super::batch::Member;
use super::committer::Reply;
use super::core::Core;
use super::decide::Now;
use super::engine::Engine;
use super::error::CatalogError;
use super::expiry::Swept;
use super::keyspace;
use super::record::decode;
use super::transaction::{Transaction, TxnAnswer, TxnEntry, TxnState, abort, begin, commit, members, stage, sweep};
use super::view::View;
use super::{Catalog, Op};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::{Problem, TxnId, UnixMillis};

pub(super) enum TxnOp {
    Begin(TxnId, UnixMillis, Reply<bool>),
    Stage(TxnId, Box<Member>, Reply<CommitAnswer>),
    Commit(TxnId, Reply<TxnAnswer>),
    Abort(TxnId, Reply<Result<(), Problem>>),
    Sweep(Reply<Swept>),
}

/// An answer that waits for its batch.
pub(super) enum TxnReply {
    Begun(Reply<bool>, bool),
    Staged(Reply<CommitAnswer>, CommitAnswer),
    Committed(Reply<TxnAnswer>, TxnAnswer),
    Aborted(Reply<Result<(), Problem>>, Result<(), Problem>),
    Swept(Reply<Swept>, Swept),
}

impl TxnOp {
    /// Whether it reads whole ranges, and so needs a batch of the committer in which nothing else is written.
    pub(super) fn is_large(&self) -> bool {
        matches!(self, Self::Commit(..) | Self::Sweep(..))
    }

    /// An error is answered at once.
    pub(super) fn decide(self, view: &mut View<'_>, engine: &dyn Engine, now: &Now) -> Option<TxnReply> {
        fn done<T>(result: Result<T, CatalogError>, reply: Reply<T>, answer: impl FnOnce(Reply<T>, T) -> TxnReply) -> Option<TxnReply> {
            match result {
                Ok(value) => Some(answer(reply, value)),
                Err(e) => {
                    let _caller_gone = reply.send(Err(e));
                    None
                }
            }
        }
        match self {
            Self::Begin(id, expires, reply) => done(begin(view, now, id, expires), reply, TxnReply::Begun),
            Self::Stage(id, member, reply) => done(stage(view, now, id, &member), reply, TxnReply::Staged),
            Self::Commit(id, reply) => done(commit(view, engine, now, id), reply, TxnReply::Committed),
            Self::Abort(id, reply) => done(abort(view, now, id), reply, TxnReply::Aborted),
            Self::Sweep(reply) => done(sweep(view, engine, now), reply, TxnReply::Swept),
        }
    }

    pub(super) fn fail(self, error: CatalogError) {
        // A caller that has gone away needs no answer.
        let _gone = match self {
            Self::Begin(.., r) => r.send(Err(error)).is_err(),
            Self::Stage(.., r) => r.send(Err(error)).is_err(),
            Self::Commit(_, r) => r.send(Err(error)).is_err(),
            Self::Abort(_, r) => r.send(Err(error)).is_err(),
            Self::Sweep(r) => r.send(Err(error)).is_err(),
        };
    }
}

impl TxnReply {
    /// Gives the answer, or the error of the batch.
    pub(super) fn give(self, outcome: Result<(), CatalogError>) {
        // A caller that has gone away needs no answer: what was decided stands.
        let _gone = match self {
            Self::Begun(r, a) => r.send(outcome.map(|()| a)).is_err(),
            Self::Staged(r, a) => r.send(outcome.map(|()| a)).is_err(),
            Self::Committed(r, a) => r.send(outcome.map(|()| a)).is_err(),
            Self::Aborted(r, a) => r.send(outcome.map(|()| a)).is_err(),
            Self::Swept(r, a) => r.send(outcome.map(|()| a)).is_err(),
        };
    }
}

impl Core {
    /// A transaction as far as it can be seen; a durable view must be held.
    fn transaction(&self, id: TxnId) -> Result<Option<Transaction>, CatalogError> {
        let Some(bytes) = self.engine.get(&keyspace::txn(id))? else { return Ok(None) };
        let entry: TxnEntry = decode(&bytes, "transaction")?;
        if entry.state == TxnState::Open && !entry.is_open(self.clock.now()) {
            return Ok(None);
        }
        let members = if entry.state == TxnState::Aborted { Vec::new() } else { members(self.engine.as_ref(), id, entry.expires)? };
        Ok(Some(Transaction { state: entry.state, expires: entry.expires, members }))
    }
}

impl Catalog {
    /// Begins a transaction that ends by itself at this time, durably. None: [`super::MAX_OPEN_TXNS`] are open.
    pub async fn begin_txn(&self, expires: UnixMillis) -> Result<Option<TxnId>, CatalogError> {
        let id = TxnId::random();
        let begun = self.ask(|reply| Op::Txn(TxnOp::Begin(id, expires, reply))).await?;
        Ok(begun.then_some(id))
    }

    /// When a transaction that is open now ends by itself; none: it is not open. Cheap.
    pub fn open_txn(&self, id: TxnId) -> Result<Option<UnixMillis>, CatalogError> {
        let Some(bytes) = self.0.core.engine.get(&keyspace::txn(id))? else { return Ok(None) };
        let entry: TxnEntry = decode(&bytes, "transaction")?;
        Ok(entry.is_open(self.now()).then_some(entry.expires))
    }

    /// Puts a member, whose replicas are durable, into a transaction. The answer's standing is `Staged`, or how the version
    /// stands since the transaction was committed. Errors and refusals are as with [`Catalog::commit`].
    pub async fn stage(&self, id: TxnId, member: Member) -> Result<CommitAnswer, CatalogError> {
        self.ask(|reply| Op::Txn(TxnOp::Stage(id, Box::new(member), reply))).await
    }

    /// Commits all members of a transaction in one durable step, or none. Errors are as with [`Catalog::commit`]; asked again within
    /// 300 s after it was done, it gives the same answer.
    pub async fn commit_txn(&self, id: TxnId) -> Result<TxnAnswer, CatalogError> {
        self.ask(|reply| Op::Txn(TxnOp::Commit(id, reply))).await
    }

    /// Gives a transaction up, for good; its members go with the next sweeps.
    pub async fn abort_txn(&self, id: TxnId) -> Result<Result<(), Problem>, CatalogError> {
        self.ask(|reply| Op::Txn(TxnOp::Abort(id, reply))).await
    }

    /// Removes what is left of transactions that are over, a step at a time.
    pub async fn sweep_txns(&self) -> Result<Swept, CatalogError> {
        self.ask(|reply| Op::Txn(TxnOp::Sweep(reply))).await
    }

    /// A transaction and its members; none: there is none of this id, or it has expired.
    pub async fn transaction(&self, id: TxnId) -> Result<Option<Transaction>, CatalogError> {
        self.read_durable(move |core| core.transaction(id)).await
    }
}
