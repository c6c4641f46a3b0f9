//! `GET` and `HEAD`: redirects, headers and ranges.

use kvdb_tests::values::{assert_same, etag, value};
use kvdb_tests::{Cluster, Request, Url};

#[test]
fn a_read_is_redirected_with_302_that_is_not_to_be_cached() {
    let cluster = Cluster::start(2);
    cluster.put("/k", b"v");
    for method in ["GET", "HEAD"] {
        let answer = cluster.ask(&Request::new(method, "/k")).expect(302);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.is_empty());
        let url = Url::of(&answer);
        assert!((0..2).any(|i| url.address == cluster.volume_addr(i)), "{url:?}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let cluster = Cluster::start(2);
    for len in [0, 10, 200_000] {
        cluster.follow(&Request::put("/k", value(len, 1)).header("Content-Type", "image/png"));
        let (get, head) = (cluster.get("/k").expect(200), cluster.follow(&Request::new("HEAD", "/k")).expect(200));
        for name in ["content-length", "content-type", "etag", "last-modified", "accept-ranges", "kvdb-version", "x-content-type-options"] {
            assert!(get.header(name).is_some(), "{name} of {get}");
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(head.header("content-length"), Some(len.to_string().as_str()));
        assert_eq!(head.header("etag"), Some(etag(&value(len, 1)).as_str()));
    }
    let absent = cluster.follow(&Request::new("HEAD", "/absent"));
    assert_eq!((absent.status, absent.body.len()), (404, 0));
}

#[test]
fn every_range_brings_exactly_its_bytes() {
    let cluster = Cluster::start(2);
    let len = (1 << 20) + 17;
    let bytes = value(len, 1);
    cluster.put("/k", &bytes);
    let edges = [0, 1, 4095, 4096, 262_143, 262_144, 262_145, 524_288, 1_048_575, 1_048_576, len - 1];
    for first in edges {
        for last in edges.into_iter().filter(|l| *l >= first) {
            let answer = cluster.follow(&Request::get("/k").header("Range", &format!("bytes={first}-{last}"))).expect(206);
            assert_same(&answer.body, &bytes[first..=last], &format!("{first}-{last}"));
            assert_eq!(answer.header("content-range"), Some(format!("bytes {first}-{last}/{len}").as_str()));
            assert_eq!(answer.header("etag"), Some(etag(&bytes).as_str()));
        }
    }
}

#[test]
fn ranges_of_small_values_work_too() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"0123456789");
    for (range, part) in [("0-0", "0"), ("3-5", "345"), ("-3", "789"), ("7-", "789"), ("-100", "0123456789"), ("9-100", "9")] {
        let answer = cluster.follow(&Request::get("/k").header("Range", &format!("bytes={range}"))).expect(206);
        assert_eq!(answer.text(), part, "{range}");
    }
}

#[test]
fn if_range_gives_the_part_of_this_value_and_else_the_whole() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"0123456789");
    let modified = cluster.get("/k").header("last-modified").unwrap().to_string();
    let (tag, stale) = (etag(b"0123456789"), etag(b"other"));
    let weak = format!("W/{tag}");
    for (text, status) in
        [(tag.as_str(), 206), (modified.as_str(), 206), (stale.as_str(), 200), (weak.as_str(), 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)]
    {
        let answer = cluster.follow(&Request::get("/k").header("Range", "bytes=2-3").header("If-Range", text)).expect(status);
        assert_eq!(answer.text(), if status == 206 { "23" } else { "0123456789" }, "{text}");
    }
}

#[test]
fn an_absent_key_is_a_404_problem_for_every_method_that_needs_it() {
    let cluster = Cluster::start(1);
    for method in ["GET", "DELETE"] {
        cluster.follow(&Request::new(method, "/absent")).expect_problem(404, "not_found");
    }
}

#[test]
fn many_readers_of_one_large_value_all_get_it_exact() {
    let cluster = Cluster::start(2);
    let bytes = value((5 << 20) + 3, 1);
    cluster.put("/k", &bytes);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_same(&cluster.value("/k"), &bytes, "/k"));
        }
    });
}
