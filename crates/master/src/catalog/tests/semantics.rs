//! What becomes of commits, deletes, repeats and questions.

use super::support::{FAR, Fixture, committed, delete, gone, key, put, refused, volume};
use crate::catalog::view::DECISION_EPOCH;
use crate::catalog::{CatalogError, CommitPut, MAX_TICKET_LIFE};
use kvdb_protocol::message::{Deleted, Outcome, ReclaimItem, SettleItem};
use kvdb_protocol::ticket::{Condition, Tags};
use kvdb_protocol::{ContentHash, ErrorCode, UnixMillis, VersionId};

fn epochs(n: u64) -> u64 {
    n * u64::try_from(DECISION_EPOCH.as_millis()).unwrap()
}

async fn settle(f: &Fixture, k: &str, version: VersionId, commit_by: UnixMillis) -> Outcome {
    let item = SettleItem { key: key(k), version, commit_by };
    f.catalog.settle(volume(1), vec![item]).await.unwrap()[0]
}

async fn reclaim_all(f: &Fixture) {
    for v in [volume(1), volume(2)] {
        let items = f.catalog.reclaim_list(v, 1000).await.unwrap();
        f.catalog.reclaim_done(v, &items).await.unwrap();
    }
    assert!(f.catalog.reclaim_pending().await.is_empty());
}

#[tokio::test]
async fn a_committed_value_is_found_with_all_that_was_said_of_it() {
    let f = Fixture::new();
    let version = f.catalog.next_version();
    let request = CommitPut { content_type: Some("a/b".into()), expires: Some(FAR), ..put("a", version, 5) };
    let c = committed(f.catalog.commit(request.clone()).await.unwrap());
    assert!(c.created && c.seq == 1 && c.removed.is_none());
    let r = f.catalog.lookup(&key("a")).await.unwrap().unwrap();
    assert_eq!((r.version, r.len, r.hash, r.replicas), (version, 5, request.hash, request.replicas));
    assert_eq!((r.content_type.as_deref(), r.expires, r.seq, r.modified), (Some("a/b"), Some(FAR), 1, c.modified));
    assert_eq!(f.catalog.lookup(&key("b")).await.unwrap(), None);
}

#[tokio::test]
async fn a_replaced_version_is_reclaimed_from_each_of_its_volumes() {
    let f = Fixture::new();
    let old = f.put("a", 1).await;
    let replaced = CommitPut { replicas: vec![volume(3)], ..put("a", f.catalog.next_version(), 2) };
    let c = committed(f.catalog.commit(replaced).await.unwrap());
    assert!(!c.created && c.seq == 2);
    let item = ReclaimItem { key: key("a"), version: old, deleted: None };
    for v in [volume(1), volume(2)] {
        assert_eq!(f.catalog.reclaim_list(v, 10).await.unwrap(), std::slice::from_ref(&item));
        assert_eq!(f.catalog.reclaim_list(v, 0).await.unwrap(), []);
    }
    assert_eq!(f.catalog.reclaim_list(volume(3), 10).await.unwrap(), []);
    f.catalog.reclaim_done(volume(1), std::slice::from_ref(&item)).await.unwrap();
    f.catalog.reclaim_done(volume(1), &[item]).await.unwrap();
    assert_eq!(f.catalog.reclaim_pending().await.into_iter().collect::<Vec<_>>(), [(volume(2), 1)]);
}

