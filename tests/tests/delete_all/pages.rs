//! What a page deletes, and what it refuses.

use crate::{count, fill, page};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request};
use serde_json::json;

#[test]
fn the_keys_of_a_prefix_are_deleted_page_by_page_and_no_others() {
    let cluster = Cluster::start(2);
    fill(&cluster, (0..25).map(|i| format!("a/{i:02}")));
    cluster.put("/a/large", &value(300_000, 1));
    let outside = ["/a", "/a0", "/b/1"];
    outside.iter().for_each(|k| drop(cluster.put(k, b"stays")));
    assert_eq!(page(&cluster, "/a/?delete-all&limit=10"), json!({"deleted": 10, "bytes": 10, "next": "a/09"}));
    assert_eq!(count(&cluster, "a/"), 16);
    cluster.get("/a/09").expect_problem(404, "not_found");
    cluster.put("/a/05", b"stored since, before the place where it goes on");
    assert_eq!(page(&cluster, "/a/?delete-all&limit=10&start=a/09"), json!({"deleted": 10, "bytes": 10, "next": "a/19"}));
    assert_eq!(page(&cluster, "/a/?delete-all&start=a/19"), json!({"deleted": 6, "bytes": 300_005, "next": ""}));
    assert_eq!(count(&cluster, "a/"), 1, "what was stored behind the pages stays");
    assert_eq!(page(&cluster, "/a/?delete-all")["deleted"], 1);
    assert_eq!(page(&cluster, "/a/?delete-all"), json!({"deleted": 0, "bytes": 0, "next": ""}));
    outside.iter().for_each(|k| assert_eq!(cluster.value(k), b"stays"));
    assert_eq!(cluster.status()["keys"], 3);
    until_settled(&cluster);
}

#[test]
fn all_keys_are_deleted_only_where_that_is_said() {
    let cluster = Cluster::start(1);
    fill(&cluster, (0..3).map(|i| format!("{i}")));
    let refused = cluster.ask(&Request::post("/?delete-all", "")).expect_problem(400, "bad_request");
    assert!(refused.text().contains("delete-all&all"), "{refused}");
    cluster.ask(&Request::post("/a?delete-all&all", "")).expect_problem(400, "bad_request");
    cluster.ask(&Request::post("/a?delete-all&limit=0", "")).expect_problem(400, "bad_request");
    cluster.ask(&Request::post("/%zz?delete-all", "")).expect_problem(400, "bad_key");
    assert_eq!(count(&cluster, ""), 3);
    assert_eq!(page(&cluster, "/?delete-all&all"), json!({"deleted": 3, "bytes": 3, "next": ""}));
    assert_eq!(count(&cluster, ""), 0);
}

#[test]
fn a_page_ends_where_it_would_write_too_much() {
    let cluster = Cluster::start(2);
    fill(&cluster, (0..200).map(|i| format!("a{i:03}{}", "k".repeat(1_000))));
    fill(&cluster, (0..1_100).map(|i| format!("b{i:04}")));
    let first = page(&cluster, "/a?delete-all");
    let deleted = first["deleted"].as_u64().unwrap();
    assert!((20..200).contains(&deleted), "{first}");
    let second = page(&cluster, &format!("/a?delete-all&start={}", first["next"].as_str().unwrap()));
    assert!(second["deleted"].as_u64().unwrap() > 0, "{second}");
    let mut deleted = 0;
    let mut pages = 0;
    let mut start = String::new();
    loop {
        let page = page(&cluster, &format!("/b?delete-all&start={start}"));
        deleted += page["deleted"].as_u64().unwrap();
        pages += 1;
        start = page["next"].as_str().unwrap().to_string();
        if start.is_empty() {
            break;
        }
    }
    assert_eq!((deleted, count(&cluster, "b")), (1_100, 0));
    assert!(pages >= 2);
}

#[test]
fn quotas_get_back_what_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let limits = dir.path().join("limits.json");
    std::fs::write(&limits, r#"{"limits":[{"prefix":"a/","max_keys":5}]}"#).unwrap();
    let cluster = Cluster::builder(1).master_args(["--limits", limits.to_str().unwrap()]).start();
    fill(&cluster, (0..5).map(|i| format!("a/{i}")));
    cluster.follow(&Request::put("/a/5", "x")).expect_problem(507, "quota_exceeded");
    page(&cluster, "/a/?delete-all&limit=3");
    assert_eq!(cluster.status()["quotas"][0]["keys"], 2);
    cluster.put("/a/5", b"x");
}
