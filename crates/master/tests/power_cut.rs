//! Power cuts, in truth: an ext4 file system on a loop device is shut down without writing its journal
//! out, under load, mounted again, and every acknowledged write must be there.
//!
//! Needs root and a free loop device; where these are missing the test says so and checks nothing.

#![allow(clippy::unwrap_used)] // All of it is a test.

use kvdb_master::catalog::{Catalog, CatalogOptions, CommitDelete, CommitPut};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, Key, UnixMillis, VersionId, VolumeId};
use kvdb_tests::power::Disk;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const WRITERS: usize = 8;
const KEYS_PER_WRITER: usize = 40;
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
            (None, catalog.delete(CommitDelete { key, version: None, condition, commit_by, removed_at: None }).await)
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
    let mut version = VersionId::from_parts(0, 0);
    for writes in ROUNDS {
        (keys, version) = round(&disk, writes, keys, version);
        disk.restore();
        check(&disk, &mut keys);
    }
    disk.unmount();
}

fn options(disk: &Disk) -> CatalogOptions {
    CatalogOptions { dir: disk.path().join("catalog"), cache_bytes: 8 << 20 }
}

/// Opens the catalog, writes, and cuts the power once enough writes are acknowledged.
fn round(disk: &Disk, writes: usize, keys: Vec<Vec<Possible>>, before: VersionId) -> (Vec<Vec<Possible>>, VersionId) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let catalog = Catalog::open(options(disk)).unwrap();
        assert!(catalog.next_version() > before, "a version was given out twice");
        let progress = Arc::new(Progress::default());
        let writers: Vec<_> =
            keys.into_iter().enumerate().map(|(w, keys)| tokio::spawn(write(catalog.clone(), w, Arc::clone(&progress), keys))).collect();
        while progress.acknowledged.load(Ordering::SeqCst) < writes {
            assert!(!writers.iter().any(tokio::task::JoinHandle::is_finished), "a write failed before the power was cut");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        progress.cutting.store(true, Ordering::SeqCst);
        disk.cut();
        let mut keys = Vec::new();
        for writer in writers {
            keys.push(writer.await.unwrap());
        }
        (keys, catalog.next_version())
    })
}

/// Opens the catalog on what is left, and compares.
fn check(disk: &Disk, keys: &mut [Vec<Possible>]) {
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
        assert_eq!(catalog.stats().keys, present);
        catalog.close().await.unwrap();
    });
}
