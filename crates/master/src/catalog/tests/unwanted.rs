//! Copies that belong to no record.

use super::support::{FAR, Fixture, delete, key, volume};
use crate::catalog::{SetReplicas, Unlisted, Unwanted};
use kvdb_protocol::VersionId;

fn unwanted(k: &str, version: VersionId, at: u8, seq: u64) -> Unwanted {
    Unwanted { volume: volume(at), key: key(k), version, seq, deleted: None, force: false }
}

#[tokio::test]
async fn a_copy_that_a_record_names_is_never_removed_however_it_is_asked() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    let named = Unwanted { force: true, ..unwanted("a", version, 1, 0) };
    assert_eq!(f.catalog.remove_unwanted(vec![named]).await.unwrap(), [Unlisted::Named]);
    assert!(f.catalog.reclaim_pending().await.is_empty());
}

#[tokio::test]
async fn what_was_overtaken_or_given_up_is_removed_and_what_is_unknown_only_by_force() {
    let f = Fixture::new();
    let first = f.put("a", 1).await;
    let version = f.put("a", 2).await;
    let seq = f.catalog.stats().seq;
    // As a volume has them that was not there for their reclaim.
    let ask = [
        unwanted("a", first, 3, seq - 1),
        unwanted("a", VersionId::from_parts(5, 5), 3, seq + 1),
        unwanted("a", version, 3, seq),
        unwanted("b", first, 3, seq - 1),
    ];
    let told = f.catalog.remove_unwanted(ask.to_vec()).await.unwrap();
    assert_eq!(told, [Unlisted::ToBeRemoved, Unlisted::Unknown, Unlisted::ToBeRemoved, Unlisted::Unknown]);
    let forced = ask.map(|u| Unwanted { force: true, ..u });
    assert_eq!(f.catalog.remove_unwanted(forced.to_vec()).await.unwrap(), [Unlisted::ToBeRemoved; 4]);
    assert_eq!(f.catalog.reclaim_pending().await[&volume(3)], 3, "two of the four are one version at one volume");
    // It cannot become a replica while its removal is under way.
    let change =
        SetReplicas { key: key("a"), version, before: vec![volume(1), volume(2)], after: vec![volume(1), volume(3)], commit_by: FAR };
    assert!(matches!(f.catalog.set_replicas(change).await.unwrap(), crate::catalog::Placed::Outdated(_)));
    f.catalog.delete(delete("a", None)).await.unwrap();
}
