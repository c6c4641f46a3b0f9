//! Several keys changed together: all or none, in one step of the committer.

use super::decide::{self, CommitDelete, CommitPut, Now};
use super::error::CatalogError;
use super::keyspace;
use super::record::{decode, encode};
use super::view::{View, epoch};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::{Condition, ContentHash, ErrorCode, Key, Problem, UnixMillis, VersionId};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Most bytes that one batch may write to the catalog. Like the bound of the committer's own batches it keeps what is written
/// within one segment of sled's log (512 KiB).
pub(super) const MAX_WRITTEN_BYTES: usize = 256 << 10;
/// Results in one entry of what is remembered, so that it stays below the engine's largest value.
const PART: usize = 256;
/// In the place of a part's number: why it was refused.
const REFUSAL: u16 = u16::MAX;

/// What a caller names a batch by, so that asking again does not do it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId {
    /// The name.
    pub name: [u8; 16],
    /// Digest of what is asked, so that another batch of the same name is found out.
    pub digest: ContentHash,
}

/// One key's part in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A value whose replicas are durable.
    Put(CommitPut),
    /// The key is to be absent; it may be so already.
    Delete {
        /// The key.
        key: Key,
        /// The preconditions.
        condition: Condition,
    },
}

impl Member {
    /// Its key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(put) => &put.key,
            Self::Delete { key, .. } => key,
        }
    }
}

/// Keys to be changed together; all different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitBatch {
    /// Its name, where it may be asked for again.
    pub id: Option<BatchId>,
    /// The last time for its commit.
    pub commit_by: UnixMillis,
    /// The keys.
    pub members: Vec<Member>,
}

/// What became of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// It was new.
    Created {
        /// Its version.
        version: VersionId,
        /// Its place in the order of all commits.
        seq: u64,
    },
    /// Its value was replaced.
    Replaced {
        /// Its version.
        version: VersionId,
        /// Its place in the order of all commits.
        seq: u64,
    },
    /// It was removed.
    Deleted {
        /// The version that was removed.
        version: VersionId,
    },
    /// There was nothing to remove.
    Absent,
}

/// The final word on a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchAnswer {
    /// Done and durable: what became of each key, in the order given.
    Committed(Vec<Changed>),
    /// It had been done before; the values that came this time belong to nobody.
    Repeated(Vec<Changed>),
    /// Nothing was changed, and these versions will not be committed.
    Refused(Problem),
}

/// A part of what is remembered of a batch.
#[derive(Serialize, Deserialize)]
struct Remembered {
    digest: ContentHash,
    /// Parts in all.
    parts: u16,
    changed: Vec<Changed>,
}

/// Why a batch was refused.
#[derive(Serialize, Deserialize)]
struct RefusedAs {
    digest: ContentHash,
    /// As text: its place in the list of codes may change.
    code: String,
    detail: String,
    /// The members that are to blame, by their places.
    members: Vec<u16>,
}

/// Does a batch as a client sends it: what was refused under its name stays refused.
pub(super) fn of_client(view: &mut View<'_>, now: &Now, batch: &CommitBatch) -> Result<BatchAnswer, CatalogError> {
    if let Some(answer) = refused_before(view, now, batch)? {
        return Ok(answer);
    }
    let answer = apply(view, now, batch)?;
    if let BatchAnswer::Refused(problem) = &answer {
        remember_refusal(view, now, batch, problem)?;
    }
    Ok(answer)
}

/// Does a batch. One that was refused may be asked for again.
pub(super) fn apply(view: &mut View<'_>, now: &Now, batch: &CommitBatch) -> Result<BatchAnswer, CatalogError> {
    if let Some(answer) = repeated(view, now, batch)? {
        return Ok(answer);
    }
    let has_puts = batch.members.iter().any(|m| matches!(m, Member::Put(_)));
    now.require(if has_puts { now.room.for_put } else { now.room.for_delete })?;
    let before = view.clone();
    view.draft.judged_at_the_end = true;
    let answer = change(view, now, batch).and_then(|answer| within_quotas(view, &before, batch, answer));
    view.draft.judged_at_the_end = false;
    let answer = match answer {
        Ok(BatchAnswer::Committed(changed)) => remember(view, now, batch, changed),
        other => other,
    };
    let written = view.bytes().saturating_sub(before.bytes());
    let answer = match answer {
        Ok(BatchAnswer::Committed(_)) if written > MAX_WRITTEN_BYTES => {
            let detail = format!(
                "the batch would write {written} bytes to the catalog, and may write {MAX_WRITTEN_BYTES}; give fewer operations or shorter keys"
            );
            Ok(BatchAnswer::Refused(Problem::new(ErrorCode::ValueTooLarge, detail)))
        }
        other => other,
    };
    if !matches!(answer, Ok(BatchAnswer::Committed(_))) && !lab::has(Bug::BatchNotTakenBack) {
        *view = before;
    }
    answer
}

