//! Power cuts, in truth: an ext4 file system on a loop device is shut down without writing its journal
//! out, under load, mounted again, and every acknowledged write must be there.
//!
//! Needs root and a free loop device; where these are missing the test says so and checks nothing.

#![allow(clippy::unwrap_used)] // All of it is a test.

use kvdb_master::catalog::{BatchAnswer, BatchId, Catalog, CatalogOptions, CommitBatch, CommitDelete, CommitPut, Member};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use kvdb_tests::power::Disk;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const WRITERS: usize = 8;
const KEYS_PER_WRITER: usize = 40;
/// Writers of batches, and the keys of each, all of which each of its batches writes: several sectors of the journal.
const BATCH_WRITERS: usize = 2;
const KEYS_PER_BATCH: usize = 40;
/// Acknowledged writes before the power goes, in each round.
const ROUNDS: [usize; 6] = [1, 50, 400, 1_500, 200, 3_000];

fn key(writer: usize, i: usize) -> Key {
    // Long keys, so that the database grows and its pages split.
    Key::new(format!("{writer}/{i}/{}", "k".repeat(200))).unwrap()
}

/// What may be under a key: the last acknowledged state, and every later one of unknown outcome.
type Possible = Vec<Option<VersionId>>;

/// How far a round is.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    /// What is answered from now on proves nothing: see [`Disk::cut`].
    cutting: AtomicBool,
}

/// Writes to its own keys, one after the other, until the catalog takes no more.
async fn write(catalog: Catalog, writer: usize, progress: Arc<Progress>, mut keys: Vec<Possible>) -> Vec<Possible> {
    for n in 0.. {
        let i = (n * 7) % KEYS_PER_WRITER;
        let present = keys[i].last().copied().flatten();
        let (key, version) = (key(writer, i), catalog.next_version());
        let removes = n % 5 == 4 && present.is_some();
        let (next, answer) = if removes {
            let condition = Condition::default();
            let commit_by = UnixMillis(u64::MAX);
            (None, catalog.delete(CommitDelete { key, version: None, condition, commit_by }).await)
        } else {
            (Some(version), catalog.commit(put(key, version)).await)
        };
        match answer {
            Ok(CommitAnswer::Committed(_)) if !progress.cutting.load(Ordering::SeqCst) => keys[i] = vec![next],
            Ok(CommitAnswer::Refused(p)) => panic!("refused: {p}"),
            _ => {
                keys[i].push(next);
                return keys;
            }
        }
        progress.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    keys
}

/// The versions of a batch's keys, in order; none: there are none yet. With the batches that may have replaced them.
type Group = Vec<(CommitBatch, Vec<Option<VersionId>>)>;

fn batch_key(writer: usize, i: usize) -> Key {
    Key::new(format!("batch/{writer}/{i}/{}", "k".repeat(200))).unwrap()
}

fn batch(catalog: &Catalog, writer: usize, number: u64) -> (CommitBatch, Vec<Option<VersionId>>) {
    let versions: Vec<VersionId> = (0..KEYS_PER_BATCH).map(|_| catalog.next_version()).collect();
    let members = versions.iter().enumerate().map(|(i, version)| Member::Put(put(batch_key(writer, i), *version))).collect();
    let name = versions[0].as_bytes();
    let id = Some(BatchId { name: *name, digest: ContentHash::of(&number.to_le_bytes()) });
    (CommitBatch { id, commit_by: UnixMillis(u64::MAX), members }, versions.into_iter().map(Some).collect())
}

/// Writes batches over its keys until the catalog takes no more. The first of what is given is what is known to be there.
async fn write_batches(catalog: Catalog, writer: usize, progress: Arc<Progress>, mut group: Group) -> Group {
    for n in 0.. {
        let (batch, versions) = batch(&catalog, writer, n);
        match catalog.commit_batch(batch.clone()).await {
            Ok(BatchAnswer::Committed(_)) if !progress.cutting.load(Ordering::SeqCst) => group = vec![(batch, versions)],
            Ok(BatchAnswer::Refused(p)) => panic!("refused: {p}"),
            _ => {
                group.push((batch, versions));
                return group;
            }
        }
        progress.acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    group
}

fn put(key: Key, version: VersionId) -> CommitPut {
    CommitPut {
        key,
        version,
        create: false,
        condition: Condition::default(),
        commit_by: UnixMillis(u64::MAX),
        len: 1,
        hash: ContentHash::of(version.as_bytes()),
        content_type: None,
        expires: None,
        replicas: vec![VolumeId::from_bytes([1; 16]), VolumeId::from_bytes([2; 16])],
    }
}

#[test]
fn every_acknowledged_write_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let Some(disk) = Disk::new_or_skip(&dir.path().join("image"), &mount) else { return };
    let mut keys = vec![vec![vec![None]; KEYS_PER_WRITER]; WRITERS];
    let mut groups = vec![Group::new(); BATCH_WRITERS];
    let mut version = VersionId::from_parts(0, 0);
    for writes in ROUNDS {
        (keys, groups, version) = round(&disk, writes, keys, groups, version);
        disk.restore();
        check(&disk, &mut keys, &mut groups);
    }
    disk.unmount();
}

fn options(disk: &Disk) -> CatalogOptions {
    CatalogOptions { dir: disk.path().join("catalog"), cache_bytes: 8 << 20 }
}

/// Opens the catalog, writes, and cuts the power once enough writes are acknowledged.
fn round(
    disk: &Disk,
    writes: usize,
    keys: Vec<Vec<Possible>>,
    groups: Vec<Group>,
    before: VersionId,
) -> (Vec<Vec<Possible>>, Vec<Group>, VersionId) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let catalog = Catalog::open(options(disk)).unwrap();
        assert!(catalog.next_version() > before, "a version was given out twice");
        let progress = Arc::new(Progress::default());
        let writers: Vec<_> =
            keys.into_iter().enumerate().map(|(w, keys)| tokio::spawn(write(catalog.clone(), w, Arc::clone(&progress), keys))).collect();
        let of_batches: Vec<_> = (groups.into_iter().enumerate())
            .map(|(w, group)| tokio::spawn(write_batches(catalog.clone(), w, Arc::clone(&progress), group)))
            .collect();
        while progress.acknowledged.load(Ordering::SeqCst) < writes {
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a write failed before the power was cut");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        progress.cutting.store(true, Ordering::SeqCst);
        disk.cut();
        let (mut keys, mut groups) = (Vec::new(), Vec::new());
        for writer in writers {
            keys.push(writer.await.unwrap());
        }
        for writer in of_batches {
            groups.push(writer.await.unwrap());
        }
        (keys, groups, catalog.next_version())
    })
}

