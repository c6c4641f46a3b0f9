//! What a batch does, and what it refuses.

use crate::{batch, done, named, statuses};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::values::{etag, value};
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::{Value, json};

#[test]
fn a_batch_puts_and_deletes_and_tells_of_each_key_and_survives_a_restart() {
    let mut cluster = Cluster::start(2);
    cluster.put("/old", b"old");
    cluster.put("/gone", &value(300_000, 1));
    let large = value(1 << 20, 2);
    let results = done(
        &cluster,
        &json!([
            {"put": "new", "value": "text", "content_type": "text/plain"},
            {"put": "old", "base64": BASE64_STANDARD.encode(&large)},
            {"create": "a%2Fb%FF", "value": ""},
            {"delete": "gone"},
            {"delete": "never"},
        ]),
    );
    assert_eq!(statuses(&results), [201, 200, 201, 200, 404]);
    assert_eq!(format!("\"{}\"", results[1]["etag"].as_str().unwrap()), etag(&large));
    assert!(results[3]["version"].is_string() && results[4].get("version").is_none(), "{results:?}");
    for _ in 0..2 {
        let answer = cluster.get("/new").expect(200);
        assert_eq!((answer.header("content-type"), answer.body.as_slice()), (Some("text/plain"), b"text".as_slice()));
        assert_eq!(answer.header("kvdb-version"), results[0]["version"].as_str());
        assert!(cluster.value("/old") == large);
        assert_eq!(cluster.value("/a%2Fb%FF"), b"");
        cluster.get("/gone").expect_problem(404, "not_found");
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_all_up();
    }
    for i in 0..2 {
        eventually("the old file is gone", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
}

#[test]
fn a_precondition_that_fails_changes_nothing_and_is_named() {
    let cluster = Cluster::start(2);
    cluster.put("/a", b"a");
    cluster.put("/b", &value(300_000, 1));
    let tag = etag(b"a");
    let refused = cluster
        .ask(&batch(&json!([
            {"put": "a", "value": "2", "if_match": tag},
            {"create": "b", "value": "2"},
            {"put": "c", "value": "2", "if_match": "*"},
            {"delete": "d", "if_match": tag},
            {"put": "e", "base64": BASE64_STANDARD.encode(value(200_000, 1)), "if_none_match": "*"},
        ])))
        .expect_problem(412, "precondition_failed");
    assert_eq!(named(&refused), json!(["b", "c", "d"]));
    assert_eq!(cluster.value("/a"), b"a");
    cluster.get("/e").expect(404);
    for i in 0..2 {
        eventually("no copy is left", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
    let results = done(&cluster, &json!([{"put": "a", "value": "2", "if_match": tag}, {"create": "c", "value": "2"}, {"delete": "b"}]));
    assert_eq!(statuses(&results), [200, 201, 200]);
}

#[test]
fn what_is_too_large_or_malformed_is_refused_whole() {
    let cluster = Cluster::builder(2).master_args(["--max-batch-bytes", "100000"]).start();
    let most = "x".repeat(50_000);
    done(&cluster, &json!([{"put": "a", "value": most}, {"put": "b", "value": most}]));
    let over = batch(&json!([{"put": "a", "value": most}, {"put": "c", "value": most}, {"put": "d", "value": "1"}]));
    cluster.ask(&over).expect_problem(413, "value_too_large");
    let document = "x".repeat(5 << 20);
    cluster.ask(&batch(&json!([{"put": "c", "value": document}])).expect_continue()).expect_problem(413, "value_too_large");
    let many: Vec<Value> = (0..1001).map(|i| json!({"put": format!("c{i}"), "value": ""})).collect();
    cluster.ask(&batch(&json!(many))).expect_problem(413, "value_too_large");
    let twice = cluster.ask(&batch(&json!([{"put": "c", "value": "1"}, {"delete": "c"}]))).expect_problem(400, "bad_request");
    assert_eq!(named(&twice), json!(["c"]));
    cluster.ask(&Request::post("/?batch", "{}")).expect_problem(400, "bad_request");
    cluster.ask(&batch(&json!([])).chunked(10)).expect_problem(411, "length_required");
    let long: Vec<Value> = (0..500).map(|i| json!({"put": format!("c{i:01000}"), "value": ""})).collect();
    cluster.ask(&batch(&json!(long))).expect_problem(413, "value_too_large");
    assert_eq!(cluster.ask(&Request::get("/?list")).expect(200).json()["keys"], json!(["a", "b"]));
}

#[test]
fn a_batch_of_a_thousand_keys_is_one_step() {
    let cluster = Cluster::start(2);
    let all: Vec<Value> = (0..1000).map(|i| json!({"put": format!("k{i}"), "value": i.to_string()})).collect();
    assert!(statuses(&done(&cluster, &json!(all))).iter().all(|s| *s == 201));
    assert_eq!(cluster.value("/k999"), b"999");
    assert_eq!(cluster.ask(&Request::get("/?list&limit=10000")).expect(200).json()["keys"].as_array().unwrap().len(), 1000);
}

#[test]
fn a_batch_that_is_repeated_under_its_idempotency_key_is_done_once() {
    let mut cluster = Cluster::start(2);
    let operations = json!([{"create": "a", "value": "1"}, {"delete": "b"}]);
    let request = batch(&operations).header("Idempotency-Key", "mine");
    let first = cluster.ask(&request).expect(200).text();
    cluster.put("/a", b"2");
    cluster.kill_master();
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(cluster.ask(&request).expect(200).text(), first);
    assert_eq!(cluster.value("/a"), b"2", "it was not done again");
    cluster.ask(&batch(&json!([{"delete": "a"}])).header("Idempotency-Key", "mine")).expect_problem(400, "bad_request");
    cluster.ask(&batch(&operations).header("Idempotency-Key", "other")).expect_problem(412, "precondition_failed");
}

#[test]
fn values_of_a_batch_expire() {
    let cluster = Cluster::start(2);
    done(&cluster, &json!([{"put": "a", "value": "1", "ttl": "1500ms"}, {"put": "b", "value": "1"}]));
    eventually("it has expired", || (cluster.get("/a").status == 404).then_some(()));
    assert_eq!(cluster.value("/b"), b"1");
}

#[test]
fn batches_that_race_over_the_same_keys_are_serial() {
    let cluster = Cluster::start(2);
    let write = |name: usize| {
        for round in 0..10 {
            let value = format!("{name}.{round}");
            let keys = if name.is_multiple_of(2) { ["x", "y", "z"] } else { ["z", "y", "x"] };
            done(&cluster, &json!(keys.map(|k| json!({"put": k, "value": value}))));
        }
    };
    std::thread::scope(|s| {
        let writers: Vec<_> = (0..4).map(|name| s.spawn(move || write(name))).collect();
        while writers.iter().any(|w| !w.is_finished()) {
            let page = cluster.ask(&Request::get("/?list&detail")).expect(200).json();
            let tags: Vec<&Value> = page["keys"].as_array().unwrap().iter().map(|k| &k["etag"]).collect();
            assert!(tags.is_empty() || (tags.len() == 3 && tags.iter().all(|t| *t == tags[0])), "half of a batch: {page}");
        }
    });
    let last = cluster.value("/x");
    assert!(cluster.value("/y") == last && cluster.value("/z") == last);
}