/// Quotas are those of the whole: what it deletes makes room for what it puts, in any order.
fn within_quotas(view: &View<'_>, before: &View<'_>, batch: &CommitBatch, answer: BatchAnswer) -> Result<BatchAnswer, CatalogError> {
    let stored = batch.members.iter().filter(|m| matches!(m, Member::Put(_))).map(Member::key);
    match answer {
        BatchAnswer::Committed(_) if !lab::has(Bug::BatchQuotaNotJudged) => {
            Ok(view.draft.refusal_since(&before.draft, stored)?.map_or(answer, BatchAnswer::Refused))
        }
        other => Ok(other),
    }
}

/// Changes one key after the other, to the end even if one is refused, so that all that are can be named. The caller takes it
/// back then.
fn change(view: &mut View<'_>, now: &Now, batch: &CommitBatch) -> Result<BatchAnswer, CatalogError> {
    let mut changed = Vec::with_capacity(batch.members.len());
    let mut refused: Vec<(&Key, Problem)> = Vec::new();
    for member in &batch.members {
        match one(view, now, batch.commit_by, member)? {
            Ok(done) => changed.push(done),
            Err(problem) => refused.push((member.key(), problem)),
        }
    }
    if refused.is_empty() {
        return Ok(BatchAnswer::Committed(changed));
    }
    let of_condition = |code| matches!(code, ErrorCode::Exists | ErrorCode::PreconditionFailed);
    // What no change of the preconditions would help against comes first.
    let problem = match refused.iter().find(|(_, p)| !of_condition(p.code)) {
        Some((_, other)) => {
            let code = other.code;
            other.clone().of_keys(refused.iter().filter(|(_, p)| p.code == code).map(|(key, _)| *key))
        }
        None => {
            let detail = format!("{} of the batch's preconditions do not hold; nothing was changed", refused.len());
            Problem::new(ErrorCode::PreconditionFailed, detail).of_keys(refused.iter().map(|(key, _)| *key))
        }
    };
    Ok(BatchAnswer::Refused(problem))
}

fn one(view: &mut View<'_>, now: &Now, commit_by: UnixMillis, member: &Member) -> Result<Result<Changed, Problem>, CatalogError> {
    let answer = match member {
        Member::Put(put) if lab::has(Bug::BatchConditionNotChecked) => {
            decide::put(view, now, &CommitPut { create: false, condition: Condition::default(), ..put.clone() })?
        }
        Member::Put(put) => decide::put(view, now, put)?,
        Member::Delete { key, condition } => {
            let delete = CommitDelete { key: key.clone(), version: None, condition: condition.clone(), commit_by };
            decide::delete(view, now, &delete)?
        }
    };
    Ok(match (answer, member) {
        (CommitAnswer::Committed(c), Member::Put(put)) if c.created => Ok(Changed::Created { version: put.version, seq: c.seq }),
        (CommitAnswer::Committed(c), Member::Put(put)) => Ok(Changed::Replaced { version: put.version, seq: c.seq }),
        (CommitAnswer::Committed(c), Member::Delete { .. }) => {
            Ok(c.removed.map_or(Changed::Absent, |version| Changed::Deleted { version }))
        }
        (CommitAnswer::Refused(problem), Member::Delete { condition, .. }) if problem.code == ErrorCode::NotFound => {
            if condition.if_match.is_none() {
                Ok(Changed::Absent)
            } else {
                Err(Problem::new(ErrorCode::PreconditionFailed, problem.detail))
            }
        }
        (CommitAnswer::Refused(problem), _) => Err(problem),
    })
}

fn remember(view: &mut View<'_>, now: &Now, batch: &CommitBatch, changed: Vec<Changed>) -> Result<BatchAnswer, CatalogError> {
    if let Some(id) = batch.id.filter(|_| !lab::has(Bug::BatchForgotten)) {
        let parts = u16::try_from(changed.len().div_ceil(PART)).unwrap_or(u16::MAX);
        for (part, some) in (0..parts).zip(changed.chunks(PART)) {
            let entry = Remembered { digest: id.digest, parts, changed: some.to_vec() };
            view.put(keyspace::batch_decision(epoch(now.time), id.name, part), encode(&entry, "decision on a batch")?);
        }
    }
    Ok(BatchAnswer::Committed(changed))
}

