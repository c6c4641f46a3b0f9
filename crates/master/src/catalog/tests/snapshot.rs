//! Exports: one point in time while writes go on, and what an import makes of them.

use super::support::{FAR, Fixture, Wall, committed, delete, key, put, refused, volume};
use crate::catalog::engine::{Batch, Engine, Pair};
use crate::catalog::exported::{Checker, Header, Line, Reclaimed, Sealer};
use crate::catalog::memory_engine::MemoryEngine;
use crate::catalog::sled_engine::SledEngine;
use crate::catalog::snapshot::{Export, Images};
use crate::catalog::{Catalog, CatalogOptions, Duty, ImportError, Record, SetReplicas, import, keyspace};
use kvdb_protocol::{ClusterSecret, ErrorCode, Key, UnixMillis};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Records = BTreeMap<Key, Record>;

async fn read(export: &mut Export) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(lines) = export.next().await {
        text.extend(lines);
    }
    text
}

/// What a whole export says.
fn parsed(text: &[u8]) -> (Header, Records, Vec<Reclaimed>) {
    let (mut checker, mut header, mut records, mut reclaim) = (Checker::default(), None, Records::new(), Vec::new());
    for line in text.split_inclusive(|b| *b == b'\n') {
        match checker.line(line).unwrap() {
            Line::Catalog(h) => header = Some(h),
            Line::Record(r) => drop(records.insert(r.key, r.record)),
            Line::Reclaim(r) => reclaim.push(r),
            _ => {}
        }
    }
    checker.finish().unwrap();
    (header.unwrap(), records, reclaim)
}

