//! `kvdb rebuild`: the master's catalog, lost and made again from the volumes.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use kvdb_tests::process::{program, run_to_end};
use kvdb_tests::values::{SIZES, value};
use kvdb_tests::{Cluster, Request};
use serde_json::Value;
use std::fs;
use std::process::Command;

fn rebuild(cluster: &Cluster, volumes: &[usize], args: &[&str]) -> Command {
    let list: Vec<String> = volumes.iter().map(|i| cluster.volume_addr(*i)).collect();
    let mut command = Command::new(program("kvdb"));
    command.arg("rebuild").arg(list.join(",")).arg(cluster.db_dir()).arg("--json").args(args);
    command
}

fn secret_of(cluster: &Cluster) -> String {
    cluster.volume_dir(0).join("secret").display().to_string()
}

#[track_caller]
fn summary(mut command: Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All that the list tells of all keys.
fn listed(cluster: &Cluster) -> Value {
    cluster.ask(&Request::get("/?list&detail&limit=10000")).expect(200).json()
}

/// Values of all sizes, replaced and deleted ones, and keys that are not text.
fn fill(cluster: &Cluster) -> u64 {
    for (i, len) in SIZES.iter().enumerate() {
        cluster.put(&format!("/size/{len}"), &value(*len, i as u64)).expect(201);
        cluster.put(&format!("/replaced/{len}"), &value(*len, 50)).expect(201);
        cluster.put(&format!("/replaced/{len}"), &value(*len + 1, 51)).expect(200);
        cluster.put(&format!("/deleted/{len}"), &value(*len, 52)).expect(201);
        cluster.follow(&Request::delete(&format!("/deleted/{len}"))).expect(200);
    }
    cluster.follow(&Request::put("/%00%ff%25", "odd").header("content-type", "text/odd")).expect(201);
    2 * SIZES.len() as u64 + 1
}

fn check(cluster: &Cluster) {
    for (i, len) in SIZES.iter().enumerate() {
        assert!(cluster.value(&format!("/size/{len}")) == value(*len, i as u64), "size {len}");
        assert!(cluster.value(&format!("/replaced/{len}")) == value(*len + 1, 51), "replaced {len}");
        cluster.get(&format!("/deleted/{len}")).expect_problem(404, "not_found");
    }
    assert_eq!(cluster.get("/%00%ff%25").header("content-type"), Some("text/odd"));
}

#[test]
fn a_rebuilt_catalog_is_the_one_that_was_lost() {
    let mut cluster = Cluster::start(3);
    let keys = fill(&cluster);
    let before = listed(&cluster);
    cluster.stop_master();
    fs::remove_dir_all(cluster.db_dir()).unwrap();

    let secret = secret_of(&cluster);
    let dry = summary(rebuild(&cluster, &[0, 1, 2], &["--secret-file", &secret, "--dry-run"]));
    assert!(!cluster.db_dir().exists(), "a dry run wrote something");
    let done = summary(rebuild(&cluster, &[0, 1, 2], &["--secret-file", &secret]));
    assert_eq!(dry["keys"], keys);
    for name in ["keys", "bytes", "tombstones", "uncertain_kept", "uncertain_dropped", "under_replicated", "conflicts", "surplus"] {
        assert_eq!(dry[name], done[name], "{name}");
    }
    assert_eq!((&done["under_replicated"], &done["conflicts"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(done["tombstones"], SIZES.len());

    cluster.start_master();
    cluster.wait_all_up();
    assert!(listed(&cluster) == before, "{}\nis not\n{before}", listed(&cluster));
    check(&cluster);
    let newest = before["keys"].as_array().unwrap().iter().map(|k| k["version"].as_str().unwrap().to_string()).max().unwrap();
    let answer = cluster.put("/after", b"the rebuild").expect(201);
    assert!(answer.header("kvdb-version").unwrap() > newest.as_str(), "versions go on after the last one");
}

#[test]
fn what_was_deleted_while_a_volume_was_down_stays_deleted() {
    let mut cluster = Cluster::start(2);
    cluster.put("/kept", b"kept").expect(201);
    cluster.put("/deleted", &value(100_000, 1)).expect(201);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    cluster.follow(&Request::delete("/deleted")).expect(200);
    cluster.stop_master();
    fs::remove_dir_all(cluster.db_dir()).unwrap();
    cluster.start_volume(1);
    let secret = secret_of(&cluster);
    assert_eq!(summary(rebuild(&cluster, &[0, 1], &["--secret-file", &secret]))["keys"], 1);
    cluster.start_master();
    cluster.wait_all_up();
    cluster.get("/deleted").expect_problem(404, "not_found");
    assert_eq!(cluster.value("/kept"), b"kept");
    kvdb_tests::eventually("the copy that came back is removed", || cluster.blob_files(1).is_empty().then_some(()));
}

#[test]
fn a_rebuild_that_cannot_be_right_is_refused() {
    let mut cluster = Cluster::start(2);
    cluster.put("/key", b"value").expect(201);
    let secret = secret_of(&cluster);
    let scratch = tempfile::tempdir().unwrap();
    let refused = |command: Command, why: &str| {
        let (status, text) = run_to_end(command, scratch.path());
        assert!(!status.success() && text.contains(why), "{status}: {text}");
    };
    refused(rebuild(&cluster, &[0, 1], &["--secret-file", &secret]), "in use by another master");
    cluster.stop_master();
    refused(rebuild(&cluster, &[0, 1], &["--secret-file", &secret]), "not empty");
    fs::remove_dir_all(cluster.db_dir()).unwrap();
    refused(rebuild(&cluster, &[0, 1], &[]), "--secret-file");
    refused(rebuild(&cluster, &[0, 1], &["--secret", "0123456789abcdef0123"]), "secret");
    refused(rebuild(&cluster, &[0, 0], &["--secret-file", &secret]), "list it once");
    let other = Cluster::start(1);
    let mut mixed = Command::new(program("kvdb"));
    mixed
        .arg("rebuild")
        .arg(format!("{},{}", cluster.volume_addr(0), other.volume_addr(0)))
        .arg(cluster.db_dir())
        .args(["--secret-file", &secret]);
    refused(mixed, "belongs to cluster");
    cluster.kill_volume(1);
    refused(rebuild(&cluster, &[0, 1], &["--secret-file", &secret]), "without this volume");
    assert!(!cluster.db_dir().join("db").exists(), "a refused rebuild left a catalog");
}
