//! Transactions that are given up, or abandoned: nothing of them is ever seen, and the space comes back.

use crate::{begin, commit, keys, prepared, show, stage};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::json;

fn fill(cluster: &Cluster, txn: &str) {
    stage(cluster, txn, "/a", &value(300_000, 1)).expect(202);
    stage(cluster, txn, "/b", &value(300_000, 2)).expect(202);
    stage(cluster, txn, "/c", b"small").expect(202);
}

fn nothing_left(cluster: &Cluster) {
    for i in 0..2 {
        eventually("no copy is left", || cluster.blob_files(i).is_empty().then_some(()));
    }
    eventually("nothing is prepared", || (prepared(cluster) == 0).then_some(()));
    assert_eq!(keys(cluster), json!([]));
    until_settled(cluster);
}

#[test]
fn what_is_given_up_is_removed_at_once_and_by_a_volume_that_was_down_when_it_is_back() {
    let mut cluster = Cluster::start(2);
    for down in [false, true] {
        let txn = begin(&cluster);
        fill(&cluster, &txn);
        if down {
            cluster.kill_volume(1);
            cluster.wait_up(1);
        }
        cluster.ask(&crate::abort(&txn)).expect(200);
        eventually("the copies of the volume that is up are gone", || cluster.blob_files(0).is_empty().then_some(()));
        if down {
            cluster.kill_master();
            cluster.start_master();
            cluster.start_volume(1);
            cluster.wait_all_up();
        }
        nothing_left(&cluster);
    }
}

#[test]
fn an_abandoned_transaction_vanishes_at_its_time() {
    let mut cluster = Cluster::start(2);
    for everything_is_down in [false, true] {
        let begun = cluster.ask(&Request::post("/?txn&ttl=3s", "")).expect(201).json();
        let txn = begun["txn"].as_str().unwrap();
        fill(&cluster, txn);
        assert_eq!(cluster.status()["transactions"], 1);
        if everything_is_down {
            cluster.kill_master();
            (0..2).for_each(|i| cluster.kill_volume(i));
            (0..2).for_each(|i| cluster.start_volume(i));
            cluster.start_master();
            cluster.wait_all_up();
        }
        eventually("its time is over", || (cluster.ask(&show(txn)).status == 404).then_some(()));
        cluster.ask(&commit(txn)).expect_problem(404, "no_such_transaction");
        stage(&cluster, txn, "/d", b"late").expect_problem(404, "no_such_transaction");
        nothing_left(&cluster);
        eventually("its place is free", || (cluster.status()["transactions"] == 0).then_some(()));
    }
}
