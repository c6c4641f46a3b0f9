//! What clients see while volumes are down.

use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request};

#[test]
fn with_one_of_two_volumes_down_a_write_of_two_replicas_is_a_clear_503() {
    let mut cluster = Cluster::start(2);
    cluster.put("/old", b"old");
    cluster.kill_volume(0);
    cluster.wait_up(1);
    for request in [
        Request::put("/k", "small"),
        Request::post("/k", "small"),
        Request::put("/k", value(1 << 20, 1)),
        Request::put("/k", value(1 << 20, 1)).expect_continue(),
        Request::put("/k", value(1 << 20, 1)).chunked(1 << 16),
    ] {
        let answer = cluster.follow(&request).expect_problem(503, "no_volumes");
        assert!(answer.header("retry-after").is_some(), "{answer}");
        assert_eq!(answer.json()["retry"], true);
        assert!(answer.json()["detail"].as_str().unwrap().contains("2 replicas"), "it says what is asked for: {answer}");
    }
    cluster.ask(&Request::get("/-/health/ready")).expect_problem(503, "unavailable");
    cluster.ask(&Request::get("/-/health/live")).expect(200);
    cluster.start_volume(0);
    cluster.wait_all_up();
    cluster.put("/k", &value(1 << 20, 1));
    assert_same(&cluster.value("/k"), &value(1 << 20, 1), "/k");
}

#[test]
fn with_one_of_two_replicas_down_every_read_works_at_once() {
    let mut cluster = Cluster::start(2);
    let bytes = value(1 << 20, 1);
    cluster.put("/k", &bytes);
    for down in 0..2 {
        cluster.kill_volume(down);
        cluster.wait_up(1);
        for _ in 0..10 {
            let answer = cluster.get("/k").expect(200);
            assert_eq!(answer.hops, 1);
            assert_same(&answer.body, &bytes, "/k");
        }
        cluster.start_volume(down);
        cluster.wait_all_up();
    }
}

#[test]
fn with_a_third_volume_writes_go_on_when_one_is_down() {
    let mut cluster = Cluster::start(3);
    cluster.kill_volume(2);
    cluster.wait_up(2);
    for i in 0..10 {
        let (target, bytes) = (format!("/k{i}"), value(100_000, i));
        cluster.put(&target, &bytes);
        assert_same(&cluster.value(&target), &bytes, &target);
    }
}

#[test]
fn a_write_that_was_redirected_to_a_chain_with_a_dead_end_lands_elsewhere() {
    let mut cluster = Cluster::start(3);
    // The tickets are made while all are up; whichever volume dies, some of them name it second.
    let urls: Vec<_> = (0..60).map(|i| (format!("/k{i}"), cluster.write_url(&format!("/k{i}"), 100_000))).collect();
    cluster.kill_volume(2);
    let dead = cluster.volume_addr(2);
    cluster.wait_up(2);
    let mut sent_back = 0;
    for (target, url) in urls.iter().filter(|(_, url)| url.address != dead) {
        let answer = Request::put(&url.target, value(100_000, 1)).expect_continue().follow(&url.address).expect(201);
        sent_back += usize::from(answer.hops > 0);
        assert_same(&cluster.value(target), &value(100_000, 1), target);
    }
    assert!(sent_back > 0, "no ticket named the dead volume second, a matter of 1 to 30 thousand million");
}
