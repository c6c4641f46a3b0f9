use super::support::{Fixture, committed, key, put, refused, volume};
use crate::catalog::{Changed, CommitPut, Doubt, MAX_OPEN_TXNS, Member, TxnAnswer, TxnState};
use kvdb_protocol::message::{CommitAnswer, Outcome, SettleItem, Standing};
use kvdb_protocol::{Condition, ErrorCode, TxnId, UnixMillis, VersionId};

async fn begin(f: &Fixture, ms: u64) -> (TxnId, UnixMillis) {
    let ends = UnixMillis(f.catalog.now().0 + ms);
    (f.catalog.begin_txn(ends).await.unwrap().expect("a place"), ends)
}

/// Must be staged long before the transaction ends.
fn member(k: &str, version: VersionId, ends: UnixMillis) -> CommitPut {
    CommitPut { commit_by: staged_by(ends), ..put(k, version, 5) }
}

fn staged_by(ends: UnixMillis) -> UnixMillis {
    UnixMillis(ends.0 - 30_000)
}

/// Stages a new version.
async fn stage(f: &Fixture, (id, ends): (TxnId, UnixMillis), k: &str) -> VersionId {
    let version = f.catalog.next_version();
    let answer = committed(f.catalog.stage(id, Member::Put(member(k, version, ends))).await.unwrap());
    assert_eq!((answer.standing, answer.created), (Standing::Staged, false));
    version
}

async fn remove(f: &Fixture, (id, _): (TxnId, UnixMillis), k: &str) {
    let answer = f.catalog.stage(id, Member::Delete { key: key(k), condition: Condition::default() }).await.unwrap();
    assert_eq!(committed(answer).standing, Standing::Staged);
}

async fn settle(f: &Fixture, k: &str, version: VersionId, (_, ends): (TxnId, UnixMillis)) -> Outcome {
    let item = SettleItem { key: key(k), version, commit_by: staged_by(ends) };
    f.catalog.settle(volume(1), vec![item]).await.unwrap()[0]
}

async fn done(f: &Fixture, id: TxnId) -> Vec<Changed> {
    match f.catalog.commit_txn(id).await.unwrap() {
        TxnAnswer::Committed(members, changed) => {
            assert_eq!(members.len(), changed.len());
            changed
        }
        TxnAnswer::Refused(problem) => panic!("{problem}"),
    }
}

async fn not_done(f: &Fixture, id: TxnId) -> ErrorCode {
    match f.catalog.commit_txn(id).await.unwrap() {
        TxnAnswer::Refused(problem) => problem.code,
        TxnAnswer::Committed(..) => panic!("it was committed"),
    }
}

async fn to_remove(f: &Fixture) -> Vec<VersionId> {
    f.catalog.reclaim_list(volume(1), 100).await.unwrap().into_iter().map(|i| i.version).collect()
}

#[tokio::test]
async fn what_is_staged_is_seen_by_nobody_until_all_of_it_is_committed_and_survives_crashes_meanwhile() {
    let f = Fixture::new();
    let (old, gone) = (f.put("b", 1).await, f.put("c", 1).await);
    let txn = begin(&f, 60_000).await;
    let (a, b) = (stage(&f, txn, "a").await, stage(&f, txn, "b").await);
    remove(&f, txn, "c").await;
    let f = f.crashed();
    assert_eq!((f.version("a").await, f.version("b").await, f.version("c").await), (None, Some(old), Some(gone)));
    assert_eq!(settle(&f, "a", a, txn).await, Outcome::Pending);
    assert_eq!((f.catalog.open_txn(txn.0).unwrap(), f.catalog.stats().open_txns), (Some(txn.1), 1));
    let seen = f.catalog.transaction(txn.0).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.expires, seen.members.len()), (TxnState::Open, txn.1, 3));

    let changed = done(&f, txn.0).await;
    assert!(
        matches!(changed[..], [Changed::Created { version: x, .. }, Changed::Replaced { version: y, .. }, Changed::Deleted { version: z }] if (x, y, z) == (a, b, gone))
    );
    let f = f.crashed();
    assert_eq!((f.version("a").await, f.version("b").await, f.version("c").await), (Some(a), Some(b), None));
    assert!(matches!(settle(&f, "a", a, txn).await, Outcome::Keep { .. }));
    assert_eq!(to_remove(&f).await, [old, gone]);
    assert_eq!(done(&f, txn.0).await, changed, "asked again, it says the same");
    assert_eq!((f.catalog.open_txn(txn.0).unwrap(), f.catalog.stats().open_txns), (None, 0));
    let late = f.catalog.stage(txn.0, Member::Put(member("d", f.catalog.next_version(), txn.1))).await.unwrap();
    assert_eq!(refused(late), ErrorCode::NoSuchTransaction);
    assert!(f.catalog.abort_txn(txn.0).await.unwrap().is_err_and(|p| p.code == ErrorCode::Conflict));
    f.pass(400_000).await;
    while f.catalog.sweep_txns().await.unwrap().more {}
    assert_eq!((not_done(&f, txn.0).await, f.version("a").await), (ErrorCode::NoSuchTransaction, Some(a)));
    assert_eq!(to_remove(&f).await, [old, gone], "what was committed keeps its copies");
}

