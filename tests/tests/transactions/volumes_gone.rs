//! Volumes that are removed from the cluster while a transaction is open.

use crate::{begin, commit, stage};
use kvdb_tests::process::program;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Cluster, Request, eventually};
use serde_json::json;
use std::process::Command;

fn id(cluster: &Cluster, volume: usize) -> String {
    let status = cluster.status();
    let listed = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == cluster.volume_addr(volume));
    listed.unwrap()["id"].as_str().unwrap().to_string()
}

#[track_caller]
fn order(cluster: &Cluster, args: &[&str]) {
    let secret = cluster.db_dir().join("secret");
    let mut command = Command::new(program("kvdb"));
    let ended = command.args(["--master", &cluster.url(), "cluster"]).args(args).arg("--secret-file").arg(secret).output().unwrap();
    assert!(ended.status.success(), "kvdb cluster {args:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn a_value_all_of_whose_volumes_were_removed_is_named_at_the_commit_and_can_be_put_again() {
    let cluster = Cluster::builder(2).master_args(["--replicas", "1"]).start();
    let ids = [id(&cluster, 0), id(&cluster, 1)];
    let txn = begin(&cluster);
    let bytes = value(200_000, 1);
    order(&cluster, &["drain", &ids[1]]);
    stage(&cluster, &txn, "/a", &bytes).expect(202);
    order(&cluster, &["resume", &ids[1]]);
    order(&cluster, &["drain", &ids[0]]);
    stage(&cluster, &txn, "/b", &bytes).expect(202);
    order(&cluster, &["remove", &ids[0]]);
    let refused = cluster.ask(&commit(&txn)).expect_problem(409, "conflict");
    assert_eq!(refused.json()["keys"], json!(["a"]));
    cluster.get("/b").expect(404);
    stage(&cluster, &txn, "/a", &bytes).expect(202);
    cluster.ask(&commit(&txn)).expect(200);
    assert_same(&cluster.value("/a"), &bytes, "/a");
    assert_same(&cluster.value("/b"), &bytes, "/b");
}

#[test]
fn values_that_lost_one_volume_before_the_commit_get_another_after_it() {
    const VALUES: usize = 6;
    let mut cluster = Cluster::builder(3).master_args(["--replicas", "2"]).start();
    let lost = id(&cluster, 0);
    let txn = begin(&cluster);
    (0..VALUES).for_each(|i| drop(stage(&cluster, &txn, &format!("/v{i}"), &value(150_000, i as u64)).expect(202)));
    cluster.kill_volume(0);
    cluster.wait_up(2);
    order(&cluster, &["remove", &lost, "--lost"]);
    cluster.ask(&commit(&txn)).expect(200);
    eventually("all values have two replicas again", || {
        let page = cluster.ask(&Request::get("/?list&detail")).expect(200).json();
        let whole = |k: &serde_json::Value| {
            let named = k["replicas"].as_array().unwrap();
            named.len() == 2 && named.iter().all(|v| v != lost.as_str())
        };
        page["keys"].as_array().unwrap().iter().all(whole).then_some(())
    });
    for i in 0..VALUES {
        let copies = cluster.copies(&format!("/v{i}"));
        assert_eq!(
            copies.iter().filter(|c| c.status == 200).inspect(|c| assert_same(&c.body, &value(150_000, i as u64), "a copy")).count(),
            2
        );
    }
    until_settled(&cluster);
}
