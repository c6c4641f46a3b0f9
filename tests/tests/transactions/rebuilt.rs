//! The catalog lost and made again while a transaction is open, and after one was committed.

use crate::{KEYS, begin, commit, content, round_of, stage};
use kvdb_tests::Cluster;
use kvdb_tests::process::program;
use kvdb_tests::settled::until_settled;
use serde_json::Value;
use std::process::Command;

/// Stops the master, loses its directory, and makes it again from the volumes.
fn rebuild(cluster: &mut Cluster) -> Value {
    cluster.stop_master();
    std::fs::remove_dir_all(cluster.db_dir()).unwrap();
    let volumes = [cluster.volume_addr(0), cluster.volume_addr(1)].join(",");
    let mut command = Command::new(program("kvdb"));
    command.env_remove("KVDB_SECRET").env_remove("KVDB_SECRET_FILE").arg("rebuild").arg(volumes).arg(cluster.db_dir());
    let output = command.arg("--json").arg("--secret-file").arg(cluster.volume_dir(0).join("secret")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.start_master();
    cluster.wait_all_up();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fill(cluster: &Cluster, round: u64) -> String {
    let txn = begin(cluster);
    (0..KEYS).for_each(|i| drop(stage(cluster, &txn, &format!("/k{i}"), &content(round, i)).expect(202)));
    txn
}

#[test]
fn what_was_committed_comes_back_whole_and_nothing_of_what_was_open() {
    let mut cluster = Cluster::start(2);
    let open = fill(&cluster, 0);
    let found = rebuild(&mut cluster);
    assert_eq!((&found["keys"], &found["uncertain_kept"], &found["uncertain_dropped"]), (&0.into(), &0.into(), &KEYS.into()), "{found}");
    assert_eq!(round_of(&cluster, 1), None);
    cluster.ask(&commit(&open)).expect_problem(404, "no_such_transaction");
    until_settled(&cluster);

    let done = fill(&cluster, 1);
    cluster.ask(&commit(&done)).expect(200);
    let open = fill(&cluster, 2);
    let found = rebuild(&mut cluster);
    assert_eq!((&found["keys"], &found["uncertain_kept"], &found["uncertain_dropped"]), (&KEYS.into(), &0.into(), &KEYS.into()), "{found}");
    assert_eq!(round_of(&cluster, 3), Some(1));
    cluster.ask(&commit(&open)).expect_problem(404, "no_such_transaction");
    until_settled(&cluster);
    assert_eq!(round_of(&cluster, 3), Some(1));
}

#[test]
fn a_commit_that_one_volume_missed_is_whole_after_a_rebuild_once_it_was_in_touch_again() {
    let mut cluster = Cluster::start(2);
    let txn = fill(&cluster, 0);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    cluster.ask(&commit(&txn)).expect(200);
    cluster.start_volume(1);
    cluster.wait_all_up();
    until_settled(&cluster);
    let found = rebuild(&mut cluster);
    assert_eq!((&found["keys"], &found["uncertain_dropped"], &found["under_replicated"]), (&KEYS.into(), &0.into(), &0.into()), "{found}");
    assert_eq!(round_of(&cluster, 1), Some(0));
}
