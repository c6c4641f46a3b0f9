//! Changes of a version's volumes.

use super::support::{FAR, Fixture, committed, delete, key, put, volume};
use crate::catalog::{Catalog, Duty, Placed, SetReplicas};
use kvdb_protocol::message::{Outcome, SettleItem, Standing};
use kvdb_protocol::{UnixMillis, VersionId};

fn change(k: &str, version: VersionId, before: &[u8], after: &[u8]) -> SetReplicas {
    let volumes = |ids: &[u8]| ids.iter().map(|n| volume(*n)).collect();
    SetReplicas { key: key(k), version, before: volumes(before), after: volumes(after), commit_by: FAR }
}

fn outdated(placed: Placed) -> &'static str {
    match placed {
        Placed::Outdated(why) => why,
        Placed::Done { .. } => panic!("it was done"),
    }
}

async fn to_remove(catalog: &Catalog, at: u8) -> Vec<VersionId> {
    catalog.reclaim_list(volume(at), 10).await.unwrap().into_iter().map(|i| i.version).collect()
}

fn item(k: &str, version: VersionId, commit_by: UnixMillis) -> SettleItem {
    SettleItem { key: key(k), version, commit_by }
}

#[tokio::test]
async fn a_volume_that_is_replaced_has_its_copy_on_its_list_and_nothing_else_of_the_record_changes() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    let before = f.catalog.lookup(&key("k")).await.unwrap().unwrap();
    let placed = f.catalog.set_replicas(change("k", v, &[1, 2], &[1, 3])).await.unwrap();
    assert_eq!(placed, Placed::Done { seq: before.seq });
    let after = f.catalog.lookup(&key("k")).await.unwrap().unwrap();
    assert_eq!(after.replicas, [volume(1), volume(3)]);
    assert_eq!(crate::catalog::Record { replicas: before.replicas.clone(), ..after }, before);
    assert_eq!((to_remove(&f.catalog, 1).await, to_remove(&f.catalog, 2).await, to_remove(&f.catalog, 3).await), (vec![], vec![v], vec![]));
    assert_eq!((f.catalog.stats().keys, f.catalog.stats().bytes), (1, 5));
}

#[tokio::test]
async fn a_change_based_on_an_old_record_does_nothing() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    assert!(outdated(f.catalog.set_replicas(change("k", v, &[2, 1], &[1, 3])).await.unwrap()).contains("volumes"));
    let w = f.put("k", 6).await;
    assert!(outdated(f.catalog.set_replicas(change("k", v, &[1, 2], &[1, 3])).await.unwrap()).contains("replaced"));
    committed(f.catalog.delete(delete("k", Some(w))).await.unwrap());
    assert!(outdated(f.catalog.set_replicas(change("k", w, &[1, 2], &[1, 3])).await.unwrap()).contains("deleted"));
    assert_eq!(to_remove(&f.catalog, 3).await, []);
}

#[tokio::test]
async fn a_change_that_took_too_long_is_refused_and_until_then_the_copy_is_pending() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    let by = UnixMillis(f.catalog.now().0 + 1_000);
    let asked = || f.catalog.settle(volume(3), vec![item("k", v, by)]);
    assert_eq!(asked().await.unwrap(), [Outcome::Pending]);
    f.pass(1_001).await;
    assert_eq!(asked().await.unwrap(), [Outcome::Drop]);
    let late = SetReplicas { commit_by: by, ..change("k", v, &[1, 2], &[1, 3]) };
    assert!(outdated(f.catalog.set_replicas(late).await.unwrap()).contains("too long"));
}

#[tokio::test]
async fn a_volume_becomes_a_replica_again_only_once_its_earlier_copy_is_removed() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    f.catalog.set_replicas(change("k", v, &[1, 2], &[1, 3])).await.unwrap();
    assert!(outdated(f.catalog.set_replicas(change("k", v, &[1, 3], &[1, 2])).await.unwrap()).contains("remove"));
    assert!(f.catalog.is_reclaimed(volume(2), v).await.unwrap());
    let items = f.catalog.reclaim_list(volume(2), 10).await.unwrap();
    f.catalog.reclaim_done(volume(2), &items).await.unwrap();
    assert!(!f.catalog.is_reclaimed(volume(2), v).await.unwrap());
    assert!(matches!(f.catalog.set_replicas(change("k", v, &[1, 3], &[1, 2])).await.unwrap(), Placed::Done { .. }));
    assert_eq!(to_remove(&f.catalog, 3).await, [v]);
}

