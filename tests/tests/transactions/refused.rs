//! What a transaction refuses, and what holds then.

use crate::{abort, begin, commit, keys, prepared, show, stage};
use kvdb_tests::values::{etag, value};
use kvdb_tests::{Cluster, Request};
use serde_json::json;

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn a_precondition_that_fails_is_named_and_the_transaction_stays_open() {
    let cluster = Cluster::start(2);
    cluster.put("/a", b"1");
    let txn = begin(&cluster);
    let with = |key: &str, name: &str, tag: &str| cluster.follow(&Request::put(&format!("{key}?txn={txn}"), "new").header(name, tag));
    with("/a", "if-match", &etag(b"other")).expect_problem(412, "precondition_failed");
    cluster.follow(&Request::post(&format!("/a?txn={txn}"), "new")).expect_problem(409, "exists");
    with("/a", "if-match", &etag(b"1")).expect(202);
    cluster.follow(&Request::post(&format!("/b?txn={txn}"), "new")).expect(202);
    stage(&cluster, &txn, "/c", b"new").expect(202);
    let delete = Request::delete(&format!("/d?txn={txn}"));
    cluster.ask(&delete.header("if-match", "*")).expect_problem(412, "precondition_failed");

    cluster.put("/a", b"2");
    cluster.put("/b", b"2");
    let refused = cluster.ask(&commit(&txn)).expect_problem(412, "precondition_failed");
    assert_eq!(refused.json()["keys"], json!(["a", "b"]));
    assert_eq!((cluster.value("/a"), cluster.value("/b")), (b"2".to_vec(), b"2".to_vec()));
    cluster.get("/c").expect(404);
    assert_eq!(cluster.ask(&show(&txn)).expect(200).json()["state"], "open");
    with("/a", "if-match", &etag(b"2")).expect(202);
    cluster.follow(&Request::delete("/b")).expect(200);
    cluster.ask(&commit(&txn)).expect(200);
    assert_eq!((cluster.value("/a"), cluster.value("/b"), cluster.value("/c")), (b"new".to_vec(), b"new".to_vec(), b"new".to_vec()));
}

#[test]
fn a_transaction_that_is_not_open_takes_nothing_and_nothing_is_stored() {
    let cluster = Cluster::start(2);
    let (given_up, done) = (begin(&cluster), begin(&cluster));
    cluster.ask(&abort(&given_up)).expect(200);
    stage(&cluster, &done, "/a", b"1").expect(202);
    cluster.ask(&commit(&done)).expect(200);
    for txn in [NOBODY, "no-id", &given_up, &done] {
        // Large, so that it would be relayed: it is refused before its body.
        let put = Request::put(&format!("/k?txn={txn}"), value(300_000, 1)).expect_continue();
        cluster.ask(&put).expect_problem(404, "no_such_transaction");
        cluster.ask(&Request::delete(&format!("/k?txn={txn}"))).expect_problem(404, "no_such_transaction");
    }
    for txn in [NOBODY, &given_up] {
        cluster.ask(&commit(txn)).expect_problem(404, "no_such_transaction");
    }
    cluster.ask(&abort(&given_up)).expect(200);
    cluster.ask(&abort(&done)).expect_problem(409, "conflict");
    cluster.ask(&abort(NOBODY)).expect_problem(404, "no_such_transaction");
    cluster.ask(&show(NOBODY)).expect_problem(404, "no_such_transaction");
    assert_eq!(cluster.ask(&show(&done)).expect(200).json()["state"], "committed");
    assert_eq!(cluster.ask(&show(&given_up)).expect(200).json(), cluster.ask(&show(&given_up)).expect(200).json());
    assert_eq!((keys(&cluster), prepared(&cluster)), (json!(["a"]), 0));
}

#[test]
fn a_value_that_arrives_after_its_transaction_was_given_up_is_not_stored() {
    let cluster = Cluster::start(2);
    let txn = begin(&cluster);
    let ask = Request::put(&format!("/a?txn={txn}"), "").header("kvdb-content-length", "300000");
    let at = kvdb_tests::Url::of(&cluster.ask(&ask).expect(307));
    cluster.ask(&abort(&txn)).expect(200);
    Request::put(&at.target, value(300_000, 1)).send(&at.address).expect_problem(404, "no_such_transaction");
    assert_eq!((cluster.blob_files(0).len(), cluster.blob_files(1).len(), prepared(&cluster)), (0, 0, 0));
}

#[test]
fn malformed_requests_say_what_is_expected() {
    let cluster = Cluster::start(1);
    let txn = begin(&cluster);
    for request in [
        Request::post("/?txn&ttl=500ms", ""),
        Request::post("/?txn&ttl=25h", ""),
        Request::post("/?txn&ttl=soon", ""),
        Request::post(&format!("/?txn={txn}"), ""),
        Request::post(&format!("/?txn={txn}&commit&abort"), ""),
        Request::post("/?txn&commit", ""),
        Request::get("/?txn"),
        Request::get(&format!("/a?txn={txn}")),
        Request::get(&format!("/a?list&txn={txn}")),
        Request::post(&format!("/a?delete-all&txn={txn}"), ""),
        Request::post(&format!("/?batch&txn={txn}"), "{}"),
        Request::put("/a?txn", "value"),
        Request::put("/a?txn=", "value"),
        Request::delete("/a?txn"),
    ] {
        cluster.ask(&request).expect_problem(400, "bad_request");
    }
    assert_eq!(cluster.ask(&show(&txn)).expect(200).json()["members"], json!([]));
    assert_eq!(cluster.ask(&commit(&txn)).expect(200).json(), json!({"results": []}));
}

#[test]
fn quotas_are_judged_at_the_commit_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let limits = dir.path().join("limits.json");
    std::fs::write(&limits, r#"{"limits":[{"prefix":"q/","max_keys":2,"max_value_bytes":1000}]}"#).unwrap();
    let cluster = Cluster::builder(2).master_args(["--limits", limits.to_str().unwrap()]).start();
    kvdb_tests::eventually("the quota is counted", || (cluster.put("/q/1", b"1").status != 503).then_some(()));
    let txn = begin(&cluster);
    stage(&cluster, &txn, "/q/2", &value(1_001, 1)).expect_problem(413, "value_too_large");
    for key in ["/q/2", "/q/3"] {
        stage(&cluster, &txn, key, b"new").expect(202);
    }
    let refused = cluster.ask(&commit(&txn)).expect_problem(507, "quota_exceeded");
    assert_eq!(refused.json()["keys"], json!(["q/2", "q/3"]));
    cluster.ask(&Request::delete(&format!("/q/1?txn={txn}"))).expect(202);
    cluster.ask(&commit(&txn)).expect(200);
    assert_eq!(keys(&cluster), json!(["q/2", "q/3"]));
}
