//! Volumes that are added, drained and removed while the master runs.

use super::{builder, check, check_copies, fill, id, kvdb_cluster, order, records, until_on};
use kvdb_tests::settled::until_settled;
use kvdb_tests::{Request, eventually};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_drained_volume_is_empty_in_the_end_while_reads_and_writes_go_on_and_can_then_be_removed() {
    let mut cluster = builder(3).start();
    let values = fill(&cluster, 40);
    let ids: Vec<String> = (0..3).map(|i| id(&cluster, i)).collect();
    let (done, said) = kvdb_cluster(&cluster, &["remove", &ids[0]]);
    assert!(!done && said.contains("drain the volume first"), "{said}");
    let ended = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0u64;
            while !ended.load(Ordering::Relaxed) {
                cluster.put(&format!("/during-{}", n % 20), &kvdb_tests::values::value(100_000, n));
                assert_eq!(cluster.value(&format!("/during-{}", n % 20)), kvdb_tests::values::value(100_000, n));
                n += 1;
            }
            n
        });
        order(&cluster, &["drain", &ids[0]]);
        until_on(&cluster, &ids[1..], 2);
        ended.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(written > 0);
    until_on(&cluster, &ids[1..], 2);
    until_settled(&cluster);
    assert!(cluster.blob_files(0).is_empty());
    check_copies(&cluster, &values, 2);
    let said = order(&cluster, &["remove", &ids[0]]);
    assert!(said.contains("no longer of the cluster"), "{said}");
    cluster.wait_up(2);
    cluster.stop_volume(0);
    check(&cluster, &values);
    // It stays away when the master starts anew with its address still on the list.
    cluster.kill_master();
    cluster.start_master();
    cluster.wait_up(2);
    cluster.start_volume(0);
    eventually("the volume that was removed is turned away", || {
        cluster.status().to_string().contains("was removed from the cluster").then_some(())
    });
    check(&cluster, &values);
}

#[test]
fn a_drain_that_has_no_place_for_its_values_loses_none_and_can_be_called_off() {
    let cluster = builder(2).start();
    let values = fill(&cluster, 8);
    let before = records(&cluster);
    let volume = id(&cluster, 0);
    order(&cluster, &["drain", &cluster.volume_addr(0)]);
    eventually("no place", || (cluster.status()["repair"]["no_place"]["values"] == values.len()).then_some(()));
    let (done, said) = kvdb_cluster(&cluster, &["remove", &volume]);
    assert!(!done && said.contains("values are on the volume still"), "{said}");
    cluster.ask(&Request::put("/new", "x").expect_continue()).expect(503);
    order(&cluster, &["resume", &volume]);
    eventually("it is used again", || (cluster.ask(&Request::put("/new", "x").expect_continue()).status == 307).then_some(()));
    assert_eq!(records(&cluster), before);
    check_copies(&cluster, &values, 2);
}

#[test]
fn a_lost_volume_is_removed_at_once_and_its_values_get_new_replicas() {
    // The time after which a volume is given up by itself is long here.
    let mut cluster = kvdb_tests::Cluster::start(3);
    let values = fill(&cluster, 20);
    let ids: Vec<String> = (0..3).map(|i| id(&cluster, i)).collect();
    cluster.kill_volume(2);
    cluster.wait_up(2);
    order(&cluster, &["remove", &ids[2], "--lost"]);
    until_on(&cluster, &ids[..2], 2);
    check_copies(&cluster, &values, 2);
    let (done, said) = kvdb_cluster(&cluster, &["drain", &ids[2]]);
    assert!(!done && said.contains("was removed"), "{said}");
}

#[test]
fn an_added_volume_is_used_and_still_listed_after_a_restart_of_the_master() {
    let mut cluster = builder(3).start();
    cluster.stop_master();
    let addresses: Vec<String> = (0..3).map(|i| cluster.volume_addr(i)).collect();
    cluster.list_addresses(&addresses[..2]);
    cluster.start_master();
    cluster.wait_up(2);
    let said = order(&cluster, &["add", &addresses[2]]);
    assert!(said.contains(&id(&cluster, 2)), "{said}");
    cluster.wait_all_up();
    cluster.kill_master();
    cluster.start_master();
    cluster.wait_all_up();
    let (done, said) = kvdb_cluster(&cluster, &["add", "127.0.0.1:1"]);
    assert!(!done && said.contains("no contact yet"), "{said}");
}

#[test]
fn orders_are_only_for_who_knows_the_secret_and_only_while_they_are_fresh() {
    let cluster = builder(2).start();
    let volume = id(&cluster, 0);
    let body = format!("{{\"at\":{},\"ask\":{{\"drain\":{{\"volume\":\"{volume}\"}}}}}}", cluster.status()["time"]);
    cluster.ask(&Request::post("/-/operator/order", body.clone())).expect(401);
    cluster.ask(&Request::post("/-/operator/order", body).header("Kvdb-Peer", &"0".repeat(64))).expect(403);
    let old = signed(&cluster, 1_000);
    let answer = cluster.ask(&old);
    assert!(answer.status == 403 && answer.text().contains("not of this minute"), "{answer}");
    let now = cluster.status()["time"].as_u64().unwrap();
    cluster.ask(&signed(&cluster, now)).expect(200);
    let status = kvdb_cluster(&cluster, &[]).1;
    assert!(status.contains("draining") && status.contains("VOLUME"), "{status}");
}

/// An order of this time, signed.
fn signed(cluster: &kvdb_tests::Cluster, at: u64) -> Request {
    use kvdb_protocol::operator::{Asked, NO_VOLUME, Order, path};
    use kvdb_protocol::secret::{PEER_HEADER, PeerCall};
    let secret = kvdb_protocol::ClusterSecret::new(&std::fs::read_to_string(cluster.db_dir().join("secret")).unwrap()).unwrap();
    let ask = Order::Drain { volume: id(cluster, 0).parse().unwrap() };
    let body = serde_json::to_vec(&Asked { at: kvdb_protocol::UnixMillis(at), ask }).unwrap();
    let of = serde_json::from_value(cluster.status()["cluster"].clone()).unwrap();
    let call = PeerCall { cluster: of, volume: NO_VOLUME, method: "POST", target: path::ORDER, body: Some(&body) };
    let signature = secret.peer_key().sign(&call);
    Request::post(path::ORDER, body).header(PEER_HEADER, &signature)
}
