//! Values that expire: absent at once, removed soon, and never the reason for an order that is not one.

use super::support::{Controlled, Fate, Fixture, committed, delete, gone, key, put, volume};
use crate::catalog::{CommitPut, ListQuery, SetReplicas, Swept, keyspace};
use kvdb_protocol::ticket::{Condition, Tags};
use kvdb_protocol::{UnixMillis, VersionId};
use std::ops::Bound;
use std::sync::Arc;

/// A put of a value that expires in so many milliseconds.
fn mortal(f: &Fixture, k: impl AsRef<[u8]>, len: u64, ms: u64) -> CommitPut {
    CommitPut { expires: Some(UnixMillis(f.catalog.expiry_now().0 + ms)), ..put(k, f.catalog.next_version(), len) }
}

async fn put_mortal(f: &Fixture, k: impl AsRef<[u8]>, len: u64, ms: u64) -> VersionId {
    let request = mortal(f, k, len, ms);
    committed(f.catalog.commit(request.clone()).await.unwrap());
    request.version
}

fn expiries(f: &Fixture) -> usize {
    f.engine.scan(Bound::Included(&[keyspace::EXPIRY]), Bound::Excluded(b"f"), 9_999).unwrap().len()
}

#[tokio::test]
async fn what_has_expired_is_removed_with_tombstones_and_nothing_else_is() {
    let f = Fixture::new();
    f.put("old", 7).await;
    let request = mortal(&f, "a", 1, 100);
    let answer = f.catalog.commit(request.clone()).await.unwrap();
    put_mortal(&f, "b", 2, 101).await;
    assert_eq!(f.catalog.sweep_expired().await.unwrap(), Swept::default());
    f.pass(100).await;
    assert_eq!((f.catalog.stats().keys, f.catalog.stats().bytes), (3, 10), "it counts until it is removed");
    let seq = f.catalog.stats().seq;
    assert_eq!(f.catalog.sweep_expired().await.unwrap(), Swept { removed: 1, more: false });
    assert_eq!((f.catalog.stats().keys, f.catalog.stats().bytes, f.catalog.stats().seq), (2, 9, seq + 1));
    for v in [1, 2] {
        let items = f.catalog.reclaim_list(volume(v), 9).await.unwrap();
        assert_eq!(items.iter().map(|i| (&i.key, i.version)).collect::<Vec<_>>(), [(&key("a"), request.version)]);
        assert_eq!(items[0].deleted.map(|d| d.seq), Some(seq + 1), "as a delete: a rebuild must find a tombstone");
    }
    assert_eq!(f.catalog.commit(request).await.unwrap(), gone(&answer), "a repeat of its commit gets the same answer");
    let f = f.crashed();
    assert_eq!((f.version("a").await, f.version("b").await.is_some(), expiries(&f)), (None, true, 1));
}

#[tokio::test]
async fn an_entry_of_the_index_goes_and_comes_with_its_record() {
    let f = Fixture::new();
    let version = put_mortal(&f, "a", 1, 50).await;
    assert_eq!(expiries(&f), 1);
    let (before, after) = (vec![volume(1), volume(2)], vec![volume(3)]);
    let change = SetReplicas { key: key("a"), version, before, after, commit_by: super::support::FAR };
    f.catalog.set_replicas(change).await.unwrap();
    assert_eq!(expiries(&f), 1, "a copy that moves changes nothing of it");
    put_mortal(&f, "a", 1, 900).await;
    assert_eq!(expiries(&f), 1, "replaced by one that expires later");
    f.pass(100).await;
    assert_eq!(f.catalog.sweep_expired().await.unwrap().removed, 0);
    f.put("a", 2).await;
    assert_eq!(expiries(&f), 0, "replaced by one that never does");
    put_mortal(&f, "a", 3, 50).await;
    committed(f.catalog.delete(delete("a", None)).await.unwrap());
    assert_eq!(expiries(&f), 0, "deleted");
    let create = CommitPut { create: true, ..mortal(&f, "a", 3, 10) };
    committed(f.catalog.commit(create).await.unwrap());
    f.pass(10).await;
    let create = CommitPut { create: true, ..put("a", f.catalog.next_version(), 4) };
    assert!(committed(f.catalog.commit(create).await.unwrap()).created, "created anew before it was removed");
    assert_eq!((f.catalog.sweep_expired().await.unwrap().removed, expiries(&f)), (0, 0));
    assert!(f.version("a").await.is_some());
}

#[tokio::test]
async fn many_that_expire_at_once_are_removed_in_steps() {
    let f = Fixture::new();
    for i in 0..300 {
        put_mortal(&f, format!("k{i:03}"), 1, 1_000).await;
    }
    f.pass(1_000).await;
    assert!(f.catalog.list(&ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap().entries.is_empty());
    let mut removed = 0;
    loop {
        let swept = f.catalog.sweep_expired().await.unwrap();
        removed += swept.removed;
        if !swept.more {
            break;
        }
    }
    assert_eq!((removed, f.catalog.stats().keys, f.catalog.stats().bytes, expiries(&f)), (300, 0, 0, 0));
}

#[tokio::test]
async fn records_of_several_keys_are_of_one_moment_in_the_order_asked() {
    let f = Fixture::new();
    let a = f.put("a", 1).await;
    put_mortal(&f, "b", 1, 10).await;
    let c = f.put("c", 1).await;
    f.pass(10).await;
    let found = f.catalog.lookup_all(&["c", "b", "x", "a"].map(key)).await.unwrap();
    assert_eq!(found.into_iter().map(|r| r.map(|r| r.version)).collect::<Vec<_>>(), [Some(c), None, None, Some(a)]);
}

/// A write that found the value present, by `If-Match`, came before it expired; whoever then says that it is absent must have
/// seen that write.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_says_absent_while_a_write_is_under_way_that_found_the_value_present() {
    let engine = Controlled::new();
    let f = Arc::new(Fixture::over(engine.clone()));
    let first = mortal(&f, "a", 1, 1_000);
    committed(f.catalog.commit(first.clone()).await.unwrap());
    let controls = engine.control();
    let condition = Condition { if_match: Some(Tags::Of(vec![first.hash])), if_none_match: None };
    let second = CommitPut { condition, ..put("a", f.catalog.next_version(), 2) };
    let version = second.version;
    let catalog = f.catalog.clone();
    let write = tokio::spawn(async move { catalog.commit(second).await });
    tokio::task::block_in_place(|| controls.wait_applied());
    // It expires now, while the batch is being written.
    f.wall.set(first.expires.unwrap().0);
    let (one, many, all) = (f.clone(), f.clone(), f.clone());
    let lookup = tokio::spawn(async move { one.version("a").await });
    let lookups = tokio::spawn(async move { many.catalog.lookup_all(&[key("a")]).await.unwrap()[0].as_ref().map(|r| r.version) });
    let list = tokio::spawn(async move { all.catalog.list(&ListQuery { limit: 9, ..ListQuery::default() }).await.unwrap().entries.len() });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!lookup.is_finished(), "it waits for the batch");
    controls.decide(Fate::Durable);
    drop(controls);
    committed(write.await.unwrap().unwrap());
    assert_eq!((lookup.await.unwrap(), lookups.await.unwrap(), list.await.unwrap()), (Some(version), Some(version), 1));
}
