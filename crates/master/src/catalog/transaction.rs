//! Transactions: values that are uploaded one by one, over minutes or hours, and become visible together.
//!
//! What is put into one is *staged*: kept here beside the records, durably, while its copies stay prepared at their volumes. The
//! commit turns all that is staged into one batch of the committer. Volumes that ask for a staged version are told to wait until its
//! transaction has ended.
//!
//! # Why nothing that is given up comes back
//!
//! A version is staged only while its transaction is open, and an ended one never opens again. One that is replaced within its
//! transaction leaves a decision, as a refused commit does, so that a call that comes late cannot stage it again.

use super::batch::{self, BatchAnswer, BatchId, Changed, CommitBatch, MAX_WRITTEN_BYTES, Member};
use super::core::prefix_scan;
use super::decide::{self, CommitPut, Now};
use super::engine::Engine;
use super::error::CatalogError;
use super::expiry::Swept;
use super::keyspace;
use super::record::{Decision, ReclaimEntry, decode, encode};
use super::view::{DECISION_EPOCH, View, epoch};
use kvdb_protocol::lab::{self, Bug};
use kvdb_protocol::message::{CommitAnswer, Committed, Standing};
use kvdb_protocol::{Condition, ContentHash, ErrorCode, Key, Problem, TxnId, UnixMillis, VersionId, VolumeId};
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// Most transactions that are open at a time.
pub const MAX_OPEN: usize = 1_000;
/// Most keys of a transaction.
pub const MAX_MEMBERS: u32 = 1_000;
/// Transactions looked at in one step of the removal of what is over.
const SWEEP: usize = 64;
/// Members of one of them that are removed in one step.
const SWEEP_MEMBERS: usize = 256;
/// A step ends when its keys and values exceed this.
const SWEEP_BYTES: usize = 64 << 10;

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TxnState {
    /// It takes members until it ends.
    Open,
    /// Its members were committed.
    Committed,
    /// It was given up.
    Aborted,
}

/// What is stored of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TxnEntry {
    pub(super) state: TxnState,
    /// When it ends by itself.
    pub(super) expires: UnixMillis,
    /// When it is looked at next: the time of its entry in the list of what is due.
    due: UnixMillis,
    /// Until when it is remembered.
    remembered: UnixMillis,
    /// Its keys.
    members: u32,
    /// Bytes that its commit is reckoned to write.
    written: u64,
}

impl TxnEntry {
    pub(super) fn is_open(&self, now: UnixMillis) -> bool {
        self.state == TxnState::Open && now < self.expires
    }
}

/// What is stored of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StagedEntry {
    what: Staged,
    condition: Condition,
    /// Bytes that it is reckoned to write.
    written: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Staged {
    Put {
        version: VersionId,
        create: bool,
        len: u64,
        hash: ContentHash,
        content_type: Option<String>,
        expires: Option<UnixMillis>,
        replicas: Vec<VolumeId>,
    },
    Delete,
}

impl StagedEntry {
    fn of(member: &Member, written: u64) -> Self {
        match member {
            Member::Put(p) => Self {
                what: Staged::Put {
                    version: p.version,
                    create: p.create,
                    len: p.len,
                    hash: p.hash,
                    content_type: p.content_type.clone(),
                    expires: p.expires,
                    replicas: p.replicas.clone(),
                },
                condition: p.condition.clone(),
                written,
            },
            Member::Delete { condition, .. } => Self { what: Staged::Delete, condition: condition.clone(), written },
        }
    }

    fn version(&self) -> Option<VersionId> {
        match &self.what {
            Staged::Put { version, .. } => Some(*version),
            Staged::Delete => None,
        }
    }

    fn into_member(self, key: Key, commit_by: UnixMillis) -> Member {
        let condition = self.condition;
        match self.what {
            Staged::Put { version, create, len, hash, content_type, expires, replicas } => {
                Member::Put(CommitPut { key, version, create, condition, commit_by, len, hash, content_type, expires, replicas })
            }
            Staged::Delete => Member::Delete { key, condition },
        }
    }
}

/// A transaction as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Whether it is open.
    pub state: TxnState,
    /// When it ends by itself.
    pub expires: UnixMillis,
    /// Its keys, in order; none once it was given up.
    pub members: Vec<Member>,
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnAnswer {
    /// Done and durable, now or when it was first asked: the members in order of key, and what became of each.
    Committed(Vec<Member>, Vec<Changed>),
    /// Nothing was changed. A transaction that was open is open still.
    Refused(Problem),
}

fn unknown() -> Problem {
    let detail = "no transaction of this id is open: it was committed, given up or has expired, or there never was one; begin another";
    Problem::new(ErrorCode::NoSuchTransaction, detail)
}

