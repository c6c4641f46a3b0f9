//! Keys, values, content types and content, each way that a value can come.

use crate::{LimitsFile, no_file_is_left};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, Url};
use serde_json::json;

/// Sends a value in each way that there is; each must be refused so, and nothing may be stored.
#[track_caller]
fn refused_each_way(cluster: &Cluster, key: &str, content_type: &str, value: &[u8], status: u16, code: &str) {
    let with = |request: Request| request.header("Content-Type", content_type);
    let target = format!("/{key}");
    cluster.follow(&with(Request::put(&target, value))).expect_problem(status, code);
    cluster.follow(&with(Request::post(&target, value).expect_continue())).expect_problem(status, code);
    cluster.follow(&with(Request::put(&target, value).chunked(1000))).expect_problem(status, code);
    cluster.follow(&with(Request::put(&target, value).chunked(1000).expect_continue())).expect_problem(status, code);
    let member = json!({"put": key, "base64": BASE64_STANDARD.encode(value), "content_type": content_type});
    let document = json!({"operations": [{"put": "other", "value": "x"}, member]}).to_string();
    let answer = cluster.ask(&Request::post("/?batch", document)).expect_problem(status, code);
    assert_eq!(answer.json()["keys"], json!([key]));
    cluster.get(&target).expect(404);
    cluster.get("/other").expect(404);
}

#[test]
fn what_a_rule_forbids_is_refused_each_way_and_changes_nothing() {
    let file = LimitsFile::new(&json!([
        {"prefix": "", "max_key_bytes": 20},
        {"prefix": "s/", "max_value_bytes": 100_000, "max_key_bytes": 10},
        {"prefix": "i/", "content_types": ["image/*", "text/plain"]},
        {"prefix": "j/", "content": "json_object"},
    ]));
    let cluster = file.cluster(2).start();
    let large = value(100_001, 1);
    refused_each_way(&cluster, &"k".repeat(21), "a/b", b"x", 414, "key_too_long");
    refused_each_way(&cluster, "s/456789012", "a/b", b"x", 414, "key_too_long");
    refused_each_way(&cluster, "s/large", "a/b", &large, 413, "value_too_large");
    refused_each_way(&cluster, "i/page", "text/html", b"x", 415, "content_type_refused");
    refused_each_way(&cluster, "i/large", "application/json", &large, 415, "content_type_refused");
    for text in [&b"[1]"[..], b"{\"a\":1", b"{\"a\":\"\xff\"}", &value(100_000, 2)] {
        refused_each_way(&cluster, "j/x", "application/json", text, 422, "content_invalid");
    }
    refused_each_way(&cluster, "j/x", "application/json", &vec![b' '; (4 << 20) + 1], 413, "value_too_large");
    cluster.follow(&Request::put("/i/none", "x")).expect_problem(415, "content_type_refused");
    no_file_is_left(&cluster);

    cluster.put(&format!("/{}", "k".repeat(20)), b"x");
    cluster.put("/s/large", &large[1..]);
    cluster.put("/larger", &large);
    cluster.follow(&Request::put("/i/a", "x").header("Content-Type", "IMAGE/png")).expect(201);
    cluster.follow(&Request::put("/i/a", "y").header("Content-Type", "text/plain; charset=utf-8")).expect(200);
    cluster.follow(&Request::put("/i/a", "x").header("Content-Type", "a/b")).expect_problem(415, "content_type_refused");
    assert_eq!(cluster.value("/i/a"), b"y", "what was there stands");
    let object = format!("{{\"a\":\"{}\"}}", "x".repeat((4 << 20) - 8));
    for request in [Request::put("/j/o", object.as_str()), Request::put("/j/o", object.as_str()).chunked(70_000)] {
        assert!(matches!(cluster.follow(&request).status, 200 | 201));
        assert!(cluster.value("/j/o") == object.as_bytes());
    }
    cluster.put("/j/small", b" {} ");
}

#[test]
fn a_value_for_which_a_ticket_was_given_is_held_to_the_limits_as_of_its_commit() {
    let file = LimitsFile::new(&json!([{"prefix": "a/", "max_value_bytes": 10}]));
    let cluster = file.cluster(2).start();
    let url: Url = cluster.write_url("/a/x", 9);
    file.write(r#"{"limits":[{"prefix":"a/","max_value_bytes":5}]}"#);
    kvdb_tests::eventually("the file was read anew", || (cluster.follow(&Request::put("/a/y", "1234567")).status == 413).then_some(()));
    Request::put(&url.target, "123456789").send(&url.address).expect_problem(413, "value_too_large");
    cluster.get("/a/x").expect(404);
    cluster.put("/a/x", b"12345");
}
