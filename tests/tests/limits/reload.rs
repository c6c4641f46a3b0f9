//! The file of limits: read at the start, and again without a restart.

use crate::{LimitsFile, listed, usage};
use kvdb_tests::process::{Server, program, run_to_end};
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

#[track_caller]
fn refused_soon(cluster: &Cluster, target: &str, status: u16) {
    eventually("the new limits are held", || (cluster.follow(&Request::put(target, "123")).status == status).then_some(()));
}

#[test]
fn a_changed_file_is_taken_without_a_restart_and_a_bad_one_is_not() {
    let file = LimitsFile::new(&json!([{"prefix": "a/", "max_value_bytes": 2}]));
    let cluster = file.cluster(1).start();
    cluster.follow(&Request::put("/a/x", "123")).expect_problem(413, "value_too_large");
    cluster.put("/b/x", b"123");
    file.write(r#"{"limits":[{"prefix":"b/","max_value_bytes":2}]}"#);
    refused_soon(&cluster, "/b/y", 413);
    cluster.put("/a/x", b"123");
    for bad in [r#"{"limits":[{"prefix":"a/","max_value_byte":2}]}"#, "{", ""] {
        let lines = || cluster.master_log().matches("cannot be used").count();
        let before = lines();
        file.write(bad);
        eventually("the bad file was seen", || (lines() > before).then_some(()));
        cluster.follow(&Request::put("/b/y", "123")).expect_problem(413, "value_too_large");
        cluster.put("/a/x", b"123");
    }
    assert!(cluster.master_log().contains("max_value_byte"), "the log says what is wrong");
    file.write(r#"{"limits":[]}"#);
    eventually("no limits are left", || (cluster.follow(&Request::put("/b/y", "123")).status != 413).then_some(()));
    assert_eq!(cluster.status()["quotas"], json!([]));
}

#[test]
fn a_master_does_not_start_on_a_bad_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, db) = (dir.path().join("limits.json"), dir.path().join("db"));
    for (text, why) in [(Some(r#"{"limits":[{"prefix":"a","max_key":1}]}"#), "max_key"), (None, "No such file")] {
        text.map_or_else(|| std::fs::remove_file(&path), |text| std::fs::write(&path, text)).unwrap();
        let args = ["localhost:1", db.to_str().unwrap(), "--limits", path.to_str().unwrap()].map(String::from).to_vec();
        let (status, said) =
            run_to_end(Server::new("m", program("master"), "127.0.0.1", args, Vec::new(), dir.path()).command(), dir.path());
        assert!(!status.success() && said.contains(why) && said.contains("limits.json"), "{status}: {said}");
    }
}

#[test]
fn a_quota_that_comes_while_writers_write_counts_what_is_there() {
    let file = LimitsFile::new(&json!([]));
    let cluster = file.cluster(1).start();
    for part in 0..3 {
        let operations: Vec<_> = (0..1_000).map(|i| json!({"put": format!("a/{part}{i:03}"), "value": "x"})).collect();
        cluster.ask(&Request::post("/?batch", json!({ "operations": operations }).to_string())).expect(200);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for writer in 0..3 {
            let (cluster, done) = (&cluster, &done);
            s.spawn(move || {
                for n in 0.. {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    let target = format!("/a/{}{:03}", n % 4, writer * 300 + n % 300);
                    let request = if n % 3 == 0 { Request::delete(&target) } else { Request::put(&target, vec![b'x'; n % 7]) };
                    // 503: it is being counted. 507: the quota is used up.
                    let status = cluster.follow(&request).status;
                    assert!(matches!(status, 200 | 201 | 404 | 503 | 507), "{status}");
                }
            });
        }
        file.write(r#"{"limits":[{"prefix":"a/","max_keys":3050}]}"#);
        let counted = || cluster.status()["quotas"].as_array().unwrap().iter().any(|q| q["counted"] == true);
        eventually("the quota is counted", || counted().then_some(()));
        std::thread::sleep(std::time::Duration::from_millis(300));
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(usage(&cluster, "a/"), listed(&cluster, "a/"));
}