fn entry(view: &View<'_>, id: TxnId) -> Result<Option<TxnEntry>, CatalogError> {
    view.get(&keyspace::txn(id))?.map(|b| decode(&b, "transaction")).transpose()
}

fn set_entry(view: &mut View<'_>, id: TxnId, entry: &TxnEntry) -> Result<(), CatalogError> {
    view.put(keyspace::txn(id), encode(entry, "transaction")?);
    Ok(())
}

/// The entry with another time at which it is looked at next.
fn set_due(view: &mut View<'_>, id: TxnId, entry: TxnEntry, due: UnixMillis) -> Result<(), CatalogError> {
    view.delete(keyspace::txn_due(entry.due, id));
    view.put(keyspace::txn_due(due, id), Vec::new());
    set_entry(view, id, &TxnEntry { due, ..entry })
}

fn staged_at(view: &View<'_>, at: &[u8]) -> Result<Option<StagedEntry>, CatalogError> {
    view.get(at)?.map(|b| decode(&b, "member of a transaction")).transpose()
}

pub(super) fn begin(view: &mut View<'_>, now: &Now, id: TxnId, expires: UnixMillis) -> Result<bool, CatalogError> {
    now.require(now.room.for_put)?;
    if view.open_txns >= MAX_OPEN {
        return Ok(false);
    }
    view.open_txns += 1;
    view.put(keyspace::txn_due(expires, id), Vec::new());
    let entry = TxnEntry { state: TxnState::Open, expires, due: expires, remembered: expires, members: 0, written: 0 };
    set_entry(view, id, &entry)?;
    Ok(true)
}

/// Takes a member, durably; one of the same key is replaced. Idempotent by version, like a commit.
pub(super) fn stage(view: &mut View<'_>, now: &Now, id: TxnId, member: &Member) -> Result<CommitAnswer, CatalogError> {
    let key = member.key();
    let current = view.record(key)?;
    if let Member::Put(put) = member {
        decide::check_put(put)?;
        if let Some(answer) = decide::put_decided(view, now, put, current.as_ref())? {
            return Ok(answer);
        }
    }
    let Some(mut entry) = entry(view, id)?.filter(|e| e.is_open(now.time)) else { return Ok(CommitAnswer::Refused(unknown())) };
    let at = keyspace::staged(id, key);
    let before = staged_at(view, &at)?;
    if let Member::Put(put) = member {
        if before.as_ref().and_then(StagedEntry::version) == Some(put.version) {
            return Ok(CommitAnswer::Committed(staged(put.version)));
        }
        if let Some(problem) = now.too_late(put.version, put.commit_by) {
            return Ok(CommitAnswer::Refused(problem));
        }
        if lab::has(Bug::StagedSeen) {
            return decide::put(view, now, put);
        }
    }
    now.require(if matches!(member, Member::Put(_)) { now.room.for_put } else { now.room.for_delete })?;
    let old = before.as_ref().map_or(0, |b| b.written);
    let new = reckoned(member, current.as_ref().map_or(0, |r| r.replicas.len()));
    entry.written = (entry.written + new).saturating_sub(old);
    entry.members += u32::from(before.is_none());
    if entry.members > MAX_MEMBERS || entry.written > MAX_WRITTEN_BYTES as u64 {
        let detail = format!(
            "a transaction may have {MAX_MEMBERS} keys, and its commit may write {MAX_WRITTEN_BYTES} bytes to the catalog; use more than one"
        );
        return refuse(view, now, member, Problem::new(ErrorCode::ValueTooLarge, detail));
    }
    if let Some(before) = before {
        give_up(view, now, key, &before)?;
    }
    view.put(at, encode(&StagedEntry::of(member, new), "member of a transaction")?);
    if let Member::Put(put) = member {
        view.put(keyspace::staged_in(put.version), id.as_bytes().to_vec());
    }
    set_entry(view, id, &entry)?;
    Ok(CommitAnswer::Committed(match member {
        Member::Put(put) => staged(put.version),
        Member::Delete { .. } => Committed { modified: now.time, ..staged(VersionId::from_bytes([0; 16])) },
    }))
}

pub(super) fn staged(version: VersionId) -> Committed {
    let modified = UnixMillis(version.unix_millis());
    Committed { seq: 0, created: false, modified, removed: None, standing: Standing::Staged }
}

