//! A catalog made of what volumes hold.

use super::support::{committed, delete, key, put, refused, volume};
use crate::catalog::{Catalog, CatalogError, CatalogOptions, RebuildError};
use crate::rebuild::{Entries, Merger, Uncertain};
use kvdb_protocol::message::{Deleted, Entry, Outcome, SettleItem, ValueEntry};
use kvdb_protocol::{ClusterId, ClusterSecret, ContentHash, ErrorCode, UnixMillis, VersionId};
use std::sync::LazyLock;

fn value(k: &str, version: VersionId, seq: Option<u64>) -> Entry {
    Entry::Value(ValueEntry {
        key: key(k),
        version,
        len: 3,
        hash: ContentHash::of(b"abc"),
        content_type: Some("a/b".into()),
        modified: UnixMillis(77),
        expires: None,
        replicas: vec![volume(1), volume(2)],
        seq,
    })
}

/// Versions of a moment ago, so that nothing is refused for its age alone.
fn version(n: u64) -> VersionId {
    static NOW: LazyLock<u64> = LazyLock::new(|| UnixMillis::now().0 - 1_000);
    VersionId::from_parts(*NOW + n, 0)
}

fn entries() -> [Vec<Entry>; 2] {
    let deleted = Deleted { seq: 40, time: UnixMillis(900) };
    let both = [value("a", version(10), Some(7)), value("c", version(30), None), value("d", version(31), None)];
    let mut first = both.to_vec();
    first.insert(1, Entry::Tombstone { key: key("b"), version: version(20), deleted });
    let mut second = both.to_vec();
    second.insert(0, value("a", version(5), Some(6)));
    second.insert(2, value("b", version(20), Some(8)));
    [first, second]
}

fn merger(of: [Vec<Entry>; 2]) -> Merger {
    let sources = of.into_iter().zip(1..).map(|(e, n)| (volume(n), Box::new(e.into_iter().map(Ok)) as Entries));
    Merger::new(sources.collect(), Uncertain::Keep).unwrap()
}

#[tokio::test]
async fn a_rebuilt_catalog_has_the_values_and_not_what_was_deleted_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let (options, cluster) = (CatalogOptions::new(dir.path().join("db")), ClusterId::random());
    let secret = ClusterSecret::random();
    let members = [(volume(1), "h:1".to_string())];
    let summary = Catalog::create_from(&options, (cluster, &secret), &members, merger(entries())).unwrap();
    assert_eq!((summary.keys, summary.bytes, summary.uncertain_kept, summary.tombstones, summary.surplus), (3, 9, 2, 1, 2));

    let catalog = Catalog::open(options.clone()).unwrap();
    assert_eq!(catalog.stored_secret().unwrap(), Some(secret.clone()));
    assert_eq!((catalog.cluster(), catalog.members().await.unwrap()), (cluster, members.to_vec()));
    assert_eq!((catalog.stats().keys, catalog.stats().bytes, catalog.stats().seq), (3, 9, 42));
    let a = catalog.lookup(&key("a")).await.unwrap().unwrap();
    assert_eq!((a.version, a.len, a.hash, a.seq, a.modified), (version(10), 3, ContentHash::of(b"abc"), 7, UnixMillis(77)));
    assert_eq!((a.content_type.as_deref(), a.replicas), (Some("a/b"), vec![volume(1), volume(2)]));
    assert_eq!(catalog.lookup(&key("b")).await.unwrap(), None);
    let mut given: Vec<u64> = Vec::new();
    for k in ["c", "d"] {
        given.push(catalog.lookup(&key(k)).await.unwrap().unwrap().seq);
    }
    assert_eq!(given, [41, 42], "each has a sequence of its own, after all others");
    let surplus = catalog.reclaim_list(volume(2), 9).await.unwrap();
    assert_eq!(surplus.iter().map(|s| (s.version, s.deleted.is_some())).collect::<Vec<_>>(), [(version(5), false), (version(20), true)]);

    let c = SettleItem { key: key("c"), version: version(30), commit_by: UnixMillis(0) };
    assert_eq!(catalog.settle(volume(2), vec![c]).await.unwrap(), [Outcome::Keep { seq: 41 }]);
    let lost = SettleItem { key: key("x"), version: version(31), commit_by: UnixMillis(u64::MAX) };
    assert_eq!(catalog.settle(volume(2), vec![lost]).await.unwrap(), [Outcome::Drop]);
    let old = put("x", version(31), 1);
    assert_eq!(refused(catalog.commit(old).await.unwrap()), ErrorCode::Conflict, "given out before the rebuild");
    committed(catalog.commit(put("x", catalog.next_version(), 1)).await.unwrap());
    committed(catalog.delete(delete("c", None)).await.unwrap());
    drop(catalog);

    let again = Catalog::create_from(&options, (cluster, &secret), &members, merger(entries()));
    assert!(matches!(again, Err(RebuildError::Catalog(CatalogError::NotEmpty { .. }))));
}

#[tokio::test]
async fn a_rebuilt_catalog_knows_what_has_expired_and_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = CatalogOptions::new(dir.path());
    let with_expiry = |k: &str, n, at| match value(k, version(n), Some(n)) {
        Entry::Value(v) => Entry::Value(ValueEntry { expires: Some(UnixMillis(at)), ..v }),
        other => other,
    };
    let both = vec![with_expiry("dead", 1, UnixMillis::now().0 - 5), with_expiry("live", 2, UnixMillis::now().0 + 3_600_000)];
    Catalog::create_from(&options, (ClusterId::random(), &ClusterSecret::random()), &[], merger([both.clone(), both])).unwrap();
    let catalog = Catalog::open(options).unwrap();
    assert_eq!(catalog.lookup(&key("dead")).await.unwrap(), None);
    assert_eq!(catalog.sweep_expired().await.unwrap().removed, 1);
    assert!(catalog.lookup(&key("live")).await.unwrap().is_some());
    assert_eq!((catalog.stats().keys, catalog.reclaim_list(volume(2), 9).await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_rebuild_that_fails_leaves_a_directory_in_which_it_can_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = CatalogOptions::new(dir.path());
    let entries_then_error: Entries = Box::new([Ok(value("a", version(1), Some(1))), Err("reset".to_string())].into_iter());
    let broken = Merger::new(vec![(volume(1), entries_then_error)], Uncertain::Keep).unwrap();
    let (cluster, secret) = (ClusterId::random(), ClusterSecret::random());
    assert!(matches!(Catalog::create_from(&options, (cluster, &secret), &[], broken), Err(RebuildError::Merge(_))));
    Catalog::create_from(&options, (cluster, &secret), &[], merger(entries())).unwrap();
    assert_eq!(Catalog::open(options).unwrap().stats().keys, 3);
}

#[tokio::test]
async fn the_clock_of_a_rebuilt_catalog_is_after_all_that_the_volumes_have_seen() {
    let dir = tempfile::tempdir().unwrap();
    let options = CatalogOptions::new(dir.path());
    let future = UnixMillis::now().0 + 400 * 86_400_000;
    let far = VersionId::from_parts(future, 0);
    let of = [vec![value("a", far, Some(1))], vec![value("a", far, Some(1))]];
    Catalog::create_from(&options, (ClusterId::random(), &ClusterSecret::random()), &[], merger(of)).unwrap();
    let catalog = Catalog::open(options).unwrap();
    assert!(catalog.now().0 > future && catalog.next_version() > far);
}