#[tokio::test]
async fn what_was_not_staged_in_time_is_dropped_and_what_was_waits_for_the_end_of_its_transaction() {
    let f = Fixture::new();
    let txn = begin(&f, 60_000).await;
    let (staged, never) = (stage(&f, txn, "a").await, f.catalog.next_version());
    assert_eq!((settle(&f, "a", staged, txn).await, settle(&f, "b", never, txn).await), (Outcome::Pending, Outcome::Pending));
    f.pass(30_001).await;
    assert_eq!((settle(&f, "a", staged, txn).await, settle(&f, "b", never, txn).await), (Outcome::Pending, Outcome::Drop));
    let late = f.catalog.stage(txn.0, Member::Put(member("b", never, txn.1))).await.unwrap();
    assert_eq!(refused(late), ErrorCode::Conflict);
    let repeated = f.catalog.stage(txn.0, Member::Put(member("a", staged, txn.1))).await.unwrap();
    assert_eq!(committed(repeated).standing, Standing::Staged);
    let (f, other) = (f.crashed(), txn);
    assert_eq!(settle(&f, "a", staged, other).await, Outcome::Pending);
    done(&f, txn.0).await;
    assert!(matches!(settle(&f, "a", staged, txn).await, Outcome::Keep { .. }));
}

#[tokio::test]
async fn a_precondition_that_fails_leaves_the_transaction_open_and_nothing_changed() {
    let f = Fixture::new();
    f.put("a", 1).await;
    let txn = begin(&f, 60_000).await;
    let version = f.catalog.next_version();
    committed(f.catalog.stage(txn.0, Member::Put(CommitPut { create: true, ..member("a", version, txn.1) })).await.unwrap());
    let b = stage(&f, txn, "b").await;
    let TxnAnswer::Refused(problem) = f.catalog.commit_txn(txn.0).await.unwrap() else { panic!("it was committed") };
    assert_eq!((problem.code, problem.keys.unwrap().0), (ErrorCode::PreconditionFailed, vec!["a".to_string()]));
    assert_eq!((f.version("b").await, f.catalog.stats().open_txns), (None, 1));
    let again = stage(&f, txn, "a").await;
    assert_eq!(to_remove(&f).await, [version], "the copies of the value that was replaced in the transaction");
    assert_eq!(settle(&f, "a", version, txn).await, Outcome::Drop);
    done(&f, txn.0).await;
    assert_eq!((f.version("a").await, f.version("b").await), (Some(again), Some(b)));
}

#[tokio::test]
async fn a_value_that_was_replaced_in_its_transaction_is_never_staged_again() {
    let f = Fixture::new();
    let txn = begin(&f, 60_000).await;
    let (first, second) = (stage(&f, txn, "a").await, stage(&f, txn, "a").await);
    let items = f.catalog.reclaim_list(volume(1), 10).await.unwrap();
    f.catalog.reclaim_done(volume(1), &items).await.unwrap();
    f.catalog.reclaim_done(volume(2), &items).await.unwrap();
    let late = f.catalog.stage(txn.0, Member::Put(member("a", first, txn.1))).await.unwrap();
    assert_eq!(refused(late), ErrorCode::Conflict);
    let repeated = f.catalog.stage(txn.0, Member::Put(member("a", second, txn.1))).await.unwrap();
    assert_eq!(committed(repeated).standing, Standing::Staged);
    remove(&f, txn, "a").await;
    assert_eq!(done(&f, txn.0).await, [Changed::Absent]);
    assert_eq!(to_remove(&f).await, [second]);
}