/// Refuses and remembers it, so that a repeat cannot get another answer once the copies are gone.
fn refuse(view: &mut View<'_>, now: &Now, member: &Member, problem: Problem) -> Result<CommitAnswer, CatalogError> {
    if let Member::Put(put) = member {
        let decision = Decision::Refused { code: problem.code.as_str().into(), detail: problem.detail.clone() };
        view.decide(keyspace::put_decision(epoch(now.time), put.version), &decision)?;
    }
    Ok(CommitAnswer::Refused(problem))
}

/// About what the commit of a member writes: the record with its expiry, what retires a present value with so many replicas, and what
/// is remembered of it.
fn reckoned(member: &Member, replaced_replicas: usize) -> u64 {
    const ENTRY: usize = 96;
    let key = member.key().as_bytes().len();
    let own = match member {
        Member::Put(put) => ENTRY + 2 * key + put.content_type.as_ref().map_or(0, String::len) + 17 * put.replicas.len(),
        Member::Delete { .. } => ENTRY + key,
    };
    let retired = if replaced_replicas > 0 { ENTRY + replaced_replicas * (ENTRY + key) } else { 0 };
    (own + retired) as u64
}

/// The copies of a member that is no longer wanted are to be removed, and it is never staged again.
fn give_up(view: &mut View<'_>, now: &Now, key: &Key, entry: &StagedEntry) -> Result<(), CatalogError> {
    let Staged::Put { version, replicas, .. } = &entry.what else { return Ok(()) };
    unwanted(view, key, *version, replicas)?;
    view.delete(keyspace::staged_in(*version));
    let detail = "another value was put under this key in the transaction, or it was deleted there";
    let decision = Decision::Refused { code: ErrorCode::Conflict.as_str().into(), detail: detail.into() };
    view.decide(keyspace::put_decision(epoch(now.time), *version), &decision)
}

fn unwanted(view: &mut View<'_>, key: &Key, version: VersionId, replicas: &[VolumeId]) -> Result<(), CatalogError> {
    let entry = ReclaimEntry { key: key.clone(), deleted: None, committed: None };
    replicas.iter().filter(|_| !lab::has(Bug::StagedKept)).try_for_each(|volume| view.add_reclaim(*volume, version, &entry))
}

/// What a transaction's commit is remembered by.
fn name(id: TxnId) -> BatchId {
    let digest = ContentHash::of(&[b"kvdb transaction".as_slice(), id.as_bytes()].concat());
    BatchId { name: *id.as_bytes(), digest }
}

/// Commits all members in one step, or changes nothing. No operation before it in its batch has written anything.
pub(super) fn commit(view: &mut View<'_>, engine: &dyn Engine, now: &Now, id: TxnId) -> Result<TxnAnswer, CatalogError> {
    let Some(entry) = entry(view, id)? else { return Ok(TxnAnswer::Refused(unknown())) };
    let members = || members(engine, id, entry.expires);
    if entry.state == TxnState::Committed {
        let changed = if entry.members == 0 { Some(Vec::new()) } else { batch::remembered(view, now, &name(id))? };
        return Ok(match changed {
            Some(changed) => TxnAnswer::Committed(members()?, changed),
            None => TxnAnswer::Refused(unknown()),
        });
    }
    if !entry.is_open(now.time) {
        return Ok(TxnAnswer::Refused(unknown()));
    }
    let batch = CommitBatch { id: Some(name(id)), commit_by: entry.expires, members: members()? };
    match batch::apply(view, now, &batch)? {
        BatchAnswer::Refused(problem) => Ok(TxnAnswer::Refused(problem)),
        BatchAnswer::Committed(changed) | BatchAnswer::Repeated(changed) => {
            view.open_txns = view.open_txns.saturating_sub(1);
            let forget = now.time.plus(DECISION_EPOCH);
            set_due(view, id, TxnEntry { state: TxnState::Committed, remembered: forget, ..entry }, forget)?;
            Ok(TxnAnswer::Committed(batch.members, changed))
        }
    }
}

/// Gives it up; its copies follow as it is swept.
pub(super) fn abort(view: &mut View<'_>, now: &Now, id: TxnId) -> Result<Result<(), Problem>, CatalogError> {
    match entry(view, id)? {
        Some(entry) if entry.state == TxnState::Aborted => Ok(Ok(())),
        Some(entry) if entry.state == TxnState::Committed => {
            Ok(Err(Problem::new(ErrorCode::Conflict, "the transaction has been committed, so it cannot be given up")))
        }
        Some(entry) if entry.is_open(now.time) => {
            now.require(now.room.for_delete)?;
            view.open_txns = view.open_txns.saturating_sub(1);
            let remembered = now.time.plus(DECISION_EPOCH);
            set_due(view, id, TxnEntry { state: TxnState::Aborted, remembered, ..entry }, now.time)?;
            Ok(Ok(()))
        }
        Some(_) | None => Ok(Err(unknown())),
    }
}

