//! What becomes of one operation, given the catalog as it stands. No I/O but reads, no clock, no threads.
//!
//! # Why a commit may be asked for twice, and never takes effect twice
//!
//! A caller without an answer asks again, and the first call may still be on its way somewhere. So for
//! every version the catalog can tell for long enough what was decided:
//! - committed and current: the record knows;
//! - committed and replaced or deleted: the reclaim entries know, until the volumes have removed their
//!   copies, and a decision entry knows if it was replaced or deleted lately: a repeat can
//!   neither bring an old value back nor be told that it never happened;
//! - refused: a decision entry knows, so that a late first call cannot commit what a volume has already
//!   dropped because its second call was refused, or that a client was told never happened (`resolve`);
//! - past its deadline: refused by the clock, which never goes back.
//!
//! Concurrent writes are ordered by their commits, not by their version ids: the last to commit wins.

use super::error::CatalogError;
use super::keyspace;
use super::record::{CommittedAs, Decision, ReclaimEntry, Record};
use super::transaction;
use super::view::{View, epoch};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::limits::{MAX_CONTENT_TYPE_BYTES, MAX_REPLICAS};
use kvdb_protocol::message::{CommitAnswer, Committed, Deleted, Outcome, SettleItem, Standing};
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, ErrorCode, Key, Problem, UnixMillis, VersionId, VolumeId};
use std::collections::HashSet;
use std::time::Duration;

/// A version is never committed later than this after it was given out, whatever its ticket says. So
/// that a volume that has lost a ticket's times can drop a version that was not committed by then.
pub const MAX_TICKET_LIFE: Duration = Duration::from_secs(26 * 3600);

/// A value whose replicas are all durable, to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPut {
    /// Its key.
    pub key: Key,
    /// Its version, as the ticket has it.
    pub version: VersionId,
    /// Only if the key does not exist.
    pub create: bool,
    /// The ticket's preconditions.
    pub condition: Condition,
    /// The ticket's last time for the commit.
    pub commit_by: UnixMillis,
    /// Length, in bytes.
    pub len: u64,
    /// Hash.
    pub hash: ContentHash,
    /// Content type.
    pub content_type: Option<String>,
    /// When it expires.
    pub expires: Option<UnixMillis>,
    /// The volumes that hold it: 1 to [`MAX_REPLICAS`], all different.
    pub replicas: Vec<VolumeId>,
}

/// A key to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitDelete {
    /// The key.
    pub key: Key,
    /// The version that the ticket saw; none where there is no ticket, and the call is not repeated.
    pub version: Option<VersionId>,
    /// The preconditions.
    pub condition: Condition,
    /// The ticket's last time for the commit.
    pub commit_by: UnixMillis,
}

/// Room on the disk as the batch begins, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) for_put: bool,
    pub(super) for_delete: bool,
}

/// What the operations of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) time: UnixMillis,
    /// What values expire by.
    pub(super) expiry: UnixMillis,
    /// Versions with an earlier time are from before a rebuild.
    pub(super) floor: u64,
    pub(super) room: Room,
}

impl Now {
    pub(super) fn require(&self, room: bool) -> Result<(), CatalogError> {
        if room { Ok(()) } else { Err(CatalogError::NoSpace { free: self.room.free }) }
    }

    /// The last time at which a version may be committed. `commit_by` of zero is not known.
    pub(super) fn deadline(&self, version: VersionId, commit_by: UnixMillis) -> UnixMillis {
        let longest = UnixMillis(version.unix_millis()).plus(MAX_TICKET_LIFE);
        if commit_by.0 == 0 { longest } else { longest.min(commit_by) }
    }

    pub(super) fn too_late(&self, version: VersionId, commit_by: UnixMillis) -> Option<Problem> {
        if version.unix_millis() < self.floor {
            return Some(Problem::new(ErrorCode::Conflict, "the metadata was rebuilt while the value was on its way; send it again"));
        }
        (self.time > self.deadline(version, commit_by) && !lab::has(Bug::LateCommitAccepted))
            .then(|| Problem::new(ErrorCode::Conflict, "the write took longer than its ticket allows; ask the master again"))
    }
}

/// Whether this is from before a rebuild, which knows nothing of it.
pub(super) fn is_before(now: &Now, time: UnixMillis) -> bool {
    time.0 < now.floor
}