async fn present(catalog: &Catalog) -> Records {
    catalog.records(None, usize::MAX).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn an_export_is_the_catalog_as_of_its_beginning_whatever_is_written_meanwhile() {
    let f = Fixture::new();
    for i in 0..2_500 {
        f.put(format!("key-{i:05}"), i).await;
    }
    f.catalog.delete(delete("key-00007", None)).await.unwrap();
    let (before, stats) = (present(&f.catalog).await, f.catalog.stats());
    let mut export = f.catalog.export().await.unwrap();
    let mut text = Vec::new();
    let mut n = 0u64;
    while let Some(lines) = export.next().await {
        text.extend(lines);
        // Behind and before the cursor, at both ends and in between: replaced, removed, new, new and removed.
        for at in [1, 999, 1_000, 1_500, 2_000, 2_499] {
            n += 1;
            f.put(format!("key-{at:05}"), 10_000 + n).await;
            f.put(format!("key-{at:05}-new-{n}"), n).await;
            let gone = format!("key-{:05}", at / 2 + usize::try_from(n).unwrap());
            f.catalog.delete(delete(gone, None)).await.unwrap();
            f.put("zzz", n).await;
            f.catalog.delete(delete("zzz", None)).await.unwrap();
        }
    }
    drop(export);
    let (header, records, reclaim) = parsed(&text);
    assert!(records == before, "{} records instead of {}", records.len(), before.len());
    assert_eq!((header.keys, header.bytes, header.seq), (stats.keys, stats.bytes, stats.seq));
    assert_eq!(reclaim.len(), 2, "the copies of the key that was deleted before, and none that came up later");
    assert!(present(&f.catalog).await != before, "nothing was written meanwhile");
    // The next one is of its own moment.
    let (_, again, _) = parsed(&read(&mut f.catalog.export().await.unwrap()).await);
    assert!(again == present(&f.catalog).await);
}

#[tokio::test]
async fn one_export_at_a_time_and_a_dropped_one_makes_room() {
    let f = Fixture::new();
    let first = f.catalog.export().await.unwrap();
    let refused = f.catalog.export().await.err().unwrap();
    assert_eq!(refused.problem().code, ErrorCode::Unavailable);
    drop(first);
    f.catalog.export().await.unwrap();
}

#[test]
fn images_are_bounded_and_their_excess_fails_the_export() {
    let engine = MemoryEngine::default();
    let mut images = Images { cursor: vec![keyspace::RECORD], ..Images::default() };
    for i in 0..100u32 {
        let mut batch = Batch::default();
        batch.put([&[keyspace::RECORD][..], &i.to_be_bytes()].concat(), vec![0; 50]);
        images.keep(&engine, &batch, 5_000);
        engine.apply(&batch).unwrap();
    }
    assert!(images.before.is_empty(), "what is of no use any more is kept");
    let failed = images.piece(&engine, keyspace::RECORD, 10).err().unwrap().to_string();
    assert!(failed.contains("try again"), "{failed}");
}

proptest! {
    #[test]
    fn pieces_of_any_size_between_any_writes_are_those_of_the_beginning(
        first in proptest::collection::btree_map(0u8..30, any::<u8>(), 0..20),
        limit in 1usize..6,
        writes in proptest::collection::vec(proptest::collection::vec((0u8..30, proptest::option::of(any::<u8>())), 0..5), 0..20),
    ) {
        let engine = MemoryEngine::default();
        let at = |k: u8| vec![keyspace::RECORD, k];
        let mut batch = Batch::default();
        first.iter().for_each(|(k, v)| batch.put(at(*k), [*v]));
        engine.apply(&batch).unwrap();
        let mut images = Images { cursor: vec![keyspace::RECORD], ..Images::default() };
        let (mut found, mut writes) = (Vec::new(), writes.into_iter());
        loop {
            let mut batch = Batch::default();
            for (k, v) in writes.next().unwrap_or_default() {
                match v {
                    Some(v) => batch.put(at(k), [v]),
                    None => batch.delete(at(k)),
                }
            }
            images.keep(&engine, &batch, usize::MAX);
            engine.apply(&batch).unwrap();
            let (pairs, last) = images.piece(&engine, keyspace::RECORD, limit).unwrap();
            found.extend(pairs);
            if last {
                break;
            }
        }
        prop_assert!(images.before.is_empty() && images.bytes == 0);
        let expected: Vec<Pair> = first.iter().map(|(k, v)| (at(*k), vec![*v])).collect();
        prop_assert_eq!(found, expected);
    }
}

/// A catalog with some history, exported.
async fn history() -> (Fixture, Vec<u8>) {
    let f = Fixture::new();
    for i in 0..1_200 {
        f.put(format!("key-{i:05}"), i).await;
    }
    for i in (0..1_200).step_by(7) {
        f.put(format!("key-{i:05}"), i + 5).await;
    }
    for i in (0..1_200).step_by(11) {
        f.catalog.delete(delete(format!("key-{i:05}"), None)).await.unwrap();
    }
    f.catalog.remember_member(volume(1), "h:1").await.unwrap();
    f.catalog.set_listed("h:9", true).await.unwrap();
    f.catalog.set_duty(volume(2), Some(Duty::Drain)).await.unwrap();
    let text = read(&mut f.catalog.export().await.unwrap()).await;
    (f, text)
}

#[tokio::test]
async fn an_imported_catalog_is_the_exported_one_and_takes_nothing_that_was_given_out_before() {
    let (f, text) = history().await;
    let dir = tempfile::tempdir().unwrap();
    let (options, secret) = (CatalogOptions::new(dir.path().join("db")), ClusterSecret::random());
    let given = f.catalog.next_version();
    let done = import::import(&options, &secret, text.as_slice(), UnixMillis(Wall::START)).unwrap();
    // With the clock of the old one, so that nothing is refused for its age.
    let engine = Arc::new(SledEngine::open(&options.dir.join("db"), options.cache_bytes).unwrap());
    let catalog = Catalog::with_clocks(engine, &options.dir, f.wall.clocks()).unwrap();
    assert!(present(&catalog).await == present(&f.catalog).await);
    let (old, new) = (f.catalog.stats(), catalog.stats());
    assert_eq!((old.keys, old.bytes, done.keys, done.bytes), (new.keys, new.bytes, new.keys, new.bytes));
    assert!(new.seq > old.seq + 1_000_000_000, "volumes may know later commits: {}", new.seq);
    for v in [1, 2] {
        assert_eq!(catalog.reclaim_list(volume(v), 9_999).await.unwrap(), f.catalog.reclaim_list(volume(v), 9_999).await.unwrap());
    }
    assert_eq!(catalog.members().await.unwrap(), f.catalog.members().await.unwrap());
    assert_eq!(catalog.listed().await.unwrap(), ["h:9"]);
    assert_eq!(catalog.duties().await.unwrap(), f.catalog.duties().await.unwrap());
    assert_eq!((catalog.cluster(), catalog.stored_secret().unwrap()), (f.catalog.cluster(), Some(secret)));
    let late = catalog.commit(put("late", given, 1)).await.unwrap();
    assert_eq!(refused(late), ErrorCode::Conflict, "given out before");
    committed(catalog.commit(put("new", catalog.next_version(), 1)).await.unwrap());
    assert!(catalog.next_version() > given);
    let (_, again, _) = parsed(&read(&mut catalog.export().await.unwrap()).await);
    assert!(again == present(&catalog).await && again.len() == present(&f.catalog).await.len() + 1);
}

#[tokio::test]
async fn no_removal_of_a_copy_of_a_present_version_is_imported() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    let change =
        SetReplicas { key: key("a"), version, before: vec![volume(1), volume(2)], after: vec![volume(1), volume(3)], commit_by: FAR };
    f.catalog.set_replicas(change).await.unwrap();
    assert_eq!(f.catalog.reclaim_list(volume(2), 9).await.unwrap().len(), 1);
    let text = read(&mut f.catalog.export().await.unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let done = Catalog::import(&CatalogOptions::new(dir.path()), &ClusterSecret::random(), text.as_slice()).unwrap();
    assert_eq!((done.keys, done.reclaim), (1, 0));
}

#[tokio::test]
async fn every_cut_and_every_change_of_an_export_is_noticed_and_leaves_the_directory_empty() {
    let (_, text) = history().await;
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    let dir = tempfile::tempdir().unwrap();
    let import = |text: &[u8]| Catalog::import(&CatalogOptions::new(dir.path()), &ClusterSecret::random(), text);
    let mut broken: Vec<Vec<u8>> = (0..60).map(|i| text[..text.len() * i / 60].to_vec()).collect();
    broken.push(text[..text.len() - 1].to_vec());
    broken.push([&text[..], lines[5]].concat());
    for (a, b) in [(5, 5), (7, 8), (0, 1)] {
        let mut changed = lines.clone();
        // Twice the same line, two in another order.
        changed[a] = lines[b];
        changed[b] = if a == b { lines[b + 1] } else { lines[a] };
        broken.push(changed.concat());
    }
    let mut digit = text.clone();
    let at = text.windows(8).position(|w| w == b"\"len\":11").unwrap();
    digit[at + 6] = b'2';
    broken.push(digit);
    for (i, text) in broken.iter().enumerate() {
        assert!(matches!(import(text), Err(ImportError::Export(_))), "change {i}");
    }
    import(&text).unwrap();
}

#[test]
fn whoever_reads_an_export_that_failed_is_told_why() {
    let header =
        Header { format: 1, cluster: kvdb_protocol::ClusterId::random(), time: UnixMillis(1), seq: 0, lease: 1, keys: 0, bytes: 0 };
    let text = |first: &Header| {
        let mut seal = Sealer::default();
        [seal.line(&Line::Catalog(first.clone())), seal.line(&Line::Failed("the disk is gone".into())), seal.end()].concat()
    };
    let dir = tempfile::tempdir().unwrap();
    let import = |text: &[u8]| Catalog::import(&CatalogOptions::new(dir.path()), &ClusterSecret::random(), text).unwrap_err().to_string();
    let told = import(&text(&header));
    assert!(told.contains("could not finish") && told.contains("the disk is gone"), "{told}");
    let newer = import(&text(&Header { format: 2, ..header }));
    assert!(newer.contains("format 2") && newer.contains("newer kvDB"), "{newer}");
}
