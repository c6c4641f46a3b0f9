//! Values keep their replicas: after a volume was lost, while one is drained, when a copy is bad.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod availability;
mod bad;
mod balance;
mod change;
mod lost;

use kvdb_tests::process::program;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Builder, Cluster, Request, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// In the index, and in files of one and of several subtrees.
const LENGTHS: [usize; 4] = [16, 70_000, 300_000, 1_500_000];

/// A cluster whose master gives up on a volume soon, and keeps to short tickets.
fn builder(volumes: usize) -> Builder {
    Cluster::builder(volumes).master_args(["--repair-after", "1", "--start-seconds", "2", "--commit-seconds", "3"])
}

/// Stores `n` values of all lengths.
fn fill(cluster: &Cluster, n: u64) -> BTreeMap<String, Vec<u8>> {
    let one = |i: u64| {
        let (target, bytes) = (format!("/key-{i:04}"), value(LENGTHS[i as usize % LENGTHS.len()], i));
        cluster.put(&target, &bytes);
        (target, bytes)
    };
    (0..n).map(one).collect()
}

/// All values are whole, read in the ordinary way.
#[track_caller]
fn check(cluster: &Cluster, values: &BTreeMap<String, Vec<u8>>) {
    for (target, bytes) in values {
        assert_same(&cluster.value(target), bytes, target);
    }
}

/// Each volume that is up has a good copy of each value that the catalog says it has.
#[track_caller]
fn check_copies(cluster: &Cluster, values: &BTreeMap<String, Vec<u8>>, replicas: usize) {
    for (target, bytes) in values {
        let copies = cluster.copies(target);
        let good = copies.iter().filter(|c| c.status == 200).inspect(|c| assert_same(&c.body, bytes, target)).count();
        assert_eq!(good, replicas, "{target}");
    }
}

fn id(cluster: &Cluster, volume: usize) -> String {
    let status = cluster.status();
    let listed = status["volumes"].as_array().unwrap().iter().find(|v| v["address"] == cluster.volume_addr(volume));
    listed.unwrap()["id"].as_str().unwrap().to_string()
}

fn records(cluster: &Cluster) -> Vec<Value> {
    let page = cluster.ask(&Request::get("/?list&detail&limit=10000")).expect(200).json();
    page["keys"].as_array().unwrap().clone()
}

/// Waits until each record names `replicas` volumes, all of these, and repair has nothing more to do.
#[track_caller]
fn until_on(cluster: &Cluster, volumes: &[String], replicas: usize) {
    eventually(&format!("all values have {replicas} replicas on {volumes:?}"), || {
        let done = records(cluster).iter().all(|r| {
            let named = r["replicas"].as_array().unwrap();
            named.len() == replicas && named.iter().all(|v| volumes.iter().any(|w| v == w.as_str()))
        });
        let repair = &cluster.status()["repair"];
        (done && repair["remaining"]["values"] == 0 && repair["bad_copies"] == 0).then_some(())
    });
}

/// `kvdb cluster …` with the cluster's secret: whether it succeeded, and what it said.
fn kvdb_cluster(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(program("kvdb"));
    command.args(["--master", &cluster.url(), "cluster"]).args(args);
    if !matches!(args.first(), None | Some(&"status" | &"--json")) {
        command.arg("--secret-file").arg(cluster.db_dir().join("secret"));
    }
    let ended = command.output().unwrap();
    (ended.status.success(), format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr)))
}

#[track_caller]
fn order(cluster: &Cluster, args: &[&str]) -> String {
    let (done, said) = kvdb_cluster(cluster, args);
    assert!(done, "kvdb cluster {args:?}: {said}");
    said
}
