//! Quotas: exact when many write at once, given back, and right after kills.

use crate::{LimitsFile, listed, no_file_is_left, usage};
use kvdb_tests::process::program;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::json;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn of_many_writers_at_once_exactly_as_many_succeed_as_there_is_room_for() {
    let file = LimitsFile::new(&json!([{"prefix": "k/", "max_keys": 25}, {"prefix": "b/", "max_bytes": 1_000_000}]));
    let cluster = file.cluster(2).start();
    let (keys, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|s| {
        for writer in 0..8 {
            let (cluster, keys, bytes) = (&cluster, &keys, &bytes);
            s.spawn(move || {
                for n in 0..8 {
                    let count = |answer: kvdb_tests::Answer, stored: &AtomicUsize| match answer.status {
                        201 => drop(stored.fetch_add(1, Ordering::SeqCst)),
                        _ => drop(answer.expect_problem(507, "quota_exceeded")),
                    };
                    count(cluster.follow(&Request::put(&format!("/k/{writer}.{n}"), "x")), keys);
                    // Both with a file and within the index; the last one is streamed with its length unannounced.
                    let request = Request::put(&format!("/b/{writer}.{n}"), value(70_000, n));
                    count(cluster.follow(&if n % 2 == 0 { request.chunked(9_000) } else { request }), bytes);
                }
            });
        }
    });
    assert_eq!((keys.into_inner(), bytes.into_inner()), (25, 14), "14 × 70,000 is what fits");
    assert_eq!((usage(&cluster, "k/"), usage(&cluster, "b/")), ((25, 25), (14, 980_000)));
    assert_eq!((listed(&cluster, "k/"), listed(&cluster, "b/")), ((25, 25), (14, 980_000)));
    eventually("the metrics tell", || {
        let text = cluster.ask(&Request::get("/-/metrics")).expect(200).text();
        let told = [r#"kvdb_quota_bytes{server="master",prefix="b/"} 980000"#, r#"kvdb_quota_keys{server="master",prefix="k/"} 25"#];
        told.iter().all(|line| text.contains(line)).then_some(())
    });
    until_settled(&cluster);
}

#[test]
fn what_is_replaced_deleted_or_expired_gives_its_room_back() {
    let file = LimitsFile::new(&json!([{"prefix": "", "max_keys": 2, "max_bytes": 200_000}]));
    let cluster = file.cluster(2).start();
    cluster.put("/a", &value(150_000, 1));
    cluster.follow(&Request::put("/b", value(60_000, 2))).expect_problem(507, "quota_exceeded");
    cluster.follow(&Request::put("/b", value(200_001, 2))).expect_problem(413, "value_too_large");
    cluster.put("/a", &value(140_000, 3));
    cluster.put("/b", &value(60_000, 2));
    cluster.follow(&Request::put("/c", "")).expect_problem(507, "quota_exceeded");
    cluster.follow(&Request::post("/a", "")).expect_problem(409, "exists");
    cluster.follow(&Request::delete("/a")).expect(200);
    cluster.follow(&Request::put("/c?ttl=300ms", "soon gone")).expect(201);
    let room = || (cluster.follow(&Request::put("/d", value(140_000, 4))).status == 201).then_some(());
    eventually("what expired gives its room back", room);
    assert_eq!(usage(&cluster, ""), (2, 200_000));
    let swap = json!({"operations": [{"put": "e", "value": "1"}, {"put": "f", "value": "2"}, {"delete": "b"}, {"delete": "d"}]});
    cluster.ask(&Request::post("/?batch", swap.to_string())).expect(200);
    let over = json!({"operations": [{"put": "g", "value": "1"}, {"put": "e", "value": "2"}]});
    let answer = cluster.ask(&Request::post("/?batch", over.to_string())).expect_problem(507, "quota_exceeded");
    assert_eq!(answer.json()["keys"], json!(["g", "e"]));
    assert_eq!((cluster.value("/e"), usage(&cluster, "")), (b"1".to_vec(), (2, 2)));
    no_file_is_left(&cluster);
}

/// Writers whose master is killed; the numbers right after are those of the records.
#[test]
fn after_a_kill_of_the_master_the_numbers_are_right_and_the_quota_holds() {
    let file = LimitsFile::new(&json!([{"prefix": "a/", "max_keys": 40}]));
    let mut cluster = file.cluster(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    for round in 0..4_usize {
        let address = cluster.master_addr();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let address = address.clone();
                std::thread::spawn(move || {
                    for n in 0..12 {
                        let target = format!("/a/{}", (writer * 12 + n * 7 + round * 5) % 60);
                        let request = if n % 4 == 3 { Request::delete(&target) } else { Request::put(&target, vec![b'x'; n + 1]) };
                        if request.try_follow(&address).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(15 * (round as u64 + 1)));
        cluster.kill_master();
        writers.into_iter().for_each(|w| w.join().unwrap());
        cluster.start_master();
        cluster.wait_all_up();
        let quiet = || (usage(&cluster, "a/") == listed(&cluster, "a/")).then_some(());
        // A commit that a volume asks for again may come between the two questions.
        eventually("what is counted is what is there", quiet);
        assert!(usage(&cluster, "a/").0 <= 40);
    }
    let (keys, _) = fill(&cluster);
    assert_eq!(keys, 40);
    until_settled(&cluster);
}

/// Stores until the quota is used up; what is then used.
fn fill(cluster: &Cluster) -> (u64, u64) {
    for n in 0..100 {
        match cluster.follow(&Request::put(&format!("/a/fill{n}"), "x")).status {
            201 => {}
            507 => break,
            other => panic!("{other}"),
        }
    }
    assert_eq!(usage(cluster, "a/"), listed(cluster, "a/"));
    usage(cluster, "a/")
}

#[test]
fn kvdb_cluster_shows_what_is_used_of_each_quota() {
    let file = LimitsFile::new(&json!([{"prefix": "", "max_keys": 9}, {"prefix": "a b/", "max_bytes": 2048}]));
    let cluster = file.cluster(2).start();
    cluster.put("/a%20b/1", &value(1024, 1));
    cluster.put("/c", b"c");
    let output = Command::new(program("kvdb")).args(["--master", &cluster.url(), "cluster"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
    for line in [["QUOTA", "KEYS", "BYTES"], ["(all keys)", "2 of 9", "1.00 KiB"], ["a b/", "1", "1.00 KiB of 2.00 KiB"]] {
        assert!(lines.iter().any(|l| *l == line), "{line:?} is missing:\n{said}");
    }
}
