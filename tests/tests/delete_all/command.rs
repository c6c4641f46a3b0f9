//! The command line: `kvdb rm --prefix` and `--all`.

use crate::{count, fill};
use kvdb_tests::Cluster;
use kvdb_tests::process::program;
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

fn kvdb(cluster: &Cluster, args: &[&str]) -> Output {
    Command::new(program("kvdb")).args(["--master", &cluster.url()]).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_prefix_is_deleted_if_it_is_meant() {
    let cluster = Cluster::start(1);
    fill(&cluster, (0..1_200).map(|i| format!("a/{i}")).chain(["b".into(), "c".into()]));
    for doubtful in [&["rm", "--prefix", "a/"][..], &["rm", "--all"], &["rm", "--prefix", "", "--yes"], &["rm"], &["rm", "b", "--all"]] {
        let output = kvdb(&cluster, doubtful);
        assert!(!output.status.success(), "{doubtful:?}");
        assert_eq!(count(&cluster, ""), 1_202);
    }
    let output = kvdb(&cluster, &["--json", "rm", "--prefix", "a/", "--yes"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!({"deleted": 1200, "bytes": 1200, "complete": true}));
    assert_eq!((count(&cluster, "a/"), count(&cluster, "")), (0, 2));
    let output = kvdb(&cluster, &["rm", "--all", "-y"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("deleted 2 keys (2 B)"), "{output:?}");
    assert_eq!(count(&cluster, ""), 0);
}

#[test]
fn what_is_not_done_is_said_and_the_same_command_goes_on() {
    let mut cluster = Cluster::start(1);
    fill(&cluster, (0..3).map(|i| format!("a/{i}")));
    cluster.kill_master();
    let output = kvdb(&cluster, &["--retries", "0", "rm", "--prefix", "a/", "--yes"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("run the same command again"), "{output:?}");
    cluster.start_master();
    cluster.wait_all_up();
    assert!(kvdb(&cluster, &["rm", "--prefix", "a/", "--yes"]).status.success());
    assert_eq!(count(&cluster, ""), 0);
}
