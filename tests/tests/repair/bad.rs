//! Copies that are bad or missing.

use super::{builder, check, check_copies, fill, until_on};
use kvdb_tests::settled::until_settled;
use std::path::Path;
use std::process::Command;

fn copy_dir(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_volume_whose_directory_is_an_older_one_gets_what_it_lacks() {
    let mut cluster = builder(2).start();
    let mut values = fill(&cluster, 8);
    let ids = [super::id(&cluster, 0), super::id(&cluster, 1)];
    cluster.stop_volume(0);
    let (dir, old) = (cluster.volume_dir(0), cluster.dir().join("older"));
    copy_dir(&dir, &old);
    cluster.start_volume(0);
    cluster.wait_all_up();
    for i in 100..112 {
        let (target, bytes) = (format!("/later-{i}"), kvdb_tests::values::value(200_000, i));
        cluster.put(&target, &bytes);
        values.insert(target, bytes);
    }
    cluster.kill_volume(0);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::rename(&old, &dir).unwrap();
    cluster.start_volume(0);
    cluster.wait_all_up();
    kvdb_tests::eventually("what was missing was copied", || (cluster.status()["repair"]["copied"]["values"] == 12).then_some(()));
    until_on(&cluster, &ids, 2);
    until_settled(&cluster);
    check_copies(&cluster, &values, 2);
    cluster.kill_volume(1);
    cluster.wait_up(1);
    check(&cluster, &values);
}
