//! Keys that are empty, odd, long, or not text.

use crate::{answer_to, check_still_serves};
use kvdb_tests::values::assert_same;
use kvdb_tests::{Cluster, Request, Url};

#[test]
fn an_empty_key_is_refused() {
    let cluster = Cluster::start(1);
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = cluster.ask(&Request::new(method, "/"));
        assert_eq!(answer.status, 400, "{method}: {answer}");
    }
    for request in [Request::get("/"), Request::get("/?x=y"), Request::put("/", "v"), Request::post("/", "v")] {
        cluster.ask(&request).expect_problem(400, "bad_key");
    }
    Request::get("/").send(&cluster.volume_addr(0)).expect(400);
    check_still_serves(&cluster);
}

#[test]
fn odd_keys_are_kept_as_they_are_each_apart_from_the_others() {
    let cluster = Cluster::start(2);
    // Target as it is sent, and the bytes that it means.
    let long = "k".repeat(1024);
    let escaped = "%01".repeat(1024);
    let keys: [(&str, &[u8]); 19] = [
        ("/%00", b"\0"),
        ("/a%00b", b"a\0b"),
        ("/..", b".."),
        ("/.", b"."),
        ("/../up", b"../up"),
        ("/%2e%2e/%2e%2e/up", b"../../up"),
        ("/a/../b", b"a/../b"),
        ("/a/./b", b"a/./b"),
        ("/a/b/", b"a/b/"),
        ("/a%2Fb", b"a/b"),
        ("//a", b"/a"),
        ("///", b"//"),
        ("/%FF%FE%80", b"\xff\xfe\x80"),
        ("/a%0d%0aX-Evil:%201", b"a\r\nX-Evil: 1"),
        ("/a+b%20c", b"a+b c"),
        ("/100%25", b"100%"),
        ("/%3Fq%23f%26", b"?q#f&"),
        (&format!("/{long}"), long.as_bytes()),
        (&format!("/{escaped}"), &[1; 1024]),
    ];
    for (target, key) in keys {
        cluster.follow(&Request::put(target, key)).expect(201);
    }
    for (target, key) in keys {
        assert_same(&cluster.value(target), key, target);
        let head = cluster.follow(&Request::new("HEAD", target)).expect(200);
        assert_eq!(head.header("content-length"), Some(key.len().to_string().as_str()), "{target}");
    }
    let list = cluster.ask(&Request::get("/?list")).json();
    let mut found: Vec<Vec<u8>> =
        list["keys"].as_array().unwrap().iter().map(|k| kvdb_protocol::key::decode(k.as_str().unwrap()).unwrap()).collect();
    let mut expected: Vec<Vec<u8>> = keys.iter().map(|(_, k)| k.to_vec()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for (target, _) in keys {
        cluster.follow(&Request::delete(target)).expect(200);
        cluster.get(target).expect_problem(404, "not_found");
    }
    check_still_serves(&cluster);
}

#[test]
fn a_large_value_under_an_odd_key_is_relayed_too() {
    let cluster = Cluster::start(2);
    for target in ["/..", "/%FF", "/a%0d%0ab"] {
        let bytes = kvdb_tests::values::value(200_000, 1);
        cluster.follow(&Request::put(target, bytes.clone())).expect(201);
        assert_same(&cluster.value(target), &bytes, target);
    }
}

#[test]
fn line_breaks_in_a_key_reach_neither_headers_nor_logs() {
    let cluster = Cluster::start(1);
    let target = "/a%0d%0aX-Evil:%201%0d%0a%0d%0a%3Cb%3E";
    for request in [Request::put(target, "v"), Request::get(target)] {
        let answer = cluster.ask(&request);
        assert!(matches!(answer.status, 302 | 307 | 404), "{answer}");
        assert!(answer.header("x-evil").is_none(), "{answer}");
        cluster.follow(&Request::put(target, "v"));
    }
    let location = Url::of(&cluster.ask(&Request::get(target)).expect(302));
    assert!(location.target.to_ascii_lowercase().contains("%0d%0a"), "{location:?}");
    cluster.follow(&Request::delete(target)).expect(200);
    for log in [cluster.master_log(), cluster.volume_log(0)] {
        for line in log.lines() {
            assert!(line.starts_with('{') && line.ends_with('}'), "a line that a key broke: {line:?}");
        }
    }
}

#[test]
fn bad_escapes_are_refused() {
    let cluster = Cluster::start(1);
    for target in ["/%zz", "/%", "/%1", "/a%2", "/%%30", "/%u0041", "/ok%0g"] {
        cluster.ask(&Request::get(target)).expect_problem(400, "bad_key");
        cluster.ask(&Request::put(target, "v")).expect_problem(400, "bad_key");
        cluster.ask(&Request::delete(target)).expect_problem(400, "bad_key");
        cluster.ask(&Request::get(&format!("{target}?list"))).expect(400);
        Request::get(&format!("{target}?v=x")).send(&cluster.volume_addr(0)).expect(400);
    }
    for target in ["/k?%zz", "/k?ticket=%zz", "/k?avoid=%"] {
        cluster.ask(&Request::put(target, "v")).expect_problem(400, "bad_request");
    }
    check_still_serves(&cluster);
}

#[test]
fn a_key_of_1025_bytes_is_too_long() {
    let cluster = Cluster::start(1);
    for target in [format!("/{}", "k".repeat(1025)), format!("/{}", "%41".repeat(1025)), format!("/{}", "k".repeat(60_000))] {
        cluster.ask(&Request::put(&target, "v")).expect_problem(414, "too_long");
        cluster.ask(&Request::get(&target)).expect_problem(414, "too_long");
        Request::get(&format!("{target}?v=x")).send(&cluster.volume_addr(0)).expect_problem(414, "too_long");
    }
}

#[test]
fn a_target_beyond_64_kib_is_a_414() {
    let cluster = Cluster::start(1);
    for address in [cluster.master_addr(), cluster.volume_addr(0)] {
        for target in [format!("/{}", "k".repeat(66_000)), format!("/k?{}", "q".repeat(66_000)), format!("/{}", "k".repeat(200_000))] {
            let answer = answer_to(&address, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert_eq!(answer.status, 414, "{} bytes: {answer}", target.len());
        }
    }
    check_still_serves(&cluster);
}

#[test]
fn an_absolute_target_works_like_its_path() {
    let cluster = Cluster::start(1);
    cluster.put("/a%2Fb", b"v");
    let master = cluster.master_addr();
    let answer = answer_to(&master, format!("GET http://{master}/a%2Fb HTTP/1.1\r\nHost: {master}\r\n\r\n")).expect(302);
    let url = Url::of(&answer);
    let text = format!("GET http://{}{} HTTP/1.1\r\nHost: {}\r\n\r\n", url.address, url.target, url.address);
    assert_eq!(answer_to(&url.address, text).expect(200).body, b"v");
    let answer =
        answer_to(&master, format!("PUT http://{master}/new HTTP/1.1\r\nHost: {master}\r\nContent-Length: 1\r\n\r\nx")).expect(307);
    let url = Url::of(&answer);
    Request::put(&url.target, "x").send(&url.address).expect(201);
    assert_eq!(cluster.value("/new"), b"x");
}

#[test]
fn bytes_in_a_target_that_should_have_been_escaped_do_no_harm() {
    let cluster = Cluster::start(1);
    for target in [&b"/\xff\xfe"[..], b"/\xc3\xbc", b"/a\x01b", b"/a\x7fb", b"/\"<>\\^`{|}", b"k", b"*", b""] {
        let text = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let answer = answer_to(&cluster.master_addr(), text);
        assert!(matches!(answer.status, 400 | 404 | 405), "{target:?}: {answer}");
    }
    check_still_serves(&cluster);
}
