//! JSON between servers, and of operators.

use crate::input::{Input, chosen};
use crate::sample;
use kvdb_protocol::message::*;
use kvdb_protocol::operator::{Asked, Order};
use kvdb_protocol::{ErrorCode, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read is written, read again and written again: the same.
fn through<T: Serialize + DeserializeOwned>(json: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<T>(json) else { return false };
    let written = serde_json::to_vec(&message).unwrap();
    let again: T = serde_json::from_slice(&written).expect("what was written is not read");
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    true
}

const KINDS: [fn(&[u8]) -> bool; 16] = [
    through::<Identity>,
    through::<Adopt>,
    through::<Beat>,
    through::<VolumeStatus>,
    through::<Fetch>,
    through::<Keep>,
    through::<Bad>,
    through::<Commits>,
    through::<Vec<CommitResult>>,
    through::<Settle>,
    through::<SettleAnswer>,
    through::<Reclaim>,
    through::<EntriesPage>,
    through::<Problem>,
    through::<Asked<Order>>,
    through::<Prepared>,
];

pub(crate) fn check(data: &[u8]) -> bool {
    let mut input = Input(data);
    let kind = usize::from(input.byte()) % KINDS.len();
    KINDS[kind](input.rest())
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    fn json(kind: u8, message: impl Serialize) -> Vec<u8> {
        chosen(&[kind], serde_json::to_vec(&message).unwrap())
    }
    let (volume, version, hash, time) = (sample::VOLUME, sample::version(), sample::hash(), sample::NOW);
    let key = sample::keys().swap_remove(3);
    let value = ValueEntry {
        key: key.clone(),
        version,
        len: 5,
        hash,
        content_type: Some("text/plain".into()),
        modified: time,
        expires: Some(time),
        replicas: vec![volume],
        seq: None,
    };
    let committed = Committed { seq: 3, created: true, modified: time, removed: Some(version), standing: Standing::Current };
    let deleted = Deleted { seq: 1, time };
    let public_url = Some("http://localhost:3001".into());
    let fetch = Fetch { value: value.clone(), from: volume, address: "localhost:3002".into(), commit_by: time, sent: time, rate: 0 };
    let entries = vec![Entry::Value(value), Entry::Tombstone { key: key.clone(), version, deleted }];
    let prepared = Prepared { len: 5, hash };
    let outcomes = vec![Outcome::Keep { seq: 1 }, Outcome::Pending, Outcome::Drop];
    vec![
        json(0, Identity { volume, cluster: Some(sample::CLUSTER), public_url, format: 1, in_touch: true }),
        json(1, Adopt { cluster: sample::CLUSTER, secret: Some("0123456789abcdef".into()) }),
        json(2, Beat { time, expiry: time, master: "localhost:3000".into(), reads_need_tickets: true }),
        json(3, VolumeStatus { writable: true, reason: Some("full".into()), ..VolumeStatus::default() }),
        json(4, fetch),
        json(5, Keep { sent: time, versions: vec![(key.clone(), version, 7)] }),
        json(6, Bad { volume, copies: vec![BadCopy { key: key.clone(), version, why: "its hash".into() }] }),
        json(7, Commits { volume, commits: vec![Commit { ticket: "AQ".into(), value: Some(prepared) }] }),
        json(8, [CommitResult::Ok(CommitAnswer::Committed(committed)), Err(Problem::new(ErrorCode::NoSpace, "full"))]),
        json(8, [CommitResult::Ok(CommitAnswer::Refused(Problem::new(ErrorCode::Conflict, "it exists")))]),
        json(9, Settle { volume, versions: vec![SettleItem { key: key.clone(), version, commit_by: time }] }),
        json(10, SettleAnswer { outcomes }),
        json(11, Reclaim { sent: time, versions: vec![ReclaimItem { key, version, deleted: Some(deleted) }] }),
        json(12, EntriesPage { volume, entries, next: Some("00ff".into()) }),
        json(13, Problem::new(ErrorCode::NoSpace, "full").at_volume(volume)),
        json(14, Asked { at: time, ask: Order::Remove { volume, lost: true } }),
        json(15, prepared),
    ]
}
