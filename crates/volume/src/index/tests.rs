//! The committer: changes of one batch see each other, and a full file system is told before it is filled.

use super::*;
use crate::format::record::Place;
use kvdb_protocol::ContentHash;
use kvdb_protocol::message::Deleted;

fn open(dir: &tempfile::TempDir, min_room_bytes: u64) -> Index {
    let options = IndexOptions {
        cache_bytes: 1 << 20,
        tombstone_keep: Duration::from_secs(3600),
        min_room_bytes,
        reserve: dir.path().join("reserve"),
        reserve_bytes: 1 << 20,
    };
    Index::open(&dir.path().join("index"), &options).unwrap()
}

fn record() -> ValueRecord {
    ValueRecord {
        len: 3,
        hash: ContentHash::of(b"abc"),
        place: Place::Inline,
        content_type: None,
        modified: UnixMillis(1),
        expires: None,
        commit_by: UnixMillis(7),
        replicas: Vec::new(),
        seq: None,
    }
}

#[test]
fn changes_to_one_version_from_many_threads_end_as_the_last_one_says() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir, 0);
    std::thread::scope(|s| {
        for n in 0..8u64 {
            let index = &index;
            s.spawn(move || {
                let (key, version) = (Key::new(format!("k{n}")).unwrap(), VersionId::from_parts(n, 1));
                for round in 0..20u64 {
                    assert_eq!(index.put(&key, version, record(), Some(b"abc".to_vec())).unwrap(), Outcome::Done);
                    assert!(matches!(index.put(&key, version, record(), Some(b"abc".to_vec())).unwrap(), Outcome::Present(_)));
                    assert_eq!(index.commit(&key, version, round).unwrap(), Outcome::Done);
                    assert_eq!(index.inline(&key, version).unwrap().unwrap()[..], b"abc"[..]);
                    index.remove(&[ReclaimItem { key: key.clone(), version, deleted: None }]).unwrap();
                    assert_eq!(index.commit(&key, version, round).unwrap(), Outcome::Absent);
                }
            });
        }
    });
    assert_eq!((index.counters().values(), index.counters().bytes(), index.counters().prepared()), (0, 0, 0));
    assert!(index.prepared(10).unwrap().is_empty() && index.entries(None, 10).unwrap().0.is_empty());
}

#[test]
fn what_is_left_to_be_noted_is_noted_before_what_is_asked_for_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (key, version) = (Key::new("k").unwrap(), VersionId::from_parts(1, 1));
    for n in 1..100 {
        index.put(&key, version, record(), Some(b"abc".to_vec())).unwrap();
        runtime.block_on(index.leave_commit(key.clone(), version, n)).unwrap();
        assert_eq!(index.put(&key, version, record(), None).unwrap(), Outcome::Present(Box::new(ValueRecord { seq: Some(n), ..record() })));
        runtime.block_on(index.leave_commit(key.clone(), version, n + 1)).unwrap();
        index.remove(&[ReclaimItem { key: key.clone(), version, deleted: None }]).unwrap();
        assert_eq!(index.get(&key, version).unwrap(), None);
    }
}

#[test]
fn what_is_left_to_be_noted_is_noted_though_nothing_else_is_asked_for_and_though_there_is_much_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let versions: Vec<_> = (0..3_000).map(|n| VersionId::from_parts(n, 1)).collect();
    let key = Key::new("k").unwrap();
    index.adopt(versions.iter().map(|v| (key.clone(), *v, record())).collect()).unwrap();
    for version in &versions {
        runtime.block_on(index.leave_commit(key.clone(), *version, 7)).unwrap();
    }
    while index.counters().prepared() > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(index.prepared(10).unwrap().is_empty());
}

#[test]
fn one_remove_may_name_a_version_twice() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(&dir, 0);
    let (key, version) = (Key::new("k").unwrap(), VersionId::from_parts(1, 1));
    let file = ValueRecord { place: Place::File { file_len: 99 }, ..record() };
    index.put(&key, version, file, None).unwrap();
    let tombstone = Deleted { seq: 4, time: UnixMillis::now() };
    let deleted = Some(tombstone);
    let item = |deleted| ReclaimItem { key: key.clone(), version, deleted };
    assert_eq!(index.remove(&[item(None), item(deleted), item(None)]).unwrap(), [version]);
    assert_eq!(index.get(&key, version).unwrap(), Some(Record::Tombstone(tombstone)));
    assert_eq!(index.counters().values(), 0);
    assert_eq!(index.blob_list().count(), 0);
}

#[test]
fn where_room_is_short_values_are_refused_and_removals_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (key, version) = (Key::new("k").unwrap(), VersionId::from_parts(1, 1));
    let index = open(&dir, 0);
    index.put(&key, version, record(), Some(b"abc".to_vec())).unwrap();
    drop(index);
    let index = open(&dir, u64::MAX);
    let other = VersionId::from_parts(2, 2);
    assert!(matches!(index.put(&key, other, record(), Some(b"abc".to_vec())), Err(IndexError::NoSpace { .. })));
    assert_eq!(index.commit(&key, version, 9).unwrap(), Outcome::Done);
    index.remove(&[ReclaimItem { key: key.clone(), version, deleted: None }]).unwrap();
    assert_eq!(index.counters().values(), 0);
    assert!(index.stopped().is_none());
}