/// Opens the catalog on what is left, and compares.
fn check(disk: &Disk, keys: &mut [Vec<Possible>], groups: &mut [Group]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let catalog = Catalog::open(options(disk)).unwrap();
        let mut present = 0;
        for (writer, keys) in keys.iter_mut().enumerate() {
            for (i, possible) in keys.iter_mut().enumerate() {
                let found = catalog.lookup(&key(writer, i)).await.unwrap().map(|r| r.version);
                assert!(possible.contains(&found), "writer {writer}, key {i}: found {found:?}, and only {possible:?} may be there");
                *possible = vec![found];
                present += u64::from(found.is_some());
            }
        }
        for (writer, group) in groups.iter_mut().enumerate() {
            let batch_keys: Vec<Key> = (0..KEYS_PER_BATCH).map(|i| batch_key(writer, i)).collect();
            let found = async || {
                let records = catalog.lookup_all(&batch_keys).await.unwrap();
                records.into_iter().map(|r| r.map(|r| r.version)).collect::<Vec<_>>()
            };
            let now = found().await;
            let none = now.iter().all(Option::is_none);
            let at = group.iter().position(|(_, versions)| *versions == now);
            assert!(at.is_some() || (none && group.len() < 2), "batch writer {writer}: a part of a batch, or a lost one: {now:?}");
            // Sent again, what was done is told and nothing changes; the rest is forgotten, as it was never asked for again.
            *group = at.map(|at| vec![group.swap_remove(at)]).unwrap_or_default();
            if let Some((batch, _)) = group.first() {
                assert!(matches!(catalog.commit_batch(batch.clone()).await.unwrap(), BatchAnswer::Repeated(_)));
                assert_eq!(found().await, now);
                present += KEYS_PER_BATCH as u64;
            }
        }
        assert_eq!(catalog.stats().keys, present);
        catalog.close().await.unwrap();
    });
}
