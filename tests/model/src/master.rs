//! The master's committer, operation by operation: `catalog/decide.rs` and `catalog/placing.rs`.

use crate::bounds::{Bounds, Flaw, Op};
use crate::state::{Answer, Catalog, Order, Outcome, Record, Standing, Version, Volume, Volumes, Write, has, members};

/// Decisions are remembered this many ticks, as `DECISION_EPOCH` has it.
const REMEMBERED: u8 = 1;

fn decision(catalog: &Catalog, now: u8, write: u8) -> Option<Answer> {
    let (at, answer) = catalog.decisions[usize::from(write)]?;
    (now <= at + REMEMBERED).then_some(answer)
}

/// Old decisions are swept.
pub fn forget(catalog: &mut Catalog, now: u8) {
    for decision in &mut catalog.decisions {
        *decision = decision.filter(|(at, _)| now <= at + REMEMBERED);
    }
}

fn decide(catalog: &mut Catalog, now: u8, write: u8, answer: Answer) -> Answer {
    catalog.decisions[usize::from(write)] = Some((now, answer));
    answer
}

fn refuse(b: &Bounds, catalog: &mut Catalog, now: u8, write: u8) -> Answer {
    match b.has(Flaw::ForgetRefusal) {
        true => Answer::Refused,
        false => decide(catalog, now, write, Answer::Refused),
    }
}

fn set_record(catalog: &mut Catalog, record: Option<Record>) {
    catalog.record = record;
    catalog.history.push(record.map(|r| r.version));
}

/// `decide::put`: what becomes of a value whose replicas are all durable.
pub fn put(b: &Bounds, catalog: &mut Catalog, now: u8, write: u8, op: Op, chain: Volumes, commit_by: u8) -> Answer {
    let current = catalog.record;
    if let Some(answer) = put_decided(catalog, now, write, chain) {
        return answer;
    }
    if now > commit_by && !b.has(Flaw::LateTicket) {
        return Answer::Refused;
    }
    if op == Op::Create && current.is_some() {
        return refuse(b, catalog, now, write);
    }
    let seq = catalog.seq() + 1;
    set_record(catalog, Some(Record { version: write, replicas: chain, seq }));
    if let Some(old) = current {
        retire(catalog, now, old, None);
    }
    Answer::Committed { seq, removed: None, standing: Standing::Current }
}

fn put_decided(catalog: &Catalog, now: u8, write: u8, chain: Volumes) -> Option<Answer> {
    if let Some(record) = catalog.record.filter(|r| r.version == write) {
        let standing = if chain == record.replicas { Standing::Current } else { Standing::Moved };
        return Some(Answer::Committed { seq: record.seq, removed: None, standing });
    }
    if let Some(answer) = decision(catalog, now, write) {
        return Some(answer);
    }
    let reclaimed = members(chain).any(|v| catalog.reclaim[usize::from(v)][usize::from(write)].is_some());
    let seq = catalog.history.iter().position(|v| *v == Some(write)).and_then(|i| u8::try_from(i + 1).ok())?;
    reclaimed.then_some(Answer::Committed { seq, removed: None, standing: Standing::Gone })
}

/// A version is no longer current: its volumes have to remove it.
fn retire(catalog: &mut Catalog, now: u8, old: Record, deleted: Option<u8>) {
    for volume in members(old.replicas) {
        catalog.reclaim[usize::from(volume)][usize::from(old.version)] = Some(deleted);
    }
    decide(catalog, now, old.version, Answer::Committed { seq: old.seq, removed: None, standing: Standing::Gone });
}

/// `decide::delete`.
pub fn delete(b: &Bounds, catalog: &mut Catalog, now: u8, write: u8, commit_by: u8) -> Answer {
    if let Some(answer) = decision(catalog, now, write) {
        return answer;
    }
    if now > commit_by {
        return Answer::Refused;
    }
    let Some(current) = catalog.record else { return refuse(b, catalog, now, write) };
    let seq = catalog.seq() + 1;
    set_record(catalog, None);
    retire(catalog, now, current, Some(seq));
    decide(catalog, now, write, Answer::Committed { seq, removed: Some(current.version), standing: Standing::Current })
}

/// `decide::settle`: what became of a version that a volume holds as prepared.
pub fn settle(b: &Bounds, catalog: &Catalog, now: u8, volume: Volume, version: Version, commit_by: u8) -> Outcome {
    if let Some(record) = catalog.record.filter(|r| r.version == version) {
        return match has(record.replicas, volume) {
            true => Outcome::Keep(record.seq),
            false if now > commit_by => Outcome::Drop,
            false => Outcome::Pending,
        };
    }
    let reclaimed = catalog.reclaim[usize::from(volume)][usize::from(version)].is_some();
    let decided = decision(catalog, now, version).is_some() || reclaimed;
    let open = !decided && now <= commit_by && !b.has(Flaw::DropWhileOpen);
    if open { Outcome::Pending } else { Outcome::Drop }
}

/// `placing::set_replicas`: the volumes of a version change, if nothing else has. The sequence, if done.
pub fn set_replicas(b: &Bounds, catalog: &mut Catalog, now: u8, order: &Order) -> Option<u8> {
    if now > order.commit_by {
        return None;
    }
    let record = catalog.record.filter(|r| r.version == order.version || b.has(Flaw::NoCompareOfVersion))?;
    if record.replicas != order.before && !b.has(Flaw::NoCompareOfReplicas) {
        return None;
    }
    let added = order.after & !record.replicas;
    let version = usize::from(order.version);
    let busy = members(added).any(|v| catalog.reclaim[usize::from(v)][version].is_some());
    if busy && !b.has(Flaw::TargetWhileReclaimed) {
        return None;
    }
    for volume in members(record.replicas & !order.after) {
        catalog.reclaim[usize::from(volume)][version] = Some(None);
    }
    catalog.record = Some(Record { replicas: order.after, ..record });
    Some(record.seq)
}

/// Whether the planner may order a copy of the current version at a volume: `Catalog::is_reclaimed` among others.
pub fn may_be_target(b: &Bounds, catalog: &Catalog, record: Record, target: Volume) -> bool {
    let reclaimed = catalog.reclaim[usize::from(target)][usize::from(record.version)].is_some();
    !reclaimed || b.has(Flaw::TargetWhileReclaimed)
}

/// What of a write's ticket the commit needs.
pub fn commit(b: &Bounds, catalog: &mut Catalog, now: u8, number: u8, op: Op, chain: Volumes, write: &Write) -> Answer {
    match op {
        Op::Delete => delete(b, catalog, now, number, write.commit_by),
        Op::Create | Op::Replace => put(b, catalog, now, number, op, chain, write.commit_by),
    }
}
