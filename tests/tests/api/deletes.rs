//! `DELETE`.

use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, Url, eventually};

#[test]
fn a_deleted_key_is_gone_at_once_and_its_space_comes_back() {
    let cluster = Cluster::start(2);
    for bytes in [value(0, 1), value(10, 1), value(1 << 20, 1)] {
        cluster.put("/k", &bytes);
        let copy = cluster.read_url("/k");
        let answer = cluster.follow(&Request::delete("/k")).expect(200);
        assert_eq!(answer.hops, 1, "it is ended by a volume");
        assert!(answer.header("kvdb-version").is_some(), "{answer}");
        cluster.get("/k").expect_problem(404, "not_found");
        cluster.follow(&Request::delete("/k")).expect_problem(404, "not_found");
        for i in 0..2 {
            eventually("no copy is left", || (Request::get(&copy.target).send(&cluster.volume_addr(i)).status != 200).then_some(()));
            eventually("no file is left", || cluster.blob_files(i).is_empty().then_some(()));
        }
    }
}

#[test]
fn a_deleted_key_can_be_created_again() {
    let cluster = Cluster::start(2);
    for round in 1..=3 {
        cluster.follow(&Request::post("/k", value(100_000, round))).expect(201);
        assert_eq!(cluster.value("/k"), value(100_000, round));
        cluster.follow(&Request::delete("/k")).expect(200);
        cluster.get("/k").expect(404);
    }
}

#[test]
fn a_delete_counts_when_it_is_committed_and_not_when_it_was_redirected() {
    let cluster = Cluster::start(2);
    cluster.put("/k", b"old");
    let url = Url::of(&cluster.ask(&Request::delete("/k")).expect(307));
    cluster.put("/k", b"new");
    Request::delete(&url.target).send(&url.address).expect(200);
    cluster.get("/k").expect(404);
    // Carried out once: the same request later says the same and removes nothing.
    cluster.put("/k", b"newest");
    Request::delete(&url.target).send(&url.address).expect(200);
    assert_eq!(cluster.value("/k"), b"newest");
}

#[test]
fn a_delete_with_all_volumes_down_succeeds_and_they_follow_when_they_are_back() {
    let mut cluster = Cluster::start(2);
    cluster.put("/small", b"small");
    cluster.put("/large", &value(1 << 20, 1));
    let copies = [cluster.read_url("/small"), cluster.read_url("/large")];
    for i in 0..2 {
        cluster.kill_volume(i);
    }
    cluster.wait_up(0);
    for target in ["/small", "/large"] {
        cluster.get(target).expect_problem(503, "no_replica");
        let url = Url::of(&cluster.ask(&Request::delete(target)).expect(307));
        assert_eq!(url.address, cluster.master_addr(), "the master ends it itself");
        cluster.get(target).expect_problem(503, "no_replica");
        for _ in 0..2 {
            Request::delete(&url.target).send(&url.address).expect(200);
        }
        cluster.get(target).expect_problem(404, "not_found");
        cluster.follow(&Request::delete(target)).expect_problem(404, "not_found");
    }
    for i in 0..2 {
        cluster.start_volume(i);
    }
    cluster.wait_all_up();
    for i in 0..2 {
        for copy in &copies {
            eventually("the copy is dropped", || (Request::get(&copy.target).send(&cluster.volume_addr(i)).status != 200).then_some(()));
        }
        eventually("its file is gone", || cluster.blob_files(i).is_empty().then_some(()));
    }
    cluster.get("/large").expect(404);
}

#[test]
fn the_other_replica_follows_when_it_was_down_during_the_delete() {
    let mut cluster = Cluster::start(2);
    cluster.put("/k", &value(1 << 20, 1));
    cluster.kill_volume(1);
    cluster.wait_up(1);
    cluster.follow(&Request::delete("/k")).expect(200);
    assert!(cluster.blob_files(0).is_empty(), "the space is back at once");
    assert_eq!(cluster.blob_files(1).len(), 1, "the other is still down");
    cluster.start_volume(1);
    eventually("its file is gone", || cluster.blob_files(1).is_empty().then_some(()));
}