/// Removes what is over: the members of what was given up or has expired, with their copies, and what need not be remembered longer.
/// No operation before it in its batch has written anything.
pub(super) fn sweep(view: &mut View<'_>, engine: &dyn Engine, now: &Now) -> Result<Swept, CatalogError> {
    now.require(now.room.for_delete)?;
    let end = keyspace::txns_due_after(now.time);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let due = engine.scan(Bound::Included(&[keyspace::TXN_DUE]), to, SWEEP)?;
    let mut swept = Swept { removed: 0, more: due.len() == SWEEP };
    for (at, _) in due {
        let (_, id) = keyspace::parse_txn_due(&at).ok_or_else(|| CatalogError::corrupt("list of transactions", "a key is malformed"))?;
        let Some(entry) = entry(view, id)?.filter(|e| keyspace::txn_due(e.due, id) == at) else {
            view.delete(at);
            continue;
        };
        let rows = prefix_scan(engine, &keyspace::staged_of(id), SWEEP_MEMBERS)?;
        let all = rows.len() < SWEEP_MEMBERS;
        for (at, value) in rows {
            if view.bytes() >= SWEEP_BYTES {
                return Ok(Swept { more: true, ..swept });
            }
            let key = keyspace::parse_staged(&at).ok_or_else(malformed)?;
            if let Staged::Put { version, replicas, .. } = decode::<StagedEntry>(&value, "member of a transaction")?.what {
                if entry.state != TxnState::Committed {
                    unwanted(view, &key, version, &replicas)?;
                }
                view.delete(keyspace::staged_in(version));
            }
            view.delete(at);
            swept.removed += 1;
        }
        if !all {
            return Ok(Swept { more: true, ..swept });
        }
        if now.time < entry.remembered {
            set_due(view, id, TxnEntry { members: 0, ..entry }, entry.remembered)?;
        } else {
            view.open_txns = view.open_txns.saturating_sub(usize::from(entry.state == TxnState::Open));
            view.delete(keyspace::txn(id));
            view.delete(at);
        }
    }
    Ok(swept)
}

pub(super) fn members(engine: &dyn Engine, id: TxnId, commit_by: UnixMillis) -> Result<Vec<Member>, CatalogError> {
    let rows = prefix_scan(engine, &keyspace::staged_of(id), usize::MAX)?;
    let member = |(at, value): (Vec<u8>, Vec<u8>)| {
        let key = keyspace::parse_staged(&at).ok_or_else(malformed)?;
        Ok(decode::<StagedEntry>(&value, format_args!("member {key} of a transaction"))?.into_member(key, commit_by))
    };
    rows.into_iter().map(member).collect()
}

fn malformed() -> CatalogError {
    CatalogError::corrupt("member of a transaction", "its key is malformed")
}

/// Whether a version that nothing was decided about is staged in a transaction that is open. If not, it never will be committed once the
/// time for staging it is over.
pub(super) fn is_waiting(view: &View<'_>, now: &Now, version: VersionId) -> Result<bool, CatalogError> {
    let Some(id) = view.get(&keyspace::staged_in(version))?.filter(|_| !lab::has(Bug::StagedDropped)) else { return Ok(false) };
    let id = id.try_into().map(TxnId::from_bytes).map_err(|_| malformed())?;
    Ok(entry(view, id)?.is_some_and(|e| e.is_open(now.time)))
}

/// Whether this version is staged in a transaction that is open.
pub(super) fn is_staged(view: &View<'_>, now: &Now, id: TxnId, key: &Key, version: VersionId) -> Result<bool, CatalogError> {
    let open = entry(view, id)?.is_some_and(|e| e.is_open(now.time));
    Ok(open && staged_at(view, &keyspace::staged(id, key))?.and_then(|s| s.version()) == Some(version))
}

/// Number of transactions that are open, at the start.
pub(super) fn count_open(engine: &dyn Engine) -> Result<usize, CatalogError> {
    const CHUNK: usize = 1_024;
    let end = keyspace::successor(&[keyspace::TXN]);
    let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let (mut from, mut open) = (Bound::Included(vec![keyspace::TXN]), 0);
    loop {
        let pairs = engine.scan(from.as_ref().map(Vec::as_slice), to, CHUNK)?;
        let Some((last, _)) = pairs.last() else { return Ok(open) };
        from = Bound::Excluded(last.clone());
        for (_, value) in &pairs {
            open += usize::from(decode::<TxnEntry>(value, "transaction")?.state == TxnState::Open);
        }
    }
}
