//! Pages of values.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_protocol::key;
use kvdb_tests::values::{etag, value};
use kvdb_tests::{Cluster, Request};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[track_caller]
fn page(cluster: &Cluster, target: &str) -> Value {
    let answer = cluster.ask(&Request::get(target)).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
    answer.json()
}

/// Key and value of each entry; none where only its place is told.
fn pairs(page: &Value) -> Vec<(String, Option<Vec<u8>>)> {
    let bytes = |v: &Value| match (v["value"].as_str(), v["base64"].as_str()) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(coded)) => Some(BASE64_STANDARD.decode(coded).unwrap()),
        _ => None,
    };
    let all = page["values"].as_array().unwrap();
    all.iter().map(|v| (v["key"].as_str().unwrap().to_string(), bytes(v))).collect()
}

fn pair(key: &str, value: &[u8]) -> (String, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

#[test]
fn named_keys_come_in_the_order_asked_with_what_is_known_of_them_and_the_missing_are_told() {
    let mut cluster = Cluster::start(2);
    cluster.put("/text", "grüße \"x\"\n".as_bytes());
    cluster.put("/bytes", &[0, 255, 7]);
    cluster.put("/empty", b"");
    cluster.put("/edge", &value(65_536, 1));
    let large = value(65_537, 2);
    cluster.put("/la%20rge%25", &large);
    cluster.follow(&Request::put("/j?ttl=1h", "{}").header("Content-Type", "application/json")).expect(201);
    let target = "/?get&key=text&key=no%2Fne&key=bytes&key=empty&key=edge&key=la%20rge%25&key=j&key=text";
    for _ in 0..2 {
        let page = page(&cluster, target);
        assert_eq!((&page["next"], &page["missing"]), (&json!(""), &json!(["no/ne"])));
        let expected = [
            pair("text", "grüße \"x\"\n".as_bytes()),
            pair("bytes", &[0, 255, 7]),
            pair("empty", b""),
            pair("edge", &value(65_536, 1)),
            ("la%20rge%25".into(), None),
            pair("j", b"{}"),
        ];
        assert_eq!(pairs(&page), expected);
        let (text, place, j) = (&page["values"][0], &page["values"][4], &page["values"][5]);
        assert_eq!(text["value"], "grüße \"x\"\n", "text is shown as it is");
        let tag = etag(&large);
        assert_eq!((place["length"].as_u64(), place["etag"].as_str()), (Some(65_537), Some(tag.trim_matches('"'))));
        assert_eq!(cluster.value(place["location"].as_str().unwrap()), large);
        assert_eq!((j["content_type"].as_str(), j["expires"].is_u64(), text["expires"].is_null()), (Some("application/json"), true, true));
        cluster.kill_master();
        (0..2).for_each(|i| cluster.kill_volume(i));
        (0..2).for_each(|i| cluster.start_volume(i));
        cluster.start_master();
        cluster.wait_all_up();
    }
}

#[test]
fn a_list_comes_with_values_in_pages_by_prefix_and_with_common_prefixes() {
    let cluster = Cluster::start(1);
    for (i, key) in ["a", "b/1", "b/2", "b/c/3", "d%2525"].iter().enumerate() {
        cluster.put(&format!("/{key}"), format!("v{i}").as_bytes());
    }
    cluster.follow(&Request::put("/b/gone?ttl=1ms", "x").expect_continue()).expect(201);
    std::thread::sleep(std::time::Duration::from_millis(2));
    let all = page(&cluster, "/?list&values");
    assert_eq!(pairs(&all), [pair("a", b"v0"), pair("b/1", b"v1"), pair("b/2", b"v2"), pair("b/c/3", b"v3"), pair("d%2525", b"v4")]);
    assert_eq!(all.get("missing"), None);
    assert_eq!(pairs(&page(&cluster, "/b/?list&values&start=b/1")), [pair("b/2", b"v2"), pair("b/c/3", b"v3")]);
    let grouped = page(&cluster, "/b/?list&values&delimiter=/");
    assert_eq!((pairs(&grouped), &grouped["prefixes"]), (vec![pair("b/1", b"v1"), pair("b/2", b"v2")], &json!(["b/c/"])));
    let (mut found, mut start) = (Vec::new(), String::new());
    loop {
        let page = page(&cluster, &format!("/?list&values&limit=2&start={start}"));
        found.extend(pairs(&page));
        start = key::query_escape(page["next"].as_str().unwrap().as_bytes());
        if start.is_empty() {
            break;
        }
    }
    assert_eq!(found, pairs(&all));
}

#[test]
fn a_page_is_bounded_and_the_next_one_goes_on_where_it_ended() {
    let cluster = Cluster::start(1);
    let values: Vec<Vec<u8>> = (0..140).map(|i| value(65_000, i)).collect();
    for (i, value) in values.iter().enumerate() {
        cluster.put(&format!("/k/{i:03}"), value);
    }
    cluster.put("/k/last", &value(100_000, 7));
    let named: String = (0..140).map(|i| format!("&key=k/{i:03}")).collect();
    for (target, rest) in [(format!("/?get{named}&key=k/last"), "start"), ("/k/?list&values".into(), "start")] {
        let (mut found, mut next, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = page(&cluster, &format!("{target}&{rest}={next}"));
            let some = pairs(&page);
            assert!(some.iter().filter_map(|(_, v)| v.as_ref()).map(Vec::len).sum::<usize>() <= 8 << 20);
            found.extend(some);
            pages += 1;
            next = page["next"].as_str().unwrap().into();
            if next.is_empty() {
                break;
            }
        }
        assert_eq!((found.len(), pages), (141, 2), "{rest}");
        assert!(found.iter().zip(&values).all(|((_, got), want)| got.as_ref() == Some(want)));
        assert_eq!(found[140], ("k/last".into(), None));
    }
}

#[test]
fn what_is_no_question_for_values_is_refused() {
    let cluster = Cluster::start(1);
    for bad in [
        "/?get",
        "/?get&key=",
        "/?get&key=-/x",
        "/?get&key=%zz",
        "/?get&key=a&start=b",
        "/?list&values&limit=0",
        "/?list&values&limit=1001",
    ] {
        cluster.ask(&Request::get(bad)).expect(400);
    }
    cluster.ask(&Request::get(&format!("/?get&key={}", "k".repeat(1025)))).expect(414);
    cluster.ask(&Request::get("/?newest&key=%zz")).expect(400);
    cluster.ask(&Request::get("/?other")).expect(400);
}

#[test]
fn values_come_from_the_replica_that_is_up_and_not_at_all_when_none_is() {
    let mut cluster = Cluster::start(2);
    for i in 0..40 {
        cluster.put(&format!("/k{i}"), &value(2_000, i));
    }
    cluster.kill_volume(0);
    let named: String = (0..40).map(|i| format!("&key=k{i}")).collect();
    assert_eq!(pairs(&page(&cluster, &format!("/?get{named}"))).len(), 40);
    cluster.kill_volume(1);
    let refused = cluster.ask(&Request::get(&format!("/?get{named}"))).expect(503);
    assert_eq!(refused.json()["code"], "no_replica");
    assert_eq!(page(&cluster, "/?get&key=none")["missing"], json!(["none"]), "what needs no volume is answered");
}

/// One writer sets `/a` and then `/b` to the same number, over and over: at any moment `a` is `b`, or one more.
#[test]
fn a_page_is_of_one_moment_while_its_keys_are_replaced() {
    let cluster = Cluster::start(2);
    cluster.put("/n/a", b"0");
    cluster.put("/n/b", b"0");
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let cluster = &cluster;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                cluster.put("/n/a", n.to_string().as_bytes());
                cluster.put("/n/b", n.to_string().as_bytes());
                written.store(n, Ordering::SeqCst);
            }
        });
        let mut changes = std::collections::BTreeSet::new();
        for i in 0..300 {
            let before = written.load(Ordering::SeqCst);
            let target = if i % 2 == 0 { "/?get&key=n/b&key=n/a" } else { "/n/?list&values" };
            let answer = cluster.ask(&Request::get(target));
            if answer.status == 503 {
                assert_eq!(answer.json()["code"], "busy", "{answer}");
                continue;
            }
            let mut found = pairs(&answer.json());
            found.sort();
            let number = |i: usize| String::from_utf8(found[i].1.clone().unwrap()).unwrap().parse::<u64>().unwrap();
            let (a, b) = (number(0), number(1));
            if !(a == b || a == b + 1) || b < before {
                stop.store(true, Ordering::Relaxed);
                panic!("a is {a} and b is {b}, after {before} was written");
            }
            changes.insert(a);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(changes.len() > 1, "nothing was replaced meanwhile");
    });
}
