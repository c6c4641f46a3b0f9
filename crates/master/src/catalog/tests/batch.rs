use super::support::{FAR, Fixture, committed, delete, key, put, volume};
use crate::catalog::{BatchAnswer, BatchId, Changed, CommitBatch, CommitPut, Member};
use kvdb_protocol::message::{Outcome, SettleItem};
use kvdb_protocol::{Condition, ContentHash, ErrorCode, UnixMillis, VersionId};

fn id(n: u8) -> Option<BatchId> {
    Some(BatchId { name: [n; 16], digest: ContentHash::of(&[n]) })
}

async fn ask(f: &Fixture, id: Option<BatchId>, members: Vec<Member>) -> BatchAnswer {
    f.catalog.commit_batch(CommitBatch { id, commit_by: FAR, members }).await.unwrap()
}

fn member(k: &str, version: VersionId) -> Member {
    Member::Put(put(k, version, 5))
}

fn gone(k: &str) -> Member {
    Member::Delete { key: key(k), condition: Condition::default() }
}

#[tokio::test]
async fn a_batch_changes_all_its_keys_and_retires_what_was_there() {
    let f = Fixture::new();
    let (old, removed) = (f.catalog.next_version(), f.catalog.next_version());
    committed(f.catalog.commit(put("old", old, 1)).await.unwrap());
    committed(f.catalog.commit(put("gone", removed, 1)).await.unwrap());
    let (a, b) = (f.catalog.next_version(), f.catalog.next_version());
    let answer = ask(&f, None, vec![member("new", a), member("old", b), gone("gone"), gone("never")]).await;
    let expected = vec![
        Changed::Created { version: a, seq: 3 },
        Changed::Replaced { version: b, seq: 4 },
        Changed::Deleted { version: removed },
        Changed::Absent,
    ];
    assert_eq!(answer, BatchAnswer::Committed(expected));
    assert_eq!(f.catalog.reclaim_list(volume(1), 10).await.unwrap().len(), 2);
    assert_eq!(f.catalog.stats().keys, 2);
}

#[tokio::test]
async fn a_batch_with_one_member_refused_leaves_no_trace_and_its_copies_are_dropped_in_time() {
    let f = Fixture::new();
    committed(f.catalog.commit(put("a", f.catalog.next_version(), 1)).await.unwrap());
    let before = f.catalog.stats();
    let commit_by = UnixMillis(f.catalog.now().0 + 1_000);
    let mut create = put("a", f.catalog.next_version(), 5);
    create.create = true;
    let late = f.catalog.next_version();
    let other = Member::Put(CommitPut { commit_by, ..put("b", late, 5) });
    let BatchAnswer::Refused(problem) = ask(&f, id(1), vec![other.clone(), Member::Put(create), gone("c")]).await else {
        panic!("it was done")
    };
    assert_eq!((problem.code, problem.keys.unwrap().0), (ErrorCode::PreconditionFailed, vec!["a".to_string()]));
    assert_eq!(f.catalog.stats(), before);
    assert!(f.catalog.lookup(&key("b")).await.unwrap().is_none());
    f.pass(2_000).await;
    let item = SettleItem { key: key("b"), version: late, commit_by };
    assert_eq!(f.catalog.settle(volume(1), vec![item]).await.unwrap(), [Outcome::Drop]);
    let BatchAnswer::Refused(problem) = ask(&f, id(2), vec![other]).await else { panic!("a dropped version was committed") };
    assert_eq!(problem.code, ErrorCode::Conflict);
}

#[tokio::test]
async fn a_named_batch_is_done_once_across_a_crash_and_another_of_its_name_is_refused() {
    let f = Fixture::new();
    let members = |f: &Fixture| (0..600).map(|i| member(&format!("k{i}"), f.catalog.next_version())).collect::<Vec<_>>();
    let BatchAnswer::Committed(first) = ask(&f, id(1), members(&f)).await else { panic!("it was not done") };
    let f = f.crashed();
    for _ in 0..2 {
        assert_eq!(ask(&f, id(1), members(&f)).await, BatchAnswer::Repeated(first.clone()));
        let other = Some(BatchId { name: [1; 16], digest: ContentHash::of(b"other") });
        assert!(matches!(ask(&f, other, members(&f)).await, BatchAnswer::Refused(p) if p.code == ErrorCode::BadRequest));
    }
}

/// The first try may still wait for a volume when the second one is answered.
#[tokio::test]
async fn a_named_batch_that_was_refused_is_not_done_later_across_a_crash_and_names_the_same_keys() {
    let f = Fixture::new();
    f.put("b", 1).await;
    let create = |f: &Fixture, k: &str| {
        let mut put = put(k, f.catalog.next_version(), 5);
        put.create = true;
        Member::Put(put)
    };
    let members = |f: &Fixture| vec![create(f, "a"), create(f, "b"), gone("c")];
    let first = ask(&f, id(1), members(&f)).await;
    let BatchAnswer::Refused(problem) = &first else { panic!("it was done") };
    assert_eq!(problem.keys.as_ref().unwrap().0, ["b"]);
    committed(f.catalog.delete(delete("b", None)).await.unwrap());
    let f = f.crashed();
    assert_eq!(ask(&f, id(1), members(&f)).await, first);
    assert_eq!(f.version("a").await, None);
    let other = Some(BatchId { name: [1; 16], digest: ContentHash::of(b"other") });
    assert!(matches!(ask(&f, other, members(&f)).await, BatchAnswer::Refused(p) if p.code == ErrorCode::BadRequest));
    assert!(matches!(ask(&f, id(2), members(&f)).await, BatchAnswer::Committed(_)), "another name is another batch");
}

#[tokio::test]
async fn a_named_batch_that_came_too_late_may_be_sent_again() {
    let f = Fixture::new();
    let late = CommitBatch {
        id: id(1),
        commit_by: FAR,
        members: vec![Member::Put(CommitPut { commit_by: UnixMillis(1), ..put("a", f.catalog.next_version(), 5) })],
    };
    assert!(matches!(f.catalog.commit_batch(late).await.unwrap(), BatchAnswer::Refused(p) if p.code == ErrorCode::Conflict));
    assert!(matches!(ask(&f, id(1), vec![member("a", f.catalog.next_version())]).await, BatchAnswer::Committed(_)));
}

#[tokio::test]
async fn a_batch_too_large_for_the_catalog_is_refused_whole() {
    let f = Fixture::new();
    let members = (0..400).map(|i| member(&format!("{i:01000}"), f.catalog.next_version())).collect();
    assert!(matches!(ask(&f, None, members).await, BatchAnswer::Refused(p) if p.code == ErrorCode::ValueTooLarge));
    assert_eq!(f.catalog.stats().keys, 0);
}