#[tokio::test]
async fn what_is_given_up_or_expires_is_dropped_for_good_and_removed() {
    for expires in [false, true] {
        let f = Fixture::new();
        let txn = begin(&f, 60_000).await;
        let mut versions = Vec::new();
        for n in 0..600 {
            versions.push(stage(&f, txn, &format!("k{n:03}")).await);
        }
        if expires {
            f.pass(60_000).await;
        } else {
            f.catalog.abort_txn(txn.0).await.unwrap().unwrap();
            f.catalog.abort_txn(txn.0).await.unwrap().expect("asked again, it says the same");
        }
        assert_eq!((not_done(&f, txn.0).await, f.catalog.open_txn(txn.0).unwrap()), (ErrorCode::NoSuchTransaction, None));
        let mut f = f;
        let mut removed = 0;
        loop {
            let swept = f.catalog.sweep_txns().await.unwrap();
            removed += swept.removed;
            f = f.crashed();
            if !swept.more {
                break;
            }
        }
        assert_eq!((removed, f.catalog.stats().open_txns), (600, 0));
        assert_eq!(f.catalog.reclaim_pending().await[&volume(2)], 600);
        assert_eq!(settle(&f, "k000", versions[0], txn).await, Outcome::Drop);
        let late = f.catalog.stage(txn.0, Member::Put(member("k000", versions[0], txn.1))).await.unwrap();
        assert!(matches!(late, CommitAnswer::Refused(_)));
        f.pass(400_000).await;
        while f.catalog.sweep_txns().await.unwrap().more {}
        assert_eq!(f.catalog.transaction(txn.0).await.unwrap(), None);
        let left = f.engine.scan(std::ops::Bound::Included(b"t"), std::ops::Bound::Excluded(b"v"), 10).unwrap();
        let due = f.engine.scan(std::ops::Bound::Included(b"w"), std::ops::Bound::Excluded(b"x"), 10).unwrap();
        let marks = f.engine.scan(std::ops::Bound::Included(b"y"), std::ops::Bound::Unbounded, 10).unwrap();
        assert!(left.is_empty() && due.is_empty() && marks.is_empty(), "{left:?} {due:?} {marks:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_told_while_the_transaction_is_open_and_after_it() {
    let f = Fixture::new();
    let txn = begin(&f, 60_000).await;
    let a = stage(&f, txn, "a").await;
    let doubt = |k: &str, version: VersionId| Doubt {
        key: key(k),
        version,
        replicas: Some(vec![volume(1), volume(2)]),
        txn: Some(txn.0),
        issued: UnixMillis(version.unix_millis()),
        commit_by: staged_by(txn.1),
    };
    let told = committed(f.catalog.resolve(doubt("a", a)).await.unwrap().unwrap());
    assert_eq!(told.standing, Standing::Staged);
    let never = f.catalog.next_version();
    assert_eq!(refused(f.catalog.resolve(doubt("b", never)).await.unwrap().unwrap()), ErrorCode::Conflict);
    let late = f.catalog.stage(txn.0, Member::Put(member("b", never, txn.1))).await.unwrap();
    assert_eq!(refused(late), ErrorCode::Conflict, "what was said not to have been done is not done later");
    done(&f, txn.0).await;
    assert_eq!(committed(f.catalog.resolve(doubt("a", a)).await.unwrap().unwrap()).standing, Standing::Current);
}

#[tokio::test]
async fn open_transactions_and_their_members_are_bounded() {
    let f = Fixture::new();
    let first = begin(&f, 60_000).await;
    for _ in 1..MAX_OPEN_TXNS {
        begin(&f, 60_000).await;
    }
    assert_eq!(f.catalog.begin_txn(first.1).await.unwrap(), None);
    let f = f.crashed();
    assert_eq!(f.catalog.begin_txn(first.1).await.unwrap(), None, "they are counted at the start");
    for n in 0..1_000 {
        stage(&f, first, &format!("k{n}")).await;
    }
    let over = f.catalog.next_version();
    let answer = f.catalog.stage(first.0, Member::Put(member("more", over, first.1))).await.unwrap();
    assert_eq!(refused(answer), ErrorCode::ValueTooLarge);
    stage(&f, first, "k0").await;
    assert_eq!(done(&f, first.0).await.len(), 1_000);
    begin(&f, 60_000).await;
}

#[tokio::test]
async fn a_transaction_whose_commit_would_write_too_much_takes_no_more() {
    let f = Fixture::new();
    let txn = begin(&f, 60_000).await;
    let mut staged = 0;
    let code = loop {
        let version = f.catalog.next_version();
        match f.catalog.stage(txn.0, Member::Put(member(&format!("{staged:01000}"), version, txn.1))).await.unwrap() {
            CommitAnswer::Committed(_) => staged += 1,
            CommitAnswer::Refused(problem) => break problem.code,
        }
    };
    assert_eq!(code, ErrorCode::ValueTooLarge);
    assert!(staged > 50);
    assert_eq!(done(&f, txn.0).await.len(), staged, "what was taken can be committed");
}

#[tokio::test]
async fn an_empty_transaction_can_be_committed() {
    let f = Fixture::new();
    let txn = begin(&f, 60_000).await;
    assert_eq!((done(&f, txn.0).await, done(&f, txn.0).await), (vec![], vec![]));
}
