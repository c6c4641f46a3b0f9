//! What readers see while a batch is not durable, when it fails, and after restarts.

use super::support::{Controlled, Fate, Fixture, committed, delete, is_pending, key, put, volume};
use crate::catalog::{Catalog, CatalogError, CatalogOptions, ListQuery, keyspace};
use kvdb_protocol::message::{Outcome, SettleItem};
use kvdb_protocol::{ErrorCode, UnixMillis};
use std::sync::atomic::Ordering;

fn is_error<T>(result: &Result<T, CatalogError>, code: ErrorCode) -> bool {
    result.as_ref().is_err_and(|e| e.problem().code == code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_never_returns_what_is_not_durable_and_never_waits() {
    let engine = Controlled::new();
    let f = Fixture::over(engine.clone());
    let old = f.put("a", 1).await;
    let controls = engine.control();
    let (catalog, new, fresh) = (f.catalog.clone(), f.catalog.next_version(), f.catalog.next_version());
    let writer = tokio::spawn(async move { catalog.commit(put("a", new, 2)).await });
    controls.wait_applied();
    assert_eq!(f.version("a").await, Some(old), "the engine shows the new one, but it is not durable");
    let everything = ListQuery { limit: 9, detail: true, ..ListQuery::default() };
    let mut page = Box::pin(f.catalog.list(&everything));
    assert!(is_pending(page.as_mut()).await, "it waits for this batch, and the next one will wait for it");
    let mut second = Box::pin(f.catalog.commit(put("b", fresh, 2)));
    assert!(is_pending(second.as_mut()).await && !writer.is_finished());
    controls.decide(Fate::Durable);
    committed(writer.await.unwrap().unwrap());
    assert_eq!(f.version("a").await, Some(new));
    let page = page.await.unwrap();
    assert_eq!(page.entries.len(), 1, "a page shows what was durable when it was read");
    controls.wait_applied();
    assert_eq!(f.version("b").await, None);
    drop(controls);
    committed(second.await.unwrap());
    assert_eq!(f.version("b").await, Some(fresh));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_outcomes_are_unknown_writes_end_and_other_keys_are_still_read() {
    for fate in [Fate::LostSync, Fate::Panic] {
        let engine = Controlled::new();
        let f = Fixture::over(engine.clone());
        let (a, x) = (f.put("a", 1).await, f.put("x", 1).await);
        f.catalog.remember_member(volume(1), "h:1").await.unwrap();
        let controls = engine.control();
        let (catalog, version) = (f.catalog.clone(), f.catalog.next_version());
        let writer = tokio::spawn(async move { catalog.commit(put("a", version, 2)).await });
        controls.wait_applied();
        controls.decide(fate);
        assert!(is_error(&writer.await.unwrap(), ErrorCode::OutcomeUnknown));
        assert!(is_error(&f.catalog.commit(put("b", f.catalog.next_version(), 1)).await, ErrorCode::Unavailable));
        let item = SettleItem { key: key("a"), version: a, commit_by: UnixMillis(1) };
        assert!(is_error(&f.catalog.settle(volume(1), vec![item]).await, ErrorCode::Unavailable));
        assert!(is_error(&f.catalog.lookup(&key("a")).await, ErrorCode::OutcomeUnknown), "nobody knows which value it will be");
        assert!(is_error(&f.catalog.list(&ListQuery { limit: 9, ..ListQuery::default() }).await, ErrorCode::OutcomeUnknown));
        assert!(is_error(&f.catalog.reclaim_list(volume(1), 9).await, ErrorCode::Unavailable), "the old value may be needed yet");
        assert_eq!(f.version("x").await, Some(x));
        let page = f.catalog.list(&ListQuery { prefix: b"x".to_vec(), limit: 9, ..ListQuery::default() }).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert!(!f.catalog.stats().writable);
        assert!(is_error(&f.catalog.clone().close().await, ErrorCode::Unavailable));
    }
}

#[tokio::test]
async fn a_full_disk_refuses_values_first_and_takes_deletes_and_recovers_by_itself() {
    let engine = Controlled::new();
    let f = Fixture::over(engine.clone());
    let version = f.put("a", 1).await;
    let request = put("b", f.catalog.next_version(), 1);
    engine.free.store(32 << 20, Ordering::SeqCst);
    assert!(is_error(&f.catalog.commit(request.clone()).await, ErrorCode::NoSpace));
    committed(f.catalog.commit(put("a", version, 1)).await.unwrap());
    committed(f.catalog.delete(delete("a", None)).await.unwrap());
    engine.free.store(1 << 20, Ordering::SeqCst);
    assert!(is_error(&f.catalog.delete(delete("a", None)).await, ErrorCode::NoSpace));
    engine.free.store(1 << 30, Ordering::SeqCst);
    committed(f.catalog.commit(request).await.unwrap());
}

#[tokio::test]
async fn times_versions_and_sequences_go_on_after_a_crash_with_the_clock_set_back() {
    let mut f = Fixture::new();
    let (mut time, mut version, mut seq) = (f.catalog.now(), f.catalog.next_version(), 0);
    for round in 0..5u64 {
        committed(f.catalog.commit(put(format!("k{round}"), f.catalog.next_version(), 1)).await.unwrap());
        f.wall.set(super::support::Wall::START - round * 86_400_000);
        f = f.crashed();
        assert!(f.catalog.now() > time, "round {round}");
        assert!(f.catalog.next_version() > version && f.catalog.stats().seq > seq, "round {round}");
        (time, version, seq) = (f.catalog.now(), f.catalog.next_version(), f.catalog.stats().seq);
    }
}

#[tokio::test]
async fn what_was_refused_for_its_time_stays_refused_after_a_crash() {
    let f = Fixture::new();
    let commit_by = UnixMillis(f.catalog.now().0 + 3_600_000);
    let version = f.catalog.next_version();
    f.pass(3_600_001).await;
    let item = SettleItem { key: key("a"), version, commit_by };
    assert_eq!(f.catalog.settle(volume(1), vec![item]).await.unwrap(), [Outcome::Drop]);
    f.wall.set(super::support::Wall::START);
    let f = f.crashed();
    let late = crate::catalog::CommitPut { commit_by, ..put("a", version, 1) };
    assert_eq!(super::support::refused(f.catalog.commit(late).await.unwrap()), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_catalog_on_disk_is_as_it_was_after_a_drop_and_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let options = CatalogOptions { dir: dir.path().join("new/catalog"), cache_bytes: 4 << 20 };
    let catalog = Catalog::open(options.clone()).unwrap();
    let cluster = catalog.cluster();
    let request = put("a", catalog.next_version(), 1);
    let answer = catalog.commit(request.clone()).await.unwrap();
    committed(catalog.commit(put("a2", catalog.next_version(), 7)).await.unwrap());
    let (version, stats) = (catalog.next_version(), catalog.stats());
    assert!(matches!(Catalog::open(options.clone()), Err(CatalogError::Locked(_))));
    drop(catalog);
    for closes in [true, false] {
        let catalog = Catalog::open(options.clone()).unwrap();
        assert_eq!((catalog.cluster(), catalog.stats()), (cluster, stats));
        assert_eq!((stats.keys, stats.bytes, stats.seq), (2, 8, 2));
        assert!(catalog.next_version() > version);
        assert_eq!(catalog.commit(request.clone()).await.unwrap(), answer);
        assert_eq!(catalog.lookup(&key("a")).await.unwrap().unwrap().version, request.version);
        assert!(catalog.size_on_disk().unwrap() > 0);
        if closes {
            let other = catalog.clone();
            catalog.close().await.unwrap();
            assert!(matches!(other.commit(put("b", version, 1)).await, Err(CatalogError::Closed)));
            assert!(other.lookup(&key("a")).await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_gets_an_answer_when_the_catalog_is_closed_among_them() {
    let f = Fixture::new();
    let tasks: Vec<_> = (0..300u64)
        .map(|i| {
            let catalog = f.catalog.clone();
            tokio::spawn(async move { catalog.commit(put(format!("k{i}"), catalog.next_version(), i)).await.is_ok() })
        })
        .collect();
    f.catalog.clone().close().await.unwrap();
    let mut done = 0;
    for task in tasks {
        done += u64::from(task.await.unwrap());
    }
    assert_eq!(f.catalog.stats().keys, done);
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_done_again_and_a_missing_database_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("db.new/blobs")).unwrap();
    std::fs::write(dir.path().join("db.new/conf"), "half").unwrap();
    let options = CatalogOptions::new(dir.path());
    drop(Catalog::open(options.clone()).unwrap());
    std::fs::remove_file(dir.path().join("format")).unwrap();
    drop(Catalog::open(options.clone()).unwrap());
    assert!(dir.path().join("format").exists());
    std::fs::rename(dir.path().join("db"), dir.path().join("elsewhere")).unwrap();
    let error = Catalog::open(options).unwrap_err();
    assert!(matches!(error, CatalogError::NotACatalog { .. }) && error.to_string().contains("rebuild"), "{error}");
}

#[tokio::test]
async fn an_unreadable_record_is_an_error_that_names_its_key_and_spares_the_others() {
    let f = Fixture::new();
    f.put("a", 1).await;
    let b = f.put("b", 1).await;
    let mut batch = crate::catalog::engine::Batch::default();
    batch.put(b"ra", b"\x01\xFF");
    f.engine.apply(&batch).unwrap();
    for failed in [f.catalog.lookup(&key("a")).await.map(drop), f.catalog.commit(put("a", f.catalog.next_version(), 2)).await.map(drop)] {
        assert!(failed.unwrap_err().to_string().contains("record of a"));
    }
    assert_eq!(f.version("b").await, Some(b));
    f.put("b", 2).await;
}

#[test]
fn a_catalog_can_be_shared_and_its_last_owner_may_be_any_thread() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let f = Fixture::new();
    shared(&f.catalog);
    let catalog = f.catalog.clone();
    drop(f);
    std::thread::spawn(move || drop(catalog)).join().unwrap();
}

#[tokio::test]
async fn a_catalog_from_before_the_journal_is_taken_over_and_refused_by_masters_of_that_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = CatalogOptions { dir: dir.path().into(), cache_bytes: 1 << 20 };
    let catalog = Catalog::open(options.clone()).unwrap();
    let version = catalog.next_version();
    committed(catalog.commit(put("a", version, 1)).await.unwrap());
    catalog.close().await.unwrap();
    to_format_1(dir.path());
    for _ in 0..2 {
        let catalog = Catalog::open(options.clone()).unwrap();
        assert_eq!(catalog.lookup(&key("a")).await.unwrap().map(|r| r.version), Some(version));
        catalog.close().await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("format")).unwrap(), "kvdb catalog 2\n");
        let db = sled::open(dir.path().join("db")).unwrap();
        assert_eq!(db.get(keyspace::META_FORMAT).unwrap().unwrap().as_ref(), 2u32.to_le_bytes());
    }
}

/// Makes a closed catalog what it was before there was a journal.
fn to_format_1(dir: &std::path::Path) {
    let db = sled::open(dir.join("db")).unwrap();
    db.drop_tree("numbers").unwrap();
    db.insert(keyspace::META_FORMAT, &1u32.to_le_bytes()).unwrap();
    db.flush().unwrap();
    for file in ["journal.0", "journal.1"] {
        std::fs::remove_file(dir.join("db").join(file)).unwrap();
    }
    std::fs::write(dir.join("format"), "kvdb catalog 1\n").unwrap();
}