#[tokio::test]
async fn a_commit_asked_for_again_says_that_the_version_was_moved() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    let again = || f.catalog.commit(put("k", v, 5));
    assert_eq!(committed(again().await.unwrap()).standing, Standing::Current);
    f.catalog.set_replicas(change("k", v, &[1, 2], &[1, 3])).await.unwrap();
    assert_eq!(committed(again().await.unwrap()).standing, Standing::Moved);
}

#[tokio::test]
async fn a_replaced_version_is_removed_from_the_volumes_that_hold_it_now() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    f.catalog.set_replicas(change("k", v, &[1, 2], &[1, 3])).await.unwrap();
    f.put("k", 6).await;
    assert_eq!(
        (to_remove(&f.catalog, 1).await, to_remove(&f.catalog, 2).await, to_remove(&f.catalog, 3).await),
        (vec![v], vec![v], vec![v])
    );
    // A repeat of its commit, by the volumes of then, is told that it was committed.
    let again = put("k", v, 5);
    committed(f.catalog.commit(again).await.unwrap());
}

#[tokio::test]
async fn volumes_that_are_none_twice_or_too_many_are_refused() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    let many: Vec<u8> = (1..=9).collect();
    for after in [&[][..], &[3, 3], &many] {
        assert!(f.catalog.set_replicas(change("k", v, &[1, 2], after)).await.is_err(), "{after:?}");
    }
}

#[tokio::test]
async fn duties_listed_addresses_and_changed_volumes_survive_a_crash() {
    let f = Fixture::new();
    let v = f.put("k", 5).await;
    f.catalog.set_replicas(change("k", v, &[1, 2], &[3, 1])).await.unwrap();
    f.catalog.set_duty(volume(1), Some(Duty::Drain)).await.unwrap();
    f.catalog.set_duty(volume(2), Some(Duty::Removed)).await.unwrap();
    f.catalog.set_duty(volume(3), Some(Duty::Drain)).await.unwrap();
    f.catalog.set_duty(volume(3), None).await.unwrap();
    f.catalog.set_listed("a:1", true).await.unwrap();
    f.catalog.set_listed("b:2", true).await.unwrap();
    f.catalog.set_listed("a:1", false).await.unwrap();
    let f = f.crashed();
    assert_eq!(f.catalog.duties().await.unwrap(), [(volume(1), Duty::Drain), (volume(2), Duty::Removed)]);
    assert_eq!(f.catalog.listed().await.unwrap(), ["b:2"]);
    let records = f.catalog.records(None, 10).await.unwrap();
    assert_eq!(records.iter().map(|(k, r)| (k.clone(), r.replicas.clone())).collect::<Vec<_>>(), [(key("k"), vec![volume(3), volume(1)])]);
    assert_eq!(f.catalog.records(Some(key("k")), 10).await.unwrap().len(), 0);
}

#[tokio::test]
async fn removals_at_a_volume_that_is_gone_are_forgotten_and_those_of_others_are_not() {
    let f = Fixture::new();
    for n in 0..700 {
        f.put(format!("k{n}"), 5).await;
        f.put(format!("k{n}"), 6).await;
    }
    assert_eq!(f.catalog.reclaim_pending().await[&volume(1)], 700);
    f.catalog.forget_reclaim(volume(1)).await.unwrap();
    assert_eq!(f.catalog.reclaim_pending().await.get(&volume(1)), None);
    assert_eq!(f.catalog.reclaim_pending().await[&volume(2)], 700);
    assert_eq!(f.crashed().catalog.reclaim_pending().await.len(), 1);
}
