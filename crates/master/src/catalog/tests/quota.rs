//! Quotas: counted as the records are, exceeded by nothing, and held by everything that stores.

use super::support::{Controlled, FAR, Fate, Fixture, committed, delete, is_pending, key, put, refused, volume};
use crate::catalog::{BatchAnswer, CatalogError, CommitBatch, CommitPut, Ledger, Member, SetReplicas, Usage};
use crate::limits::Limits;
use futures_util::future::join_all;
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ErrorCode, UnixMillis};
use proptest::prelude::*;
use std::sync::Arc;

fn limits(text: &str) -> Arc<Limits> {
    Arc::new(Limits::parse(format!(r#"{{"limits":[{text}]}}"#).as_bytes()).unwrap())
}

async fn with(f: &Fixture, text: &str) {
    f.catalog.set_limits(limits(text)).await.unwrap();
    while f.catalog.ledger().usage().iter().any(|u| !u.counted) {
        tokio::task::yield_now().await;
    }
}

/// Keys and bytes of each quota.
fn used(f: &Fixture) -> Vec<(u64, u64)> {
    f.catalog.ledger().usage().iter().map(|Usage { keys, bytes, .. }| (*keys, *bytes)).collect()
}

async fn store(f: &Fixture, k: &str, len: u64) -> Option<ErrorCode> {
    let answer = f.catalog.commit(put(k, f.catalog.next_version(), len)).await.unwrap();
    matches!(answer, CommitAnswer::Refused(_)).then(|| refused(answer))
}

fn batch_of(f: &Fixture, puts: &[(&str, u64)], deletes: &[&str]) -> CommitBatch {
    let put = |(k, len): &(&str, u64)| Member::Put(put(k, f.catalog.next_version(), *len));
    let delete = |k: &&str| Member::Delete { key: key(k), condition: Condition::default() };
    CommitBatch { id: None, commit_by: FAR, members: puts.iter().map(put).chain(deletes.iter().map(delete)).collect() }
}

#[tokio::test]
async fn what_is_stored_replaced_and_removed_is_counted_and_no_quota_is_exceeded() {
    let f = Fixture::new();
    with(&f, r#"{"prefix":"a/","max_keys":2,"max_bytes":10},{"prefix":"","max_keys":3}"#).await;
    assert_eq!((store(&f, "a/1", 4).await, store(&f, "a/2", 6).await), (None, None));
    assert_eq!(store(&f, "a/3", 0).await, Some(ErrorCode::QuotaExceeded), "keys");
    assert_eq!(store(&f, "a/1", 5).await, Some(ErrorCode::QuotaExceeded), "bytes");
    assert_eq!(store(&f, "b", 1 << 40).await, None);
    assert_eq!(store(&f, "c", 0).await, Some(ErrorCode::QuotaExceeded), "of all keys");
    assert_eq!(used(&f), [(2, 10), (3, 10 + (1 << 40))]);
    assert_eq!((store(&f, "a/2", 0).await, store(&f, "a/1", 10).await), (None, None), "what is replaced gives its bytes back");
    committed(f.catalog.delete(delete("a/1", None)).await.unwrap());
    assert_eq!(used(&f)[0], (1, 0));
    let version = f.version("a/2").await.unwrap();
    let (before, after) = (vec![volume(1), volume(2)], vec![volume(3)]);
    f.catalog.set_replicas(SetReplicas { key: key("a/2"), version, before, after, commit_by: FAR }).await.unwrap();
    assert_eq!(used(&f)[0], (1, 0), "a copy that moves is no other value");
}

#[tokio::test]
async fn a_refusal_is_final_and_other_limits_are_held_at_the_commit_too() {
    let f = Fixture::new();
    with(&f, r#"{"prefix":"a/","max_keys":0,"max_value_bytes":5,"max_key_bytes":4,"content_types":["image/*"]}"#).await;
    let request = put("b", f.catalog.next_version(), 9);
    committed(f.catalog.commit(request).await.unwrap());
    let png = |k: &str, len| CommitPut { content_type: Some("image/png".into()), ..put(k, f.catalog.next_version(), len) };
    assert_eq!(store(&f, "a/1", 1).await, Some(ErrorCode::ContentTypeRefused));
    assert_eq!(refused(f.catalog.commit(png("a/1", 6)).await.unwrap()), ErrorCode::ValueTooLarge);
    assert_eq!(refused(f.catalog.commit(png("a/123", 1)).await.unwrap()), ErrorCode::KeyTooLong);
    let request = png("a/1", 5);
    assert_eq!(refused(f.catalog.commit(request.clone()).await.unwrap()), ErrorCode::QuotaExceeded);
    with(&f, r#"{"prefix":"a/","max_keys":1}"#).await;
    assert_eq!(refused(f.catalog.commit(request).await.unwrap()), ErrorCode::QuotaExceeded, "its volumes may have dropped it");
    committed(f.catalog.commit(png("a/1", 5)).await.unwrap());
}

#[tokio::test]
async fn a_batch_is_held_to_quotas_as_a_whole() {
    let f = Fixture::new();
    with(&f, r#"{"prefix":"a/","max_keys":2,"max_bytes":10}"#).await;
    let (a, b) = (store(&f, "a/1", 5).await, store(&f, "a/2", 5).await);
    assert_eq!((a, b), (None, None));
    let refused = f.catalog.commit_batch(batch_of(&f, &[("a/3", 1), ("x", 1), ("a/1", 1)], &[])).await.unwrap();
    let BatchAnswer::Refused(problem) = refused else { panic!("{refused:?}") };
    assert_eq!((problem.code, problem.keys.unwrap().0), (ErrorCode::QuotaExceeded, vec!["a/3".to_string(), "a/1".into()]));
    assert_eq!((used(&f), f.version("x").await), (vec![(2, 10)], None), "nothing was changed");
    let swap = batch_of(&f, &[("a/3", 10)], &["a/1", "a/2"]);
    assert!(
        matches!(f.catalog.commit_batch(swap).await.unwrap(), BatchAnswer::Committed(_)),
        "what it deletes makes room, later in it too"
    );
    assert_eq!(used(&f), [(1, 10)]);
    let over = f.catalog.commit_batch(batch_of(&f, &[("a/4", 1)], &[])).await.unwrap();
    assert!(matches!(over, BatchAnswer::Refused(_)), "{over:?}");
}

#[tokio::test]
async fn what_is_over_a_quota_that_was_lowered_may_shrink_but_not_grow() {
    let f = Fixture::new();
    with(&f, r#"{"prefix":"a","max_bytes":100}"#).await;
    for (k, len) in [("a1", 30), ("a2", 30), ("a3", 30)] {
        assert_eq!(store(&f, k, len).await, None);
    }
    with(&f, r#"{"prefix":"a","max_bytes":50,"max_keys":1}"#).await;
    assert_eq!(used(&f), [(3, 90)], "it is known, not counted again");
    assert_eq!((store(&f, "a1", 30).await, store(&f, "a1", 20).await), (None, None), "no more than before");
    assert_eq!(store(&f, "a1", 21).await, Some(ErrorCode::QuotaExceeded));
    let shrunk = f.catalog.commit_batch(batch_of(&f, &[("a4", 1)], &["a2", "a3"])).await.unwrap();
    assert!(matches!(shrunk, BatchAnswer::Committed(_)), "from three keys to two: {shrunk:?}");
}

#[tokio::test]
async fn expired_values_count_until_they_are_swept() {
    let f = Fixture::new();
    with(&f, r#"{"prefix":"","max_keys":1}"#).await;
    let expires = Some(UnixMillis(f.catalog.expiry_now().0 + 100));
    committed(f.catalog.commit(CommitPut { expires, ..put("a", f.catalog.next_version(), 3) }).await.unwrap());
    f.pass(100).await;
    assert_eq!(store(&f, "b", 1).await, Some(ErrorCode::QuotaExceeded));
    assert_eq!(store(&f, "a", 2).await, None, "under its own key there is room");
    committed(f.catalog.commit(CommitPut { expires, ..put("a", f.catalog.next_version(), 3) }).await.unwrap());
    assert_eq!(f.catalog.sweep_expired().await.unwrap().removed, 1);
    assert_eq!((used(&f), store(&f, "b", 1).await), (vec![(0, 0)], None));
}

#[tokio::test]
async fn a_quota_is_counted_after_a_crash_while_others_write() {
    let f = Fixture::new();
    for i in 0..2_000 {
        f.put(format!("a/{i:04}"), 1).await;
    }
    let f = f.crashed();
    f.catalog.set_limits(limits(r#"{"prefix":"a/","max_keys":1000},{"prefix":"b/","max_keys":1}"#)).await.unwrap();
    // Before and behind the place that the count has come to.
    for i in (0..1_000).map(|i| i * 7 % 2_000) {
        committed(f.catalog.delete(delete(format!("a/{i:04}"), None)).await.unwrap());
        // Refused: it is being counted, or is used up already.
        let stored = f.catalog.commit(put(format!("a/{i:04}"), f.catalog.next_version(), 2)).await;
        assert!(!matches!(stored, Ok(CommitAnswer::Committed(_))), "{stored:?}");
    }
    with(&f, r#"{"prefix":"a/","max_keys":1000},{"prefix":"b/","max_keys":1}"#).await;
    let records = f.catalog.records(None, 9_999).await.unwrap();
    assert_eq!(used(&f), [(records.len() as u64, records.iter().map(|(_, r)| r.len).sum()), (0, 0)]);
    assert_eq!(store(&f, "a/x", 0).await, Some(ErrorCode::QuotaExceeded));
}

#[test]
fn nothing_is_stored_under_a_quota_that_is_not_counted_yet() {
    let ledger = Ledger::default().with(limits(r#"{"prefix":"a/","max_keys":9}"#));
    assert_eq!(ledger.usage()[0], Usage { prefix: "a/".into(), keys: 0, bytes: 0, max_keys: Some(9), max_bytes: None, counted: false });
    let check = |k: &str| ledger.check(&key(k), Some(1), None, None).err().map(|p| p.code);
    assert_eq!((check("a/1"), check("b")), (Some(ErrorCode::Busy), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_become_durable_is_not_counted() {
    let engine = Controlled::new();
    let f = Fixture::over(engine.clone());
    with(&f, r#"{"prefix":"","max_keys":9}"#).await;
    f.put("a", 1).await;
    let controls = engine.control();
    let (catalog, request) = (f.catalog.clone(), put("b", f.catalog.next_version(), 1));
    let lost = tokio::spawn(async move { catalog.commit(request).await });
    tokio::task::spawn_blocking(move || {
        controls.wait_applied();
        controls.decide(Fate::LostSync);
    })
    .await
    .unwrap();
    assert!(matches!(lost.await.unwrap(), Err(CatalogError::OutcomeUnknown)));
    assert_eq!(used(&f), [(1, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_that_are_decided_together_one_gets_the_last_place() {
    let engine = Controlled::new();
    let f = Fixture::over(engine.clone());
    with(&f, r#"{"prefix":"a/","max_keys":2}"#).await;
    assert_eq!(store(&f, "a/0", 1).await, None);
    let controls = engine.control();
    // While this one is written, those after it wait.
    let mut first = Box::pin(f.catalog.commit(put("x", f.catalog.next_version(), 1)));
    assert!(is_pending(first.as_mut()).await);
    controls.wait_applied();
    let mut others: Vec<_> = (1..4).map(|n| Box::pin(f.catalog.commit(put(format!("a/{n}"), f.catalog.next_version(), 1)))).collect();
    for other in &mut others {
        assert!(is_pending(other.as_mut()).await);
    }
    drop(controls);
    committed(first.await.unwrap());
    let answers = join_all(others).await;
    let stored = answers.iter().filter(|a| matches!(a, Ok(CommitAnswer::Committed(_)))).count();
    assert_eq!((stored, used(&f)), (1, vec![(2, 2)]), "{answers:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u64),
    Delete(usize),
    Batch(Vec<(usize, Option<u64>)>),
    /// Whether it is waited until quotas are counted.
    Limits(usize, bool),
}

const KEYS: [&str; 6] = ["a", "a/1", "a/2", "a/b/1", "b", "c"];
const FILES: [&str; 3] = [
    r#"{"prefix":"a","max_keys":3},{"prefix":"a/","max_bytes":12}"#,
    r#"{"prefix":"","max_keys":4,"max_bytes":20}"#,
    r#"{"prefix":"a/b","max_keys":1},{"prefix":"a/","max_keys":2,"max_bytes":9},{"prefix":"zz","max_keys":0}"#,
];

fn step() -> impl Strategy<Value = Step> {
    let member = (0..KEYS.len(), proptest::option::of(0..9u64));
    prop_oneof![
        6 => (0..KEYS.len(), 0..9u64).prop_map(|(k, len)| Step::Put(k, len)),
        3 => (0..KEYS.len()).prop_map(Step::Delete),
        3 => proptest::collection::vec(member, 1..4).prop_map(Step::Batch),
        2 => (0..FILES.len(), any::<bool>()).prop_map(|(file, wait)| Step::Limits(file, wait)),
    ]
}

async fn hold(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let f = Fixture::new();
    for step in steps {
        match step {
            Step::Put(k, len) => drop(f.catalog.commit(put(KEYS[k], f.catalog.next_version(), len)).await),
            Step::Delete(k) => drop(f.catalog.delete(delete(KEYS[k], None)).await.unwrap()),
            Step::Batch(mut members) => {
                members.sort_by_key(|(k, _)| *k);
                members.dedup_by_key(|(k, _)| *k);
                let puts: Vec<_> = members.iter().filter_map(|(k, len)| Some((KEYS[*k], (*len)?))).collect();
                let deletes: Vec<_> = members.iter().filter(|(_, len)| len.is_none()).map(|(k, _)| KEYS[*k]).collect();
                drop(f.catalog.commit_batch(batch_of(&f, &puts, &deletes)).await);
            }
            Step::Limits(which, true) => with(&f, FILES[which]).await,
            Step::Limits(which, false) => f.catalog.set_limits(limits(FILES[which])).await.unwrap(),
        }
        // One read after the other: the committer counts on between them, and changes nothing that is counted.
        let records = f.catalog.records(None, 99).await.unwrap();
        for usage in f.catalog.ledger().usage().into_iter().filter(|u| u.counted) {
            let lens: Vec<u64> =
                records.iter().filter(|(k, _)| k.as_bytes().starts_with(usage.prefix.as_bytes())).map(|(_, r)| r.len).collect();
            prop_assert_eq!((usage.keys, usage.bytes), (lens.len() as u64, lens.iter().sum::<u64>()), "{}", usage.prefix);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_counted_is_what_is_there(steps in proptest::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(hold(steps))?;
    }
}