#[tokio::test]
async fn a_delete_leaves_the_key_absent_and_tells_its_volumes_of_the_tombstone() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    let c = committed(f.catalog.delete(delete("a", Some(version))).await.unwrap());
    assert_eq!((c.seq, c.created, c.removed), (2, false, Some(version)));
    assert_eq!(f.version("a").await, None);
    let deleted = Some(Deleted { seq: 2, time: c.modified });
    assert_eq!(f.catalog.reclaim_list(volume(2), 10).await.unwrap(), [ReclaimItem { key: key("a"), version, deleted }]);
    assert_eq!((f.catalog.stats().keys, f.catalog.stats().bytes, f.catalog.stats().seq), (0, 0, 2));
    assert_eq!(refused(f.catalog.delete(delete("a", None)).await.unwrap()), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_create_of_a_key_in_use_is_refused_and_stays_refused_when_the_key_is_gone() {
    let f = Fixture::new();
    f.put("a", 1).await;
    let create = CommitPut { create: true, ..put("a", f.catalog.next_version(), 2) };
    assert_eq!(refused(f.catalog.commit(create.clone()).await.unwrap()), ErrorCode::Exists);
    committed(f.catalog.delete(delete("a", None)).await.unwrap());
    assert_eq!(refused(f.catalog.commit(create.clone()).await.unwrap()), ErrorCode::Exists, "the volume has dropped it");
    assert_eq!(settle(&f, "a", create.version, FAR).await, Outcome::Drop);
    assert_eq!(f.version("a").await, None);
}

#[tokio::test]
async fn preconditions_are_checked_against_the_value_at_commit() {
    let f = Fixture::new();
    let hash = |len: u64| Some(Tags::Of(vec![ContentHash::of(&len.to_le_bytes())]));
    f.put("a", 1).await;
    let of = |if_match, if_none_match| Condition { if_match, if_none_match };
    let with = |condition, len| CommitPut { condition, ..put("a", f.catalog.next_version(), len) };
    let failed = ErrorCode::PreconditionFailed;
    assert_eq!(refused(f.catalog.commit(with(of(hash(9), None), 2)).await.unwrap()), failed);
    assert_eq!(refused(f.catalog.commit(with(of(None, Some(Tags::Any)), 2)).await.unwrap()), failed);
    committed(f.catalog.commit(with(of(hash(1), None), 2)).await.unwrap());
    assert_eq!(refused(f.catalog.commit(with(of(hash(1), None), 3)).await.unwrap()), failed);
    let stale = crate::catalog::CommitDelete { condition: of(hash(1), None), ..delete("a", Some(f.catalog.next_version())) };
    assert_eq!(refused(f.catalog.delete(stale).await.unwrap()), failed);
    let fresh = crate::catalog::CommitDelete { condition: of(hash(2), None), ..delete("a", None) };
    committed(f.catalog.delete(fresh).await.unwrap());
}

#[tokio::test]
async fn a_commit_asked_for_again_has_the_same_answer_while_current_replaced_and_reclaimed() {
    let f = Fixture::new();
    let first = put("a", f.catalog.next_version(), 1);
    let answer = f.catalog.commit(first.clone()).await.unwrap();
    assert_eq!(f.catalog.commit(first.clone()).await.unwrap(), answer);
    let second = f.put("a", 2).await;
    assert_eq!(f.catalog.commit(first.clone()).await.unwrap(), gone(&answer), "replaced");
    reclaim_all(&f).await;
    assert_eq!(f.catalog.commit(first.clone()).await.unwrap(), gone(&answer), "reclaimed");
    assert_eq!(f.version("a").await, Some(second), "and the old value has not come back");
    committed(f.catalog.delete(delete("a", None)).await.unwrap());
    reclaim_all(&f).await;
    assert_eq!(f.catalog.commit(first).await.unwrap(), gone(&answer), "deleted");
    assert_eq!((f.version("a").await, f.catalog.stats().seq), (None, 3));
}

#[tokio::test]
async fn a_commit_asked_for_again_much_later_is_answered_from_the_reclaim_list() {
    let f = Fixture::new();
    let first = put("a", f.catalog.next_version(), 1);
    let answer = f.catalog.commit(first.clone()).await.unwrap();
    f.pass(epochs(3)).await;
    f.put("a", 2).await;
    f.pass(epochs(3)).await;
    assert_eq!(settle(&f, "a", first.version, FAR).await, Outcome::Drop);
    assert_eq!(f.catalog.commit(first).await.unwrap(), gone(&answer));
}

#[tokio::test]
async fn a_decision_answers_for_a_whole_epoch_whenever_it_was_made() {
    let f = Fixture::new();
    for _ in 0..4 {
        let first = put("a", f.catalog.next_version(), 1);
        let answer = f.catalog.commit(first.clone()).await.unwrap();
        let second = f.put("a", 2).await;
        reclaim_all(&f).await;
        f.pass(epochs(1) - 1).await;
        assert_eq!(settle(&f, "a", first.version, FAR).await, Outcome::Drop);
        assert_eq!(f.catalog.commit(first).await.unwrap(), gone(&answer));
        assert_eq!(f.version("a").await, Some(second));
        f.pass(90_001).await;
    }
}

#[tokio::test]
async fn a_version_committed_with_another_hash_is_the_callers_fault() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    assert!(matches!(f.catalog.commit(put("a", version, 2)).await, Err(CatalogError::BadRequest(_))));
    for replicas in [vec![], vec![volume(1), volume(1)], (0..9).map(volume).collect()] {
        let request = CommitPut { replicas, ..put("b", f.catalog.next_version(), 1) };
        assert!(matches!(f.catalog.commit(request).await, Err(CatalogError::BadRequest(_))));
    }
}

