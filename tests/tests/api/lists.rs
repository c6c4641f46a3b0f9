//! `GET /prefix?list`.

use kvdb_protocol::key;
use kvdb_tests::values::etag;
use kvdb_tests::{Cluster, Request};
use serde_json::Value;

/// The list's strings, percent-decoded as the documentation says, hence the keys themselves.
fn bytes(list: &Value) -> Vec<Vec<u8>> {
    list.as_array().unwrap().iter().map(|k| key::decode(k.as_str().unwrap()).unwrap()).collect()
}

fn list(cluster: &Cluster, target: &str) -> Value {
    let answer = cluster.ask(&Request::get(target)).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
    answer.json()
}

fn keys(cluster: &Cluster, target: &str) -> Vec<String> {
    bytes(&list(cluster, target)["keys"]).into_iter().map(|k| String::from_utf8_lossy(&k).into_owned()).collect()
}

fn fill(cluster: &Cluster, targets: &[&str]) {
    for target in targets {
        cluster.put(target, b"v");
    }
}

#[test]
fn keys_are_listed_in_order_of_their_bytes_and_by_prefix() {
    let cluster = Cluster::start(1);
    assert_eq!(list(&cluster, "/?list"), serde_json::json!({"next": "", "keys": []}));
    fill(&cluster, &["/b", "/a", "/a/1", "/a/2", "/a0", "/A"]);
    assert_eq!(keys(&cluster, "/?list"), ["A", "a", "a/1", "a/2", "a0", "b"]);
    assert_eq!(keys(&cluster, "/a?list"), ["a", "a/1", "a/2", "a0"]);
    assert_eq!(keys(&cluster, "/a/?list"), ["a/1", "a/2"]);
    assert_eq!(keys(&cluster, "/a%2F?list"), ["a/1", "a/2"]);
    assert_eq!(keys(&cluster, "/nothing?list"), [""; 0]);
    cluster.follow(&Request::delete("/a/1")).expect(200);
    assert_eq!(keys(&cluster, "/a/?list"), ["a/2"]);
}

#[test]
fn pages_hold_every_key_exactly_once_whatever_their_size() {
    let cluster = Cluster::start(1);
    let mut all: Vec<String> = (0..23).map(|i| format!("p/{i:02}")).collect();
    all.extend(["p/a b", "p/%", "p/ü", "p/+&=?#"].map(String::from));
    all.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in &all {
        cluster.put(&kvdb_protocol::Key::new(name.as_bytes()).unwrap().to_path(), b"v");
    }
    for limit in [1, 2, 5, 26, 27, 28, 1000] {
        let (mut found, mut start, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = list(&cluster, &format!("/p/?list&limit={limit}&start={start}"));
            let keys = bytes(&page["keys"]);
            assert!(keys.len() <= limit, "{page}");
            found.extend(keys);
            pages += 1;
            start = page["next"].as_str().unwrap().to_string();
            if start.is_empty() {
                break;
            }
            // Clients encode it as they like; what they send must mean the same.
            start = key::query_escape(start.as_bytes());
        }
        assert_eq!(found, all.iter().map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>(), "limit {limit}");
        assert!(pages <= all.len().div_ceil(limit) + 1, "{pages} pages with limit {limit}");
    }
}

#[test]
fn a_list_can_begin_after_any_key() {
    let cluster = Cluster::start(1);
    fill(&cluster, &["/a", "/b", "/c"]);
    assert_eq!(keys(&cluster, "/?list&start=a"), ["b", "c"]);
    assert_eq!(keys(&cluster, "/?list&start=aa"), ["b", "c"]);
    assert_eq!(keys(&cluster, "/?list&start=c"), [""; 0]);
}

#[test]
fn a_delimiter_groups_what_lies_below() {
    let cluster = Cluster::start(1);
    fill(&cluster, &["/d/x/1", "/d/x/2", "/d/y/1", "/d/z", "/d/", "/e"]);
    let page = list(&cluster, "/d/?list&delimiter=/");
    assert_eq!(bytes(&page["keys"]), [b"d/".to_vec(), b"d/z".to_vec()]);
    assert_eq!(bytes(&page["prefixes"]), [b"d/x/".to_vec(), b"d/y/".to_vec()]);

    let (mut keys, mut prefixes, mut start) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = list(&cluster, &format!("/d/?list&delimiter=%2F&limit=1&start={start}"));
        keys.extend(bytes(&page["keys"]));
        prefixes.extend(bytes(&page["prefixes"]));
        start = key::query_escape(page["next"].as_str().unwrap().as_bytes());
        if start.is_empty() {
            break;
        }
    }
    assert_eq!((keys.len(), prefixes.len()), (2, 2), "page by page each comes once: {keys:?} {prefixes:?}");
}

#[test]
fn detail_tells_what_the_master_knows() {
    let cluster = Cluster::start(2);
    cluster.follow(&Request::put("/k", "hello").header("Content-Type", "text/plain")).expect(201);
    let page = list(&cluster, "/?list&detail");
    let entry = &page["keys"][0];
    assert_eq!(entry["key"], "k");
    assert_eq!(entry["len"], 5);
    assert_eq!(format!("\"{}\"", entry["etag"].as_str().unwrap()), etag(b"hello"));
    assert_eq!(entry["content_type"], "text/plain");
    assert_eq!(entry["replicas"].as_array().unwrap().len(), 2);
    assert!(entry["modified"].as_u64().unwrap() > 1_600_000_000_000, "{entry}");
    assert_eq!(entry["version"].as_str(), cluster.get("/k").header("kvdb-version"));
}

#[test]
fn keys_that_are_not_text_round_trip_through_a_list() {
    let cluster = Cluster::start(1);
    let targets = ["/%00", "/%FF%FE", "/100%25", "/%2525", "/a%0D%0Ab", "/%22quoted%22", "/%C3%BC"];
    fill(&cluster, &targets);
    let expected: std::collections::BTreeSet<Vec<u8>> = targets.iter().map(|t| key::decode(&t[1..]).unwrap()).collect();
    let found: std::collections::BTreeSet<Vec<u8>> = bytes(&list(&cluster, "/?list")["keys"]).into_iter().collect();
    assert_eq!(found, expected);
    for key in found {
        let target = kvdb_protocol::Key::new(key).unwrap().to_path();
        assert_eq!(cluster.value(&target), b"v", "{target}");
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(1);
    for query in ["limit=0", "limit=10001", "limit=-1", "limit=x", "limit=", "limit=99999999999999999999", "start=hex:zz", "start=%zz"] {
        let answer = cluster.ask(&Request::get(&format!("/?list&{query}")));
        assert_eq!(answer.status, 400, "{query}: {answer}");
        answer.expect_problem(400, "bad_request");
    }
    cluster.ask(&Request::get("/?list&limit=10000")).expect(200);
}

#[test]
fn a_key_named_like_a_list_is_still_a_key() {
    let cluster = Cluster::start(1);
    cluster.put("/list", b"v");
    assert_eq!(cluster.value("/list"), b"v");
    assert_eq!(cluster.value("/list?other"), b"v", "other query parameters do not matter");
}
