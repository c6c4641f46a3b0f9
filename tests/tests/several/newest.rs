//! The newest of several keys.

use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, Url};

#[track_caller]
fn newest(cluster: &Cluster, target: &str) -> (String, Vec<u8>) {
    let answer = cluster.ask(&Request::get(target)).expect(302);
    let key = answer.header("kvdb-key").unwrap().to_string();
    let head = cluster.ask(&Request::new("HEAD", target)).expect(302);
    assert_eq!((head.header("kvdb-key"), head.header("cache-control")), (Some(key.as_str()), Some("no-store")));
    (key, cluster.get(target).expect(200).body)
}

#[test]
fn the_value_that_was_written_last_is_given_whatever_the_order_of_the_keys() {
    let mut cluster = Cluster::start(2);
    let (ab, ba) = ("/?newest&key=a&key=b%20%2525&key=none", "/?newest&key=none&key=b%20%2525&key=a&key=a");
    cluster.ask(&Request::get(ab)).expect(404);
    cluster.ask(&Request::new("HEAD", ab)).expect(404);
    cluster.put("/a", b"1");
    assert_eq!(newest(&cluster, ab), ("a".into(), b"1".to_vec()));
    cluster.put("/b%20%2525", &value(100_000, 2));
    for _ in 0..2 {
        for target in [ab, ba] {
            assert_eq!(newest(&cluster, target), ("b%20%2525".into(), value(100_000, 2)));
        }
        cluster.kill_master();
        cluster.start_master();
        cluster.wait_all_up();
    }
    // Written last is not last in the list, and not the greatest ticket.
    let late = cluster.write_url("/a", 1);
    cluster.put("/b%20%2525", b"3");
    Request::put(&late.target, "4").send(&late.address).expect(200);
    assert_eq!(newest(&cluster, ab), ("a".into(), b"4".to_vec()));
    cluster.follow(&Request::delete("/a")).expect(200);
    assert_eq!(newest(&cluster, ba), ("b%20%2525".into(), b"3".to_vec()));
    cluster.follow(&Request::put("/a?ttl=1h", "5")).expect(201);
    let answer = cluster.ask(&Request::get(ab)).expect(302);
    assert!(answer.header("kvdb-expires").is_some(), "{answer}");
    // One request a look: the value may expire between two.
    cluster.follow(&Request::put("/a?ttl=1s", "6")).expect(200);
    kvdb_tests::eventually("it expires", || (cluster.get(ab).expect(200).body == b"3").then_some(()));
}

#[test]
fn whoever_comes_to_the_volume_too_late_is_sent_back_to_the_same_question() {
    let cluster = Cluster::start(1);
    cluster.put("/old", b"old");
    cluster.put("/new", b"new");
    let url = Url::of(&cluster.ask(&Request::get("/?newest&key=old&key=new&key=x%26y")).expect(302));
    cluster.follow(&Request::delete("/new")).expect(200);
    let answer = Request::get(&url.target).follow(&url.address).expect(200);
    assert_eq!(answer.body, b"old", "and not 404, for which there was no moment");
    cluster.put("/x%26y", b"xy");
    let again = Url::of(&Request::get(&url.target).send(&url.address).expect(302));
    assert_eq!(
        (again.address.as_str(), Request::get(&again.target).follow(&again.address).expect(200).body),
        (cluster.master_addr().as_str(), b"xy".to_vec())
    );
}

#[test]
fn a_question_for_too_many_keys_or_none_is_refused() {
    let cluster = Cluster::start(1);
    cluster.ask(&Request::get("/?newest")).expect(400);
    let many: String = (0..2_000).map(|i| format!("&key={i}")).collect();
    cluster.ask(&Request::get(&format!("/?newest{many}"))).expect(414);
}