#[tokio::test]
async fn a_delete_asked_for_again_has_the_same_answer_and_spares_what_was_stored_since() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    let request = crate::catalog::CommitDelete { commit_by: UnixMillis(f.catalog.now().0 + 60_000), ..delete("a", Some(version)) };
    let answer = f.catalog.delete(request.clone()).await.unwrap();
    assert_eq!(f.catalog.delete(request.clone()).await.unwrap(), answer);
    let second = f.put("a", 2).await;
    assert_eq!(f.catalog.delete(request.clone()).await.unwrap(), answer);
    assert_eq!(f.version("a").await, Some(second));
    let later = UnixMillis(request.commit_by.0 + 1);
    let other = crate::catalog::CommitDelete { commit_by: later, ..request.clone() };
    let c = committed(f.catalog.delete(other).await.unwrap());
    assert_eq!(c.removed, Some(second), "another delete, with an old ticket, takes what is there");
}

#[tokio::test]
async fn a_refused_delete_stays_refused() {
    let f = Fixture::new();
    let request = delete("a", Some(f.catalog.next_version()));
    assert_eq!(refused(f.catalog.delete(request.clone()).await.unwrap()), ErrorCode::NotFound);
    let version = f.put("a", 1).await;
    assert_eq!(refused(f.catalog.delete(request).await.unwrap()), ErrorCode::NotFound);
    assert_eq!(f.version("a").await, Some(version));
}

#[tokio::test]
async fn after_its_last_time_a_version_is_refused_and_dropped_and_never_before() {
    let f = Fixture::new();
    let commit_by = UnixMillis(f.catalog.now().0 + 1_000);
    let request = CommitPut { commit_by, ..put("a", f.catalog.next_version(), 1) };
    let other = CommitPut { commit_by, ..put("b", f.catalog.next_version(), 1) };
    assert_eq!(settle(&f, "a", request.version, commit_by).await, Outcome::Pending);
    f.pass(1_000).await;
    assert_eq!(settle(&f, "a", request.version, commit_by).await, Outcome::Pending);
    committed(f.catalog.commit(other).await.unwrap());
    f.pass(1).await;
    assert_eq!(settle(&f, "a", request.version, commit_by).await, Outcome::Drop);
    assert_eq!(refused(f.catalog.commit(request).await.unwrap()), ErrorCode::Conflict);
    let late = crate::catalog::CommitDelete { commit_by, ..delete("b", None) };
    assert_eq!(refused(f.catalog.delete(late).await.unwrap()), ErrorCode::Conflict);
    assert!(f.version("b").await.is_some());
}