/// Refuses and remembers it, so that a repeat cannot get another answer.
fn refuse(view: &mut View<'_>, decision_key: Option<Vec<u8>>, code: ErrorCode, detail: &str) -> Result<CommitAnswer, CatalogError> {
    if let Some(key) = decision_key.filter(|_| !lab::has(Bug::RefusalForgotten)) {
        view.decide(key, &Decision::Refused { code: code.as_str().into(), detail: detail.into() })?;
    }
    Ok(CommitAnswer::Refused(Problem::new(code, detail)))
}

const EXISTS: &str = "the key exists, and the request was to create it; use PUT to replace it";
const PRECONDITION: &str = "the key's present value does not satisfy If-Match or If-None-Match; read it again";
const NOT_FOUND: &str = "there is no value under this key";

pub(super) fn put(view: &mut View<'_>, now: &Now, p: &CommitPut) -> Result<CommitAnswer, CatalogError> {
    check_put(p)?;
    let current = view.record(&p.key)?;
    if let Some(answer) = put_decided(view, now, p, current.as_ref())? {
        return Ok(answer);
    }
    if let Some(problem) = now.too_late(p.version, p.commit_by) {
        return Ok(CommitAnswer::Refused(problem));
    }
    now.require(now.room.for_put)?;
    let live = current.as_ref().filter(|r| !r.expired(now.expiry) || lab::has(Bug::ExpiredExists));
    let remember = Some(keyspace::put_decision(epoch(now.time), p.version));
    if p.create && live.is_some() && !lab::has(Bug::CreateNotChecked) {
        return refuse(view, remember, ErrorCode::Exists, EXISTS);
    }
    if !p.condition.holds(live.map(|r| r.hash)) && !lab::has(Bug::ConditionNotChecked) {
        return refuse(view, remember, ErrorCode::PreconditionFailed, PRECONDITION);
    }
    // What has expired is still there until it is swept, and counts.
    if let Some(problem) = view.draft.refusal(&p.key, p.len, p.content_type.as_deref(), current.as_ref().map(|r| r.len))? {
        return refuse(view, remember, problem.code, &problem.detail);
    }
    let record = Record {
        version: p.version,
        len: p.len,
        hash: p.hash,
        content_type: p.content_type.clone(),
        // As the volumes wrote it beside the value, before the commit: a rebuild finds the same.
        modified: UnixMillis(p.version.unix_millis()),
        expires: p.expires,
        replicas: p.replicas.clone(),
        seq: view.next_seq(),
        created: live.is_none(),
    };
    view.set_record(&p.key, current.as_ref(), Some(&record))?;
    if let Some(old) = &current {
        retire(view, now, &p.key, old, None)?;
    }
    Ok(CommitAnswer::Committed(record.committed()))
}

pub(super) fn check_put(p: &CommitPut) -> Result<(), CatalogError> {
    let distinct: HashSet<_> = p.replicas.iter().collect();
    if p.replicas.is_empty() || p.replicas.len() > MAX_REPLICAS || distinct.len() != p.replicas.len() {
        return Err(CatalogError::BadRequest(format!("a value has 1 to {MAX_REPLICAS} replicas on different volumes")));
    }
    if p.content_type.as_ref().is_some_and(|t| t.len() > MAX_CONTENT_TYPE_BYTES) {
        return Err(CatalogError::BadRequest(format!("a content type has at most {MAX_CONTENT_TYPE_BYTES} bytes")));
    }
    Ok(())
}

