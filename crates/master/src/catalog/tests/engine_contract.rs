//! One contract for every engine.

use crate::catalog::engine::{ApplyError, Batch, Engine, MAX_ENGINE_KEY_BYTES, MAX_ENGINE_VALUE_BYTES};
use crate::catalog::journal_format::SECTOR;
use crate::catalog::memory_engine::MemoryEngine;
use crate::catalog::sled_engine::SledEngine;
use kvdb_tests::cluster::files_below;
use std::fs::File;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

fn put(pairs: &[(&[u8], &[u8])]) -> Batch {
    let mut batch = Batch::default();
    pairs.iter().for_each(|(k, v)| batch.put(*k, *v));
    batch
}

fn keys(engine: &dyn Engine, from: Bound<&[u8]>, to: Bound<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    engine.scan(from, to, limit).unwrap().into_iter().map(|(k, _)| k).collect()
}

fn a_batch_is_applied_whole(e: &dyn Engine) {
    e.apply(&put(&[(b"w1", b"1"), (b"w2", b""), (b"w3", b"3")])).unwrap();
    let mut batch = Batch::default();
    batch.put(b"w1", b"first");
    batch.put(b"w1", b"last");
    batch.put(b"w3", b"x");
    batch.delete(b"w3");
    batch.delete(b"w-absent");
    e.apply(&batch).unwrap();
    assert_eq!(e.get(b"w1").unwrap().as_deref(), Some(b"last".as_slice()));
    assert_eq!(e.get(b"w2").unwrap().as_deref(), Some(b"".as_slice()), "an empty value is not an absent one");
    assert_eq!(e.get(b"w3").unwrap(), None);
    e.apply(&Batch::default()).unwrap();
}