#[tokio::test]
async fn a_volume_that_has_lost_a_tickets_times_may_drop_it_when_no_ticket_can_last() {
    let f = Fixture::new();
    let life = u64::try_from(MAX_TICKET_LIFE.as_millis()).unwrap();
    let request = put("a", f.catalog.next_version(), 1);
    f.pass(life).await;
    assert_eq!(settle(&f, "a", request.version, UnixMillis(0)).await, Outcome::Pending);
    f.pass(1).await;
    assert_eq!(settle(&f, "a", request.version, UnixMillis(0)).await, Outcome::Drop);
    assert_eq!(refused(f.catalog.commit(request).await.unwrap()), ErrorCode::Conflict, "whatever its ticket says");
}

#[tokio::test]
async fn a_current_version_is_kept_by_its_replicas_and_dropped_elsewhere_once_its_time_is_over() {
    let f = Fixture::new();
    let version = f.put("a", 1).await;
    assert_eq!(settle(&f, "a", version, UnixMillis(1)).await, Outcome::Keep { seq: 1 });
    let item = |commit_by| SettleItem { key: key("a"), version, commit_by };
    let there = f.catalog.settle(volume(3), vec![item(UnixMillis(1)), item(FAR)]).await.unwrap();
    assert_eq!(there, [Outcome::Drop, Outcome::Pending]);
    f.put("a", 2).await;
    assert_eq!(settle(&f, "a", version, FAR).await, Outcome::Drop, "replaced");
}

#[tokio::test]
async fn an_expired_value_is_absent_everywhere_and_its_key_is_new_again() {
    let f = Fixture::new();
    let expires = Some(UnixMillis(f.catalog.now().0 + 100));
    let request = CommitPut { expires, ..put("a", f.catalog.next_version(), 1) };
    let (version, answer) = (request.version, f.catalog.commit(request.clone()).await.unwrap());
    f.pass(99).await;
    assert_eq!(f.version("a").await, Some(version));
    f.pass(1).await;
    assert_eq!(f.version("a").await, None);
    assert_eq!(refused(f.catalog.delete(delete("a", None)).await.unwrap()), ErrorCode::NotFound);
    assert_eq!(f.catalog.commit(request).await.unwrap(), answer);
    let create = CommitPut { create: true, ..put("a", f.catalog.next_version(), 2) };
    assert!(committed(f.catalog.commit(create).await.unwrap()).created);
    assert_eq!((f.catalog.stats().keys, f.catalog.stats().bytes), (1, 2));
    assert_eq!(f.catalog.reclaim_list(volume(1), 9).await.unwrap()[0].version, version);
}

#[tokio::test]
async fn old_decisions_are_removed_and_recent_ones_are_not() {
    let f = Fixture::new();
    let decisions = || f.engine.scan(std::ops::Bound::Included(b"d"), std::ops::Bound::Excluded(b"e"), 999).unwrap().len();
    for i in 0..100 {
        f.put("a", i).await;
    }
    assert_eq!(decisions(), 99);
    f.pass(epochs(1)).await;
    f.put("b", 1).await;
    assert_eq!(decisions(), 99);
    f.pass(epochs(1)).await;
    for i in 0..4 {
        f.put(format!("c{i}"), 1).await;
    }
    assert_eq!(decisions(), 0);
}

#[tokio::test]
async fn members_are_remembered_with_their_last_address() {
    let f = Fixture::new();
    for address in ["h:1", "h:1", "h:2"] {
        f.catalog.remember_member(volume(2), address).await.unwrap();
    }
    f.catalog.remember_member(volume(1), "g:1").await.unwrap();
    let f = f.crashed();
    assert_eq!(f.catalog.members().await.unwrap(), [(volume(1), "g:1".to_string()), (volume(2), "h:2".to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_concurrent_creates_exactly_one_wins() {
    let f = Fixture::new();
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let catalog = f.catalog.clone();
            let request = CommitPut { create: true, ..put("a", catalog.next_version(), i) };
            tokio::spawn(async move { (request.version, catalog.commit(request).await.unwrap()) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (version, kvdb_protocol::message::CommitAnswer::Committed(_)) => winners.push(version),
            (_, lost) => assert_eq!(refused(lost), ErrorCode::Exists),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(f.version("a").await, winners.first().copied());
}
