//! `If-Match` and `If-None-Match` of writes, and the conditions of reads.

use kvdb_tests::values::{assert_same, etag, value};
use kvdb_tests::{Answer, Cluster, Request};

#[track_caller]
fn put(cluster: &Cluster, bytes: &[u8], name: &str, tag: &str) -> Answer {
    cluster.follow(&Request::put("/k", bytes).header(name, tag))
}

#[test]
fn if_none_match_any_creates_only_what_is_not_there() {
    let cluster = Cluster::start(2);
    for (first, second) in [(value(10, 1), value(10, 2)), (value(200_000, 1), value(200_000, 2))] {
        put(&cluster, &first, "If-None-Match", "*").expect(201);
        put(&cluster, &second, "If-None-Match", "*").expect_problem(412, "precondition_failed");
        assert_same(&cluster.value("/k"), &first, "/k");
        cluster.follow(&Request::delete("/k")).expect(200);
    }
}

#[test]
fn if_match_replaces_only_what_it_names() {
    let cluster = Cluster::start(2);
    put(&cluster, b"x", "If-Match", "*").expect_problem(412, "precondition_failed");
    put(&cluster, b"x", "If-Match", &etag(b"one")).expect_problem(412, "precondition_failed");
    cluster.get("/k").expect(404);
    cluster.put("/k", b"one");
    put(&cluster, b"two", "If-Match", &etag(b"one")).expect(200);
    put(&cluster, b"bad", "If-Match", &etag(b"one")).expect_problem(412, "precondition_failed");
    put(&cluster, b"bad", "If-Match", &format!("W/{}", etag(b"two"))).expect_problem(412, "precondition_failed");
    put(&cluster, b"three", "If-Match", &format!("\"other\", {}", etag(b"two"))).expect(200);
    put(&cluster, b"four", "If-Match", "*").expect(200);
    put(&cluster, b"bad", "If-None-Match", &etag(b"four")).expect_problem(412, "precondition_failed");
    put(&cluster, b"five", "If-None-Match", &etag(b"three")).expect(200);
    put(&cluster, b"bad", "If-Match", "unquoted").expect_problem(400, "bad_request");
    assert_eq!(cluster.value("/k"), b"five");
}

#[test]
fn a_condition_that_fails_only_at_the_commit_stores_nothing() {
    let cluster = Cluster::start(2);
    cluster.put("/k", &value(100_000, 1));
    let tag = etag(&value(100_000, 1));
    let ask = Request::put("/k", "").header("Kvdb-Content-Length", "100000").header("If-Match", &tag);
    let url = kvdb_tests::Url::of(&cluster.ask(&ask).expect(307));
    cluster.put("/k", &value(100_000, 2));
    Request::put(&url.target, value(100_000, 3)).send(&url.address).expect_problem(412, "precondition_failed");
    assert_same(&cluster.value("/k"), &value(100_000, 2), "/k");
    for i in 0..2 {
        kvdb_tests::eventually("the refused copy is removed", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
}

#[test]
fn a_create_that_loses_at_the_commit_stores_nothing() {
    let cluster = Cluster::start(2);
    let url = kvdb_tests::Url::of(&cluster.ask(&Request::post("/k", "late")).expect(307));
    cluster.put("/k", b"early");
    let lost = Request::post(&url.target, "late").send(&url.address);
    assert_eq!(lost.status, 409, "{lost}");
    assert_eq!(cluster.value("/k"), b"early");
}

#[test]
fn deletes_obey_conditions_too() {
    let cluster = Cluster::start(2);
    cluster.put("/k", b"one");
    cluster.follow(&Request::delete("/k").header("If-Match", &etag(b"two"))).expect_problem(412, "precondition_failed");
    assert_eq!(cluster.value("/k"), b"one");
    cluster.follow(&Request::delete("/k").header("If-Match", &etag(b"one"))).expect(200);
    cluster.get("/k").expect(404);
}

#[test]
fn reads_obey_conditions_as_rfc_9110_says() {
    let cluster = Cluster::start(2);
    cluster.put("/k", b"one");
    let first = cluster.get("/k").expect(200);
    let modified = first.header("last-modified").unwrap().to_string();
    let (tag, other) = (etag(b"one"), etag(b"two"));
    let (past, future) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    let weak = format!("W/{tag}");
    for (name, text, status) in [
        ("If-None-Match", tag.as_str(), 304),
        ("If-None-Match", weak.as_str(), 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", other.as_str(), 200),
        ("If-Match", tag.as_str(), 200),
        ("If-Match", "*", 200),
        ("If-Match", weak.as_str(), 412),
        ("If-Match", other.as_str(), 412),
        ("If-Modified-Since", modified.as_str(), 304),
        ("If-Modified-Since", future, 304),
        ("If-Modified-Since", past, 200),
        ("If-Modified-Since", "not a date", 200),
        ("If-Unmodified-Since", modified.as_str(), 200),
        ("If-Unmodified-Since", past, 412),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = cluster.follow(&Request::new(method, "/k").header(name, text));
            assert_eq!(answer.status, status, "{method} with {name}: {text}: {answer}");
            if status == 304 {
                assert!(answer.body.is_empty());
                assert_eq!(answer.header("etag"), Some(tag.as_str()));
            }
        }
    }
    // RFC 9110 §13.2.2: an entity tag outranks a date.
    let both = Request::get("/k").header("If-None-Match", &other).header("If-Modified-Since", future);
    cluster.follow(&both).expect(200);
}