/// An earlier try whose client is gone may still wait for a volume: it must not be done after its client was told, at another try, that
/// nothing was changed. Not remembered is what the same batch may meet otherwise later, and that the name is another batch's.
fn remember_refusal(view: &mut View<'_>, now: &Now, batch: &CommitBatch, problem: &Problem) -> Result<(), CatalogError> {
    let final_word = !problem.retry && problem.code != ErrorCode::BadRequest;
    let Some(id) = batch.id.filter(|_| final_word && !lab::has(Bug::BatchRefusalForgotten)) else { return Ok(()) };
    let blamed: HashSet<&String> = problem.keys.iter().flat_map(|keys| &keys.0).collect();
    let places = (0..).zip(&batch.members).filter(|(_, m)| blamed.contains(&m.key().display())).map(|(at, _)| at);
    let (code, detail) = (problem.code.as_str().into(), problem.detail.clone());
    let entry = RefusedAs { digest: id.digest, code, detail, members: places.collect() };
    view.put(keyspace::batch_decision(epoch(now.time), id.name, REFUSAL), encode(&entry, "refusal of a batch")?);
    Ok(())
}

/// Why a batch of this name was refused in the present epoch or the last, if one was.
fn refused_before(view: &View<'_>, now: &Now, batch: &CommitBatch) -> Result<Option<BatchAnswer>, CatalogError> {
    let Some(id) = &batch.id else { return Ok(None) };
    for at in [Some(epoch(now.time)), epoch(now.time).checked_sub(1)].into_iter().flatten() {
        let Some(bytes) = view.get(&keyspace::batch_decision(at, id.name, REFUSAL))? else { continue };
        let entry: RefusedAs = decode(&bytes, "refusal of a batch")?;
        if entry.digest != id.digest {
            return Ok(Some(name_of_another()));
        }
        let code = ErrorCode::ALL.iter().copied().find(|c| c.as_str() == entry.code).unwrap_or(ErrorCode::PreconditionFailed);
        let (problem, blamed) = (Problem::new(code, entry.detail), &entry.members);
        if blamed.is_empty() {
            return Ok(Some(BatchAnswer::Refused(problem)));
        }
        let keys = blamed.iter().filter_map(|at| batch.members.get(usize::from(*at))).map(Member::key);
        return Ok(Some(BatchAnswer::Refused(problem.of_keys(keys))));
    }
    Ok(None)
}

fn name_of_another() -> BatchAnswer {
    let detail = "another batch was sent with this Idempotency-Key; give each batch a key of its own";
    BatchAnswer::Refused(Problem::new(ErrorCode::BadRequest, detail))
}

/// What became of a batch of this name, if it was done in the present epoch or the last.
fn repeated(view: &View<'_>, now: &Now, batch: &CommitBatch) -> Result<Option<BatchAnswer>, CatalogError> {
    let Some(id) = &batch.id else { return Ok(None) };
    let done = find(view, now, id)?;
    Ok(done.map(|(digest, changed)| if digest == id.digest { BatchAnswer::Repeated(changed) } else { name_of_another() }))
}

/// What became of the batch of this name and digest, as far as it is remembered.
pub(super) fn remembered(view: &View<'_>, now: &Now, id: &BatchId) -> Result<Option<Vec<Changed>>, CatalogError> {
    Ok(find(view, now, id)?.filter(|(digest, _)| *digest == id.digest).map(|(_, changed)| changed))
}

fn find(view: &View<'_>, now: &Now, id: &BatchId) -> Result<Option<(ContentHash, Vec<Changed>)>, CatalogError> {
    for at in [Some(epoch(now.time)), epoch(now.time).checked_sub(1)].into_iter().flatten() {
        let part = |n| -> Result<Option<Remembered>, CatalogError> {
            view.get(&keyspace::batch_decision(at, id.name, n))?.map(|b| decode(&b, "decision on a batch")).transpose()
        };
        let Some(first) = part(0)? else { continue };
        let mut changed = first.changed;
        for n in 1..first.parts {
            changed.extend(part(n)?.ok_or_else(|| CatalogError::corrupt("decision on a batch", "a part of it is missing"))?.changed);
        }
        return Ok(Some((first.digest, changed)));
    }
    Ok(None)
}
