//! `kvdb rebuild`: the master's catalog, lost and made again from the volumes.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use kvdb_tests::process::{program, run_to_end};
use kvdb_tests::values::{SIZES, value};
use kvdb_tests::{Cluster, Request};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

mod batches;
mod in_doubt;

fn rebuild_into(db: &Path, cluster: &Cluster, volumes: &[usize], args: &[&str]) -> Command {
    let list: Vec<String> = volumes.iter().map(|i| cluster.volume_addr(*i)).collect();
    let mut command = Command::new(program("kvdb"));
    command.env_remove("KVDB_SECRET").env_remove("KVDB_SECRET_FILE");
    command.arg("rebuild").arg(list.join(",")).arg(db).args(args);
    command
}

/// A rebuild of the cluster's catalog with the right secret.
fn rebuild(cluster: &Cluster, volumes: &[usize], args: &[&str]) -> Command {
    rebuild_into(&cluster.db_dir(), cluster, volumes, &[&["--json", "--secret-file", &secret_of(cluster)], args].concat())
}

/// Stops the master and removes its directory.
fn lose_catalog(cluster: &mut Cluster) {
    cluster.stop_master();
    fs::remove_dir_all(cluster.db_dir()).unwrap();
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
    lose_catalog(&mut cluster);

    let dry = summary(rebuild(&cluster, &[0, 1, 2], &["--dry-run"]));
    assert!(!cluster.db_dir().exists(), "a dry run wrote something");
    let done = summary(rebuild(&cluster, &[0, 1, 2], &[]));
    assert_eq!(dry["keys"], keys);
    for name in ["keys", "bytes", "tombstones", "uncertain_kept", "uncertain_dropped", "under_replicated", "conflicts", "surplus"] {
        assert_eq!(dry[name], done[name], "{name}");
    }
    assert_eq!((&done["under_replicated"], &done["conflicts"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(done["tombstones"], SIZES.len());
    let kept = cluster.db_dir().join("secret");
    assert_eq!(fs::read(&kept).unwrap(), fs::read(secret_of(&cluster)).unwrap());
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);

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
    // The volume that goes down has noted that it was committed.
    kvdb_tests::settled::until_settled(&cluster);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    cluster.follow(&Request::delete("/deleted")).expect(200);
    lose_catalog(&mut cluster);
    cluster.start_volume(1);
    assert_eq!(summary(rebuild(&cluster, &[0, 1], &[]))["keys"], 1);
    cluster.start_master();
    cluster.wait_all_up();
    cluster.get("/deleted").expect_problem(404, "not_found");
    assert_eq!(cluster.value("/kept"), b"kept");
    kvdb_tests::eventually("the copy that came back is removed", || cluster.blob_files(1).is_empty().then_some(()));
}

#[track_caller]
fn refused(command: Command, why: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let (status, text) = run_to_end(command, scratch.path());
    assert!(!status.success() && text.contains(why), "{why:?} was expected: {status}: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_master_that_runs_is_no_hindrance_to_a_dry_run_but_to_a_rebuild() {
    let cluster = Cluster::start(2);
    cluster.put("/key", b"value").expect(201);
    let db = cluster.dir().join("new");
    let secret = secret_of(&cluster);
    let dry = summary(rebuild_into(&db, &cluster, &[0, 1], &["--json", "--dry-run", "--secret-file", &secret]));
    assert_eq!((&dry["keys"], &dry["bytes"]), (&1.into(), &5.into()));
    refused(rebuild_into(&db, &cluster, &[0, 1], &["--secret-file", &secret]), "a master is in touch");
    assert!(!db.exists(), "a refused rebuild wrote something");
}

#[test]
fn a_rebuild_that_cannot_be_right_is_refused() {
    let mut cluster = Cluster::start(2);
    cluster.put("/key", b"value").expect(201);
    cluster.stop_master();
    refused(rebuild(&cluster, &[0, 1], &[]), "not empty");
    fs::remove_dir_all(cluster.db_dir()).unwrap();
    let db = cluster.db_dir();
    refused(rebuild_into(&db, &cluster, &[0, 1], &[]), "the file `secret` in its directory and in that of any volume");
    let wrong = rebuild_into(&db, &cluster, &[0, 1], &["--secret", "0123456789abcdef0123"]);
    refused(wrong, &format!("the volume at {} does not accept this secret", cluster.volume_addr(0)));
    refused(rebuild(&cluster, &[0, 0], &[]), "list it once");
    let other = Cluster::start(1);
    let mut mixed = Command::new(program("kvdb"));
    let list = format!("{},{}", cluster.volume_addr(0), other.volume_addr(0));
    mixed.arg("rebuild").arg(list).arg(&db).args(["--secret-file", &secret_of(&cluster)]);
    refused(mixed, &format!("{} belongs to cluster", other.volume_addr(0)));
    cluster.kill_volume(1);
    refused(rebuild(&cluster, &[0, 1], &[]), &format!("the volume at {} cannot be asked", cluster.volume_addr(1)));
    assert!(!db.exists(), "a refused rebuild wrote something");
}

#[test]
fn a_rebuild_without_a_volume_that_is_gone_for_good_has_what_the_others_hold() {
    let mut cluster = Cluster::start(3);
    for i in 0..20 {
        cluster.put(&format!("/{i}"), &value(1000, i)).expect(201);
    }
    let spread = (0..20).map(|i| cluster.copies(&format!("/{i}"))).filter(|c| c[2].status == 200).count();
    cluster.kill_volume(2);
    lose_catalog(&mut cluster);
    let done = summary(rebuild(&cluster, &[0, 1], &[]));
    assert_eq!((&done["keys"], &done["under_replicated"]), (&20.into(), &spread.into()), "{done}");
    cluster.list_addresses(&[cluster.volume_addr(0), cluster.volume_addr(1)]);
    cluster.start_master();
    cluster.wait_up(2);
    for i in 0..20 {
        assert!(cluster.value(&format!("/{i}")) == value(1000, i), "{i}");
    }
}

#[test]
fn the_summary_is_text_where_no_json_is_asked_for() {
    let mut cluster = Cluster::start(2);
    cluster.put("/key", b"value").expect(201);
    lose_catalog(&mut cluster);
    let output = rebuild_into(&cluster.db_dir(), &cluster, &[0, 1], &["--secret-file", &secret_of(&cluster)]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_string).collect::<Vec<_>>();
    let found: Vec<Vec<String>> = text.lines().take(2).map(words).collect();
    assert_eq!(found, [["keys", "1"], ["bytes", "5"]], "{text}");
    assert!(text.contains("start the master with it"), "{text}");
}
