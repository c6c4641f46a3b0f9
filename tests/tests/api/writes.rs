//! `POST` and `PUT`: statuses, headers, content types, digests and limits.

use kvdb_tests::values::{assert_same, content_md5, etag, sha256_digest, value};
use kvdb_tests::{Cluster, Connection, Request};

const LARGE: usize = 300_000;

/// How a value reaches the volume.
fn ways(request: &Request) -> [(&'static str, Request); 3] {
    [
        ("redirected", request.clone().expect_continue()),
        ("relayed", request.clone()),
        ("relayed in chunks", request.clone().chunked(10_000)),
    ]
}

#[test]
fn post_creates_and_never_replaces() {
    let cluster = Cluster::start(2);
    cluster.follow(&Request::post("/small", "first")).expect(201);
    for (way, request) in ways(&Request::post("/large", value(LARGE, 1))) {
        cluster.follow(&request).expect(201);
        cluster.follow(&Request::post("/large", value(LARGE, 2))).expect_problem(409, "exists");
        cluster.follow(&Request::post("/large", value(LARGE, 2)).expect_continue()).expect_problem(409, "exists");
        assert_same(&cluster.value("/large"), &value(LARGE, 1), way);
        cluster.follow(&Request::delete("/large")).expect(200);
    }
    cluster.follow(&Request::post("/small", "second")).expect_problem(409, "exists");
    assert_eq!(cluster.value("/small"), b"first");
}

#[test]
fn put_says_whether_it_created_or_replaced_and_names_what_it_stored() {
    let cluster = Cluster::start(2);
    let mut versions = Vec::new();
    for (i, status) in [201, 200, 200].into_iter().enumerate() {
        let bytes = value(10 + i, 1);
        let answer = cluster.follow(&Request::put("/k", bytes.clone())).expect(status);
        assert_eq!(answer.header("etag"), Some(etag(&bytes).as_str()));
        versions.push(answer.header("kvdb-version").unwrap().to_string());
        assert_eq!(cluster.get("/k").header("kvdb-version"), versions.last().map(String::as_str));
    }
    for (way, request) in ways(&Request::put("/l", value(LARGE, 1))) {
        let created = cluster.follow(&request).expect(201);
        let replaced = cluster.follow(&request).expect(200);
        for answer in [created, replaced] {
            assert_eq!(answer.header("etag"), Some(etag(&value(LARGE, 1)).as_str()), "{way}");
            versions.push(answer.header("kvdb-version").unwrap().to_string());
        }
        cluster.follow(&Request::delete("/l")).expect(200);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "each version is larger than those before: {versions:?}");
}

#[test]
fn the_content_type_is_stored_and_comes_back_with_nosniff() {
    let cluster = Cluster::start(2);
    for (way, request) in ways(&Request::put("/page", value(LARGE, 1)).header("Content-Type", "text/html; charset=utf-8")) {
        cluster.follow(&request);
        let answer = cluster.get("/page").expect(200);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{way}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{way}");
        cluster.put("/page", b"without a type");
        assert_eq!(cluster.get("/page").header("content-type"), Some("application/octet-stream"), "{way}");
    }
    let long = "x/".to_string() + &"y".repeat(255);
    cluster.follow(&Request::put("/page", "x").header("Content-Type", &long)).expect_problem(400, "bad_request");
    assert_eq!(cluster.value("/page"), b"without a type");
}

#[test]
fn a_right_digest_is_accepted_on_every_way() {
    let cluster = Cluster::start(2);
    let bytes = value(LARGE, 1);
    for (name, digest) in [("Content-MD5", content_md5(&bytes)), ("Repr-Digest", sha256_digest(&bytes))] {
        for (way, request) in ways(&Request::put("/k", bytes.clone()).header(name, &digest)) {
            let answer = cluster.follow(&request);
            assert!(matches!(answer.status, 200 | 201), "{name} {way}: {answer}");
            assert_same(&cluster.value("/k"), &bytes, way);
        }
    }
    cluster.follow(&Request::put("/small", "abc").header("Content-MD5", &content_md5(b"abc"))).expect(201);
}

#[test]
fn a_wrong_digest_stores_nothing_and_the_old_value_stands() {
    let cluster = Cluster::start(2);
    let (old, new) = (value(LARGE, 1), value(LARGE, 2));
    cluster.put("/k", &old);
    for (name, digest) in [("Content-MD5", content_md5(&old)), ("Repr-Digest", sha256_digest(&old))] {
        for (way, request) in ways(&Request::put("/k", new.clone()).header(name, &digest)) {
            let answer = cluster.follow(&request).expect_problem(400, "digest_mismatch");
            assert!(answer.text().contains("nothing was stored"), "{name} {way}: {answer}");
            assert_same(&cluster.value("/k"), &old, way);
        }
    }
    cluster.follow(&Request::put("/k", "small").header("Content-MD5", &content_md5(b"other"))).expect_problem(400, "digest_mismatch");
    for (name, text) in [("Content-MD5", "???"), ("Content-MD5", "YWJj"), ("Repr-Digest", "sha-256=abc")] {
        cluster.follow(&Request::put("/k", "small").header(name, text)).expect_problem(400, "bad_request");
    }
    assert_same(&cluster.value("/k"), &old, "/k");
    for i in 0..2 {
        kvdb_tests::eventually("only the old value's file is left", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
}

#[test]
fn a_digest_of_an_unknown_algorithm_is_ignored() {
    let cluster = Cluster::start(1);
    cluster.follow(&Request::put("/k", "abc").header("Repr-Digest", "crc99=:AAAA:")).expect(201);
}

#[test]
fn a_value_beyond_the_limit_is_refused_before_its_body_is_asked_for() {
    let cluster = Cluster::builder(2).master_args(["--max-value-size", "1000000"]).start();
    cluster.put("/k", &value(1_000_000, 1));
    let mut connection = Connection::open(&cluster.master_addr());
    connection.send("PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\nExpect: 100-continue\r\n\r\n");
    let refused = connection.answer();
    assert!(!refused.continued, "{refused}");
    refused.expect_problem(413, "value_too_large");

    for (way, request) in ways(&Request::put("/k", value(1_000_001, 2))) {
        let answer = cluster.follow(&request).expect_problem(413, "value_too_large");
        assert!(!answer.text().is_empty(), "{way}");
        assert_same(&cluster.value("/k"), &value(1_000_000, 1), way);
    }
    let chunked = Request::put("/k", value(1_000_001, 2)).chunked(1 << 16).expect_continue();
    cluster.follow(&chunked).expect_problem(413, "value_too_large");
    assert_same(&cluster.value("/k"), &value(1_000_000, 1), "/k");
}

#[test]
fn a_write_is_redirected_with_307_and_is_not_to_be_cached() {
    let cluster = Cluster::start(2);
    for request in [Request::put("/k", "v"), Request::post("/k", "v"), Request::put("/k", value(LARGE, 1)).expect_continue()] {
        let answer = cluster.ask(&request).expect(307);
        assert!(answer.body.is_empty() && !answer.continued, "{answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    cluster.get("/k").expect_problem(404, "not_found");
}