fn a_failed_precondition_is_named_and_changes_nothing(e: &dyn Engine) {
    e.apply(&put(&[(b"p1", b"1"), (b"p2", b"")])).unwrap();
    for (key, expected) in [
        (b"p1".as_slice(), Some(b"2".as_slice())),
        (b"p1", None),
        (b"p2", None),
        (b"p-absent", Some(b"".as_slice())),
        (b"p1", Some(b"".as_slice())),
    ] {
        let mut batch = put(&[(b"p1", b"changed"), (b"p4", b"new")]);
        batch.delete(b"p2");
        batch.expect(key, expected.map(<[u8]>::to_vec));
        batch.expect(b"p0".as_slice(), None);
        assert_eq!(e.apply(&batch), Err(ApplyError::Precondition { key: key.to_vec() }));
    }
    assert_eq!(e.get(b"p1").unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(e.get(b"p2").unwrap().as_deref(), Some(b"".as_slice()));
    assert_eq!(e.get(b"p4").unwrap(), None);
    let mut batch = put(&[(b"p1", b"2")]);
    batch.expect(b"p1".as_slice(), Some(b"1".to_vec()));
    batch.expect(b"p2".as_slice(), Some(Vec::new()));
    batch.expect(b"p3".as_slice(), None);
    e.apply(&batch).unwrap();
    assert_eq!(e.get(b"p1").unwrap().as_deref(), Some(b"2".as_slice()), "preconditions hold for the state before the batch");
}

fn a_scan_is_in_order_and_within_its_bounds_and_limit(e: &dyn Engine) {
    let all: [&[u8]; 6] = [b"s", b"s\0", b"sa", b"sa\xFF", b"sb", b"s\xFF"];
    e.apply(&put(&all.map(|k| (k, k)))).unwrap();
    let within = |from, to, limit| keys(e, from, to, limit);
    assert_eq!(within(Included(b"s"), Excluded(b"t"), 100), all.map(<[u8]>::to_vec));
    assert_eq!(within(Excluded(b"s"), Included(b"sb"), 100), all[1..5].to_vec());
    assert_eq!(within(Included(b"sa"), Included(b"sa"), 100), [b"sa"]);
    assert_eq!(within(Included(b"s"), Excluded(b"t"), 2), all[..2].to_vec());
    assert_eq!(within(Included(b"s"), Excluded(b"t"), 0), Vec::<Vec<u8>>::new());
    for (from, to) in [(Excluded(b"sa"), Excluded(b"sa")), (Included(b"sb"), Included(b"sa")), (Included(b"sa"), Excluded(b"sa"))] {
        assert_eq!(within(from.map(|b| b.as_slice()), to.map(|b| b.as_slice()), 9), Vec::<Vec<u8>>::new(), "an empty range");
    }
    assert!(within(Unbounded, Unbounded, usize::MAX).is_sorted());
    assert!(within(Excluded(b"s\xFF"), Excluded(b"t"), 9).is_empty());
}

fn the_largest_pairs_are_taken_and_larger_ones_refused(e: &dyn Engine) {
    let key = |n: usize| [b"l".as_slice(), &vec![b'k'; n - 1]].concat();
    let value = vec![7; MAX_ENGINE_VALUE_BYTES];
    e.apply(&put(&[(&key(MAX_ENGINE_KEY_BYTES), &value)])).unwrap();
    assert_eq!(e.get(&key(MAX_ENGINE_KEY_BYTES)).unwrap(), Some(value.clone()));
    let too_large = [(key(MAX_ENGINE_KEY_BYTES + 1), value.clone()), (key(9), [value.as_slice(), b"x"].concat())];
    for (k, v) in too_large {
        let refused = e.apply(&put(&[(b"l0", b"x"), (&k, &v)]));
        assert_eq!(refused, Err(ApplyError::TooLarge { key_bytes: k.len(), value_bytes: v.len() }));
    }
    assert_eq!(e.get(b"l0").unwrap(), None);
}

fn large_batches_are_applied_whole(e: &dyn Engine) {
    let pairs: Vec<_> = (0..3_000u32).map(|i| ([b"b".as_slice(), &i.to_be_bytes()].concat(), vec![b'v'; 300])).collect();
    let mut batch = Batch::default();
    pairs.iter().for_each(|(k, v)| batch.put(k.as_slice(), v.as_slice()));
    e.apply(&batch).unwrap();
    assert_eq!(e.scan(Included(b"b"), Excluded(b"c"), usize::MAX).unwrap(), pairs);
    let mut batch = Batch::default();
    pairs.iter().for_each(|(k, _)| batch.delete(k.as_slice()));
    e.apply(&batch).unwrap();
    assert!(keys(e, Included(b"b"), Excluded(b"c"), usize::MAX).is_empty());
}

/// Each thread adds one to a counter with the value it read as the precondition: none may be lost. And
/// two keys that are always written together, with many between them, are never seen apart by a scan.
fn concurrent_batches_follow_one_another(e: &dyn Engine) {
    let (threads, rounds) = (4u64, 25u64);
    let mut first = put(&[(b"c1", &0u64.to_be_bytes()), (b"c2", &0u64.to_be_bytes())]);
    (0..1_000u32).for_each(|i| first.put([b"c1".as_slice(), &i.to_be_bytes()].concat(), b"between".as_slice()));
    e.apply(&first).unwrap();
    let add_one = || {
        loop {
            let before = e.get(b"c1").unwrap().unwrap();
            let after = u64::from_be_bytes(before.clone().try_into().unwrap()) + 1;
            let mut batch = put(&[(b"c1", &after.to_be_bytes()), (b"c2", &after.to_be_bytes())]);
            batch.expect(b"c1".as_slice(), Some(before));
            match e.apply(&batch) {
                Ok(()) => return,
                Err(ApplyError::Precondition { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| (0..rounds).for_each(|_| add_one()));
        }
        s.spawn(|| {
            for _ in 0..200 {
                let all = e.scan(Included(b"c1"), Included(b"c2"), usize::MAX).unwrap();
                assert_eq!(all.len(), 1_002);
                assert_eq!(all[0].1, all[1_001].1, "a scan saw half a batch");
            }
        });
    });
    assert_eq!(e.get(b"c2").unwrap(), Some((threads * rounds).to_be_bytes().to_vec()));
}

fn contract(e: &dyn Engine) {
    a_batch_is_applied_whole(e);
    a_failed_precondition_is_named_and_changes_nothing(e);
    a_scan_is_in_order_and_within_its_bounds_and_limit(e);
    the_largest_pairs_are_taken_and_larger_ones_refused(e);
    large_batches_are_applied_whole(e);
    concurrent_batches_follow_one_another(e);
    assert!(e.free_bytes().unwrap() > 0);
    e.size_on_disk().unwrap();
}

#[test]
fn the_memory_engine_keeps_the_contract() {
    contract(&MemoryEngine::default());
}

#[test]
fn the_sled_engine_keeps_the_contract_and_all_pairs_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let engine = SledEngine::open(&path, 4 << 20).unwrap();
    contract(&engine);
    let all = engine.scan(Unbounded, Unbounded, usize::MAX).unwrap();
    assert!(all.len() > 10 && engine.size_on_disk().unwrap() > 0);
    drop(engine);
    let engine = SledEngine::open(&path, 4 << 20).unwrap();
    assert_eq!(engine.scan(Unbounded, Unbounded, usize::MAX).unwrap(), all);
    contract(&engine);
    let blobs = std::fs::read_dir(path.join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled wrote files of their own, which nobody syncs");
}

#[test]
fn a_batch_is_there_whole_or_not_at_all_wherever_its_write_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SledEngine::open(dir.path(), 4 << 20).unwrap();
    engine.apply(&put(&[(b"a", b"1")])).unwrap();
    drop(engine);
    let before: Vec<_> = files_below(dir.path()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let engine = SledEngine::open(dir.path(), 4 << 20).unwrap();
    let pairs: Vec<_> = (0..40u8).map(|i| ([b'b', i], vec![i; 200])).collect();
    let mut batch = Batch::default();
    pairs.iter().for_each(|(k, v)| batch.put(k.as_slice(), v.as_slice()));
    engine.apply(&batch).unwrap();
    // What of the journal is written anew, in order. The rest of the database may not have come to the disk at all.
    let mut written = Vec::new();
    for (old, path) in before.iter().filter(|(_, path)| path.file_stem().is_some_and(|stem| stem == "journal")) {
        let new = std::fs::read(path).unwrap();
        assert_eq!(new.len(), old.len());
        let sectors = new.chunks(SECTOR).zip(old.chunks(SECTOR)).enumerate().filter(|(_, (new, old))| new != old);
        written.extend(sectors.map(|(at, (new, _))| (path, at * SECTOR, new.to_vec())));
    }
    drop(engine);
    assert!(written.len() > 10);
    for cut in 0..=written.len() {
        let left = tempfile::tempdir().unwrap();
        let left_of = |path: &Path| left.path().join(path.strip_prefix(dir.path()).unwrap());
        std::fs::create_dir(left.path().join("blobs")).unwrap();
        before.iter().for_each(|(bytes, path)| std::fs::write(left_of(path), bytes).unwrap());
        for (path, at, sector) in &written[..cut] {
            File::options().write(true).open(left_of(path)).unwrap().write_all_at(sector, *at as u64).unwrap();
        }
        let engine = SledEngine::open(left.path(), 4 << 20).unwrap();
        let expected = if cut == written.len() { pairs.len() } else { 0 };
        assert_eq!(keys(&engine, Included(b"b"), Excluded(b"c"), usize::MAX).len(), expected, "after {cut} of {} sectors", written.len());
        assert_eq!(engine.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()));
    }
}

#[test]
fn a_sled_database_that_cannot_be_read_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("db/db")).unwrap();
    let Err(error) = SledEngine::open(&dir.path().join("db"), 4 << 20) else { panic!("it was opened") };
    assert!(error.to_string().contains("database"), "{error}");
}

#[test]
fn a_snapshot_that_a_kill_left_half_written_does_not_keep_the_database_shut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let engine = SledEngine::open(&path, 4 << 20).unwrap();
    engine.apply(&put(&[(b"a", b"1")])).unwrap();
    drop(engine);
    for half in [&b""[..], b"too short", &[7; 200]] {
        let left = path.join("snap.FFFFFFFFFFFFFFFF.generating");
        std::fs::write(&left, half).unwrap();
        let engine = SledEngine::open(&path, 4 << 20).unwrap();
        assert_eq!(engine.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()));
        assert!(!left.exists());
    }
}