/// What was already decided about a version, if anything.
pub(super) fn put_decided(
    view: &View<'_>,
    now: &Now,
    p: &CommitPut,
    current: Option<&Record>,
) -> Result<Option<CommitAnswer>, CatalogError> {
    if let Some(record) = current.filter(|r| r.version == p.version) {
        if (record.len, record.hash) != (p.len, p.hash) {
            let what = format!("version {} was committed with another length or hash", p.version);
            return Err(CatalogError::BadRequest(what));
        }
        let here = p.replicas.len() == record.replicas.len() && p.replicas.iter().all(|v| record.replicas.contains(v));
        let standing = if here { Standing::Current } else { Standing::Moved };
        return Ok(Some(CommitAnswer::Committed(Committed { standing, ..record.committed() })));
    }
    if let Some(decision) = view.decision(now.time, now.deadline(p.version, p.commit_by), |e| keyspace::put_decision(e, p.version))? {
        return Ok(Some(decision.into()));
    }
    for &volume in &p.replicas {
        match view.reclaim(volume, p.version)? {
            Some(ReclaimEntry { committed: Some(c), .. }) => return Ok(Some(CommitAnswer::Committed(c.into()))),
            Some(_) => {
                let problem = Problem::new(ErrorCode::Conflict, "this version was found to be surplus; send the value again");
                return Ok(Some(CommitAnswer::Refused(problem)));
            }
            None => {}
        }
    }
    Ok(None)
}

/// A version is no longer current: its volumes have to remove it, and its commit may be asked for again.
pub(super) fn retire(view: &mut View<'_>, now: &Now, key: &Key, old: &Record, deleted: Option<Deleted>) -> Result<(), CatalogError> {
    let committed = CommittedAs::from(old.committed());
    let entry = ReclaimEntry { key: key.clone(), deleted, committed: Some(committed) };
    for &volume in old.replicas.iter().filter(|_| !lab::has(Bug::OldCopiesKept)) {
        view.add_reclaim(volume, old.version, &entry)?;
    }
    view.decide(keyspace::put_decision(epoch(now.time), old.version), &Decision::Committed(committed))
}

pub(super) fn delete(view: &mut View<'_>, now: &Now, d: &CommitDelete) -> Result<CommitAnswer, CatalogError> {
    // Two deletes are the same if their tickets saw the same version and have the same last time, which the master gives once;
    // another one finds nothing and is told so.
    let same = |version: VersionId| move |e| keyspace::delete_decision(e, version, d.commit_by.0);
    let remember = d.version.map(|v| same(v)(epoch(now.time)));
    if let Some(version) = d.version
        && let Some(decision) = view.decision(now.time, d.commit_by, same(version))?
    {
        return Ok(decision.into());
    }
    if now.time > d.commit_by {
        let detail = "the delete took longer than its ticket allows; ask the master again";
        return Ok(CommitAnswer::Refused(Problem::new(ErrorCode::Conflict, detail)));
    }
    now.require(now.room.for_delete)?;
    let Some(current) = view.record(&d.key)?.filter(|r| !r.expired(now.expiry)) else {
        return refuse(view, remember, ErrorCode::NotFound, NOT_FOUND);
    };
    if !d.condition.holds(Some(current.hash)) {
        return refuse(view, remember, ErrorCode::PreconditionFailed, PRECONDITION);
    }
    let seq = view.next_seq();
    view.set_record(&d.key, Some(&current), None)?;
    retire(view, now, &d.key, &current, Some(Deleted { seq, time: now.time }))?;
    let committed = Committed { seq, created: false, modified: now.time, removed: Some(current.version), standing: Standing::Current };
    if let Some(key) = remember {
        view.decide(key, &Decision::Committed(committed.into()))?;
    }
    Ok(CommitAnswer::Committed(committed))
}

/// `Drop` is final: each way to it is also a reason for which [`put`] refuses the version for good.
pub(super) fn settle(view: &View<'_>, now: &Now, volume: VolumeId, item: &SettleItem) -> Result<Outcome, CatalogError> {
    if let Some(record) = view.record(&item.key)?.filter(|r| r.version == item.version) {
        let kept = record.replicas.contains(&volume);
        // A copy that was ordered to become a replica may still do so until its time is over.
        return Ok(match kept {
            true => Outcome::Keep { seq: record.seq },
            false if now.time > item.commit_by => Outcome::Drop,
            false => Outcome::Pending,
        });
    }
    let deadline = now.deadline(item.version, item.commit_by);
    let decided = view.decision(now.time, deadline, |e| keyspace::put_decision(e, item.version))?.is_some()
        || view.reclaim(volume, item.version)?.is_some();
    let open = !decided && (now.too_late(item.version, item.commit_by).is_none() || transaction::is_waiting(view, now, item.version)?);
    Ok(if open && !lab::has(Bug::PendingDropped) { Outcome::Pending } else { Outcome::Drop })
}
