//! What became of a write whose answer was lost. If nothing did so far, nothing will: the caller may send it again.
//!
//! "Nothing" is only said where a commit would have left a trace that is still there: the record, or for at least
//! [`DECISION_EPOCH`] after it was replaced or removed, a decision.

use super::decide::{self, Now};
use super::error::CatalogError;
use super::keyspace;
use super::record::{Decision, ReclaimEntry};
use super::transaction;
use super::view::{DECISION_EPOCH, View, epoch};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::{ErrorCode, Key, Problem, TxnId, UnixMillis, VersionId, VolumeId};

/// A write under a ticket, of which it is not known what became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its key.
    pub key: Key,
    /// The ticket's version.
    pub version: VersionId,
    /// The volumes of the value; none: it was a delete.
    pub replicas: Option<Vec<VolumeId>>,
    /// The transaction that the value was put into.
    pub txn: Option<TxnId>,
    /// Not later than when the ticket was made.
    pub issued: UnixMillis,
    /// The ticket's last time for the commit.
    pub commit_by: UnixMillis,
}

const GIVEN_UP: &str = "the client asked what became of this write, and was told that nothing had; it can be sent again";

/// None: it cannot be told any more.
pub(super) fn resolve(view: &mut View<'_>, now: &Now, doubt: &Doubt) -> Result<Option<CommitAnswer>, CatalogError> {
    if let Some(replicas) = &doubt.replicas {
        if let Some(record) = view.record(&doubt.key)?.filter(|r| r.version == doubt.version) {
            return Ok(Some(CommitAnswer::Committed(record.committed())));
        }
        if let Some(txn) = doubt.txn
            && transaction::is_staged(view, now, txn, &doubt.key, doubt.version)?
        {
            return Ok(Some(CommitAnswer::Committed(transaction::staged(doubt.version))));
        }
        for &volume in replicas {
            if let Some(ReclaimEntry { committed: Some(c), .. }) = view.reclaim(volume, doubt.version)? {
                return Ok(Some(CommitAnswer::Committed(c.into())));
            }
        }
    }
    let deadline = match doubt.replicas {
        Some(_) => now.deadline(doubt.version, doubt.commit_by),
        None => doubt.commit_by,
    };
    let decision_key = |e| match doubt.replicas {
        Some(_) => keyspace::put_decision(e, doubt.version),
        None => keyspace::delete_decision(e, doubt.version, doubt.commit_by.0),
    };
    if let Some(decision) = view.decision(now.time, deadline, decision_key)? {
        return Ok(Some(decision.into()));
    }
    let traces_may_be_gone = now.time > doubt.issued.plus(DECISION_EPOCH) || decide::is_before(now, doubt.issued);
    if traces_may_be_gone {
        return Ok(None);
    }
    if now.time <= deadline {
        now.require(now.room.for_delete)?;
        // It must be known for as long as a commit might be asked for.
        view.decide(
            decision_key(epoch(deadline)),
            &Decision::Refused { code: ErrorCode::Conflict.as_str().into(), detail: GIVEN_UP.into() },
        )?;
    }
    Ok(Some(CommitAnswer::Refused(Problem::new(ErrorCode::Conflict, GIVEN_UP))))
}
