//! Many clients at once on one key.

use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request};
use std::sync::{Arc, Barrier};
use std::time::Instant;

#[test]
fn of_two_creates_at_once_exactly_one_wins() {
    let cluster = Cluster::start(2);
    for round in 0..20 {
        let target = format!("/race-{round}");
        let len = if round % 2 == 0 { 100 } else { 200_000 };
        let barrier = Barrier::new(2);
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..2)
                .map(|racer| {
                    let (target, barrier, cluster) = (&target, &barrier, &cluster);
                    scope.spawn(move || {
                        let request = Request::put(target, value(len, racer)).header("If-None-Match", "*").expect_continue();
                        barrier.wait();
                        cluster.follow(&request).status
                    })
                })
                .collect();
            racers.into_iter().map(|r| r.join().unwrap()).collect()
        });
        let winner = statuses.iter().position(|s| *s == 201).unwrap_or_else(|| panic!("nobody won: {statuses:?}"));
        assert_eq!(statuses[1 - winner], 412, "{statuses:?}");
        assert_same(&cluster.value(&target), &value(len, winner as u64), &target);
    }
}

struct Put {
    began: Instant,
    ended: Instant,
    status: u16,
    version: String,
    seed: u64,
}

#[test]
fn of_fifty_puts_at_once_one_value_stands_whole_and_every_answer_is_true() {
    let cluster = Cluster::start(2);
    for len in [100, 150_000] {
        let target = format!("/fifty-{len}");
        let barrier = Barrier::new(50);
        let puts: Vec<Put> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..50)
                .map(|seed| {
                    let (target, barrier, cluster) = (&target, &barrier, &cluster);
                    scope.spawn(move || {
                        let request = Request::put(target, value(len, seed)).expect_continue();
                        barrier.wait();
                        let began = Instant::now();
                        let answer = cluster.follow(&request);
                        let version = answer.header("kvdb-version").unwrap_or_default().to_string();
                        Put { began, ended: Instant::now(), status: answer.status, version, seed }
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let count = |status| puts.iter().filter(|p| p.status == status).count();
        assert_eq!((count(201), count(200)), (1, 49), "one created, the others replaced");

        let found = cluster.get(&target).expect(200);
        let last = puts.iter().find(|p| Some(p.version.as_str()) == found.header("kvdb-version")).expect("the last is one of them");
        assert_same(&found.body, &value(len, last.seed), &target);
        assert!(puts.iter().all(|p| p.began <= last.ended), "a put that began after the last one had ended must have replaced it");
        for copy in cluster.copies(&target) {
            assert_same(&copy.expect(200).body, &found.body, "a copy");
        }
        for i in 0..2 {
            let expected = usize::from(len > 64 << 10);
            kvdb_tests::eventually("no loser's file is left", || (cluster.blob_files(i).len() == expected).then_some(()));
        }
        cluster.follow(&Request::delete(&target)).expect(200);
    }
}

#[test]
fn readers_see_only_whole_values_while_writers_replace_them() {
    let cluster = Cluster::start(2);
    let len = 700_000;
    cluster.put("/k", &value(len, 0));
    // Held by the writer until it ends, even by a panic.
    let writing = Arc::new(());
    std::thread::scope(|scope| {
        let (cluster, held, writing) = (&cluster, Arc::clone(&writing), &writing);
        scope.spawn(move || {
            let _held = held;
            for seed in 1..=20 {
                cluster.put("/k", &value(len, seed));
            }
        });
        for _ in 0..3 {
            scope.spawn(move || {
                while Arc::strong_count(writing) > 1 {
                    // A read that is cut short is no whole answer, and is asked for again.
                    let Ok(answer) = Request::get("/k").try_follow(&cluster.master_addr()) else { continue };
                    let answer = answer.expect(200);
                    let seed = (0..=20).find(|s| value(len, *s) == answer.body);
                    assert!(seed.is_some(), "a value that nobody wrote: {} bytes", answer.body.len());
                }
            });
        }
    });
    assert_same(&cluster.value("/k"), &value(len, 20), "/k");
}

#[test]
fn puts_against_deletes_leave_one_of_the_two_states() {
    let cluster = Cluster::start(2);
    for round in 0..20 {
        let target = format!("/k{round}");
        cluster.put(&target, b"old");
        let barrier = Barrier::new(2);
        let (put, delete) = std::thread::scope(|scope| {
            let put = scope.spawn(|| {
                barrier.wait();
                cluster.follow(&Request::put(&target, "new"))
            });
            let delete = scope.spawn(|| {
                barrier.wait();
                cluster.follow(&Request::delete(&target))
            });
            (put.join().unwrap(), delete.join().unwrap())
        });
        let after = cluster.get(&target);
        match (put.status, delete.status, after.status) {
            // The delete came first (the put created), or its removal of the old one counts as before the put.
            (200 | 201, 200, 200) => assert_eq!(after.body, b"new"),
            // The put came first.
            (200, 200, 404) => {}
            // The delete lost against the put, and says so.
            (200, 409 | 412, 200) => assert_eq!(after.body, b"new"),
            other => panic!("no order of the two explains {other:?}: {put} {delete}"),
        }
    }
}
