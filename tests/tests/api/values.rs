//! Values of every size come back exact, however they were sent, and all replicas hold the same bytes.

use kvdb_tests::values::{SIZES, assert_same, etag, value};
use kvdb_tests::{Answer, Cluster, Request, Url};

/// Bodies beyond this are relayed where the client does not wait for `100 Continue`.
const MAX_DROPPED: usize = 64 << 10;

fn cluster(replicas: &str) -> Cluster {
    Cluster::builder(2).master_args(["--replicas", replicas]).start()
}

/// Stores each size by `put`, reads it back, and looks at every copy.
fn check_all_sizes(cluster: &Cluster, replicas: usize, put: impl Fn(&str, &[u8]) -> Answer) {
    for (i, len) in SIZES.into_iter().enumerate() {
        let (target, bytes) = (format!("/size-{len}"), value(len, i as u64 + 1));
        let stored = put(&target, &bytes).expect(201);
        assert_eq!(stored.header("etag"), Some(etag(&bytes).as_str()), "{stored}");
        check(cluster, &target, &bytes, replicas);
    }
}

fn check(cluster: &Cluster, target: &str, bytes: &[u8], replicas: usize) {
    let answer = cluster.get(target).expect(200);
    assert_same(&answer.body, bytes, target);
    assert_eq!(answer.header("etag"), Some(etag(bytes).as_str()));
    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    let copies: Vec<Answer> = cluster.copies(target).into_iter().filter(|c| c.status == 200).collect();
    assert_eq!(copies.len(), replicas, "copies of {target}");
    for copy in copies {
        assert_same(&copy.body, bytes, &format!("a copy of {target}"));
    }
}

#[test]
fn with_expect_every_size_is_redirected_and_stored_exactly() {
    for (arg, replicas) in [("1", 1), ("2", 2)] {
        let cluster = cluster(arg);
        check_all_sizes(&cluster, replicas, |target, bytes| {
            let answer = cluster.follow(&Request::put(target, bytes).expect_continue());
            assert_eq!(answer.hops, 1, "{target}");
            assert!(answer.continued || bytes.is_empty(), "{target}: the body was asked for");
            answer
        });
    }
}

#[test]
fn without_expect_small_values_are_redirected_and_large_ones_relayed() {
    for (arg, replicas) in [("1", 1), ("2", 2)] {
        let cluster = cluster(arg);
        check_all_sizes(&cluster, replicas, |target, bytes| {
            let answer = cluster.follow(&Request::put(target, bytes));
            assert_eq!(answer.hops, usize::from(bytes.len() <= MAX_DROPPED), "{target}");
            answer
        });
    }
}

#[test]
fn chunked_bodies_of_unknown_length_are_stored_exactly() {
    let cluster = cluster("2");
    for (expects, chunk) in [(true, 1 << 20), (true, 1000), (false, 100_000), (false, 777)] {
        check_all_sizes(&cluster, 2, |target, bytes| {
            let request = Request::post(target, bytes).chunked(chunk);
            let request = if expects { request.expect_continue() } else { request };
            let answer = cluster.follow(&request);
            assert_eq!(answer.hops, usize::from(expects), "{target} in chunks of {chunk}: what cannot be sent twice is relayed");
            answer
        });
        for len in SIZES {
            cluster.follow(&Request::delete(&format!("/size-{len}"))).expect(200);
        }
    }
}

#[test]
fn buffered_writes_store_every_size_exactly() {
    let cluster = Cluster::builder(2).volume_args(["--buffered-writes"]).start();
    check_all_sizes(&cluster, 2, |target, bytes| cluster.follow(&Request::put(target, bytes).expect_continue()));
}

#[test]
fn a_client_that_asks_first_sends_the_value_only_to_the_volume() {
    let cluster = cluster("2");
    for len in [1, 65_537, (1 << 20) + 1] {
        let (target, bytes) = (format!("/asked-{len}"), value(len, 5));
        let url = cluster.write_url(&target, len);
        Request::put(&url.target, bytes.clone()).send(&url.address).expect(201);
        check(&cluster, &target, &bytes, 2);
    }
}

#[test]
fn a_value_longer_than_was_announced_to_the_master_is_not_stored() {
    let cluster = cluster("2");
    let url = cluster.write_url("/k", 100_000);
    Request::put(&url.target, value(100_001, 1)).expect_continue().send(&url.address).expect_problem(413, "value_too_large");
    Request::put(&url.target, value(100_001, 1)).chunked(50_000).send(&url.address).expect_problem(413, "value_too_large");
    cluster.get("/k").expect_problem(404, "not_found");
}

#[test]
fn an_overwritten_value_gives_its_space_back_on_all_volumes() {
    let cluster = cluster("2");
    for seed in 1..=5 {
        cluster.put("/k", &value(1 << 20, seed));
    }
    assert_same(&cluster.value("/k"), &value(1 << 20, 5), "/k");
    for i in 0..2 {
        kvdb_tests::eventually("one file is left", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
}

#[test]
fn a_read_that_was_redirected_to_a_replaced_version_finds_the_present_one() {
    let cluster = cluster("2");
    cluster.put("/k", b"old");
    let old: Url = cluster.read_url("/k");
    cluster.put("/k", b"new");
    // The old copies go soon; until then they are served, whole.
    kvdb_tests::eventually("the old version is gone", || {
        let answer = Request::get(&old.target).follow(&old.address).expect(200);
        assert!(answer.body == b"old" || answer.body == b"new", "{answer}");
        (answer.body == b"new").then_some(())
    });
}
