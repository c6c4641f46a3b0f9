//! Expiry across restarts, a rebuild, and an export and import.

use crate::{expiry_of, now, sleep_until};
use kvdb_tests::process::program;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use std::fs;
use std::process::Command;

/// Loses the catalog of a master that is stopped, and makes it anew from the volumes; the master is started when `then` returns.
pub fn rebuild(cluster: &mut Cluster, then: impl FnOnce()) {
    let (db, secret) = (cluster.db_dir(), cluster.volume_dir(0).join("secret"));
    fs::remove_dir_all(&db).unwrap();
    let volumes: Vec<String> = (0..cluster.volume_count()).map(|i| cluster.volume_addr(i)).collect();
    kvdb(&["rebuild", &volumes.join(","), db.to_str().unwrap(), "--secret-file", secret.to_str().unwrap()]);
    then();
    cluster.start_master();
    cluster.wait_all_up();
}

fn kvdb(args: &[&str]) {
    let output = Command::new(program("kvdb")).env_remove("KVDB_SECRET").env_remove("KVDB_SECRET_FILE").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Three keys of each size: one that expires soon, one late, one never.
fn fill(cluster: &Cluster, soon: &str) {
    for (i, len) in [10, 100_000].into_iter().enumerate() {
        cluster.follow(&Request::put(&format!("/soon-{i}?ttl={soon}"), value(len, 1)).expect_continue()).expect(201);
        cluster.follow(&Request::put(&format!("/late-{i}?ttl=1h"), value(len, 2)).expect_continue()).expect(201);
        cluster.put(&format!("/never-{i}"), &value(len, 3)).expect(201);
    }
}

fn check_soon_is_gone(cluster: &Cluster, late: &[u64]) {
    for (i, len) in [10, 100_000].into_iter().enumerate() {
        cluster.get(&format!("/soon-{i}")).expect(404);
        assert_eq!(cluster.value(&format!("/late-{i}")), value(len, 2));
        assert_eq!(expiry_of(cluster, &format!("/late-{i}")), late[i]);
        let answer = cluster.get(&format!("/never-{i}")).expect(200);
        assert_eq!(answer.header("kvdb-expires"), None);
    }
    eventually("what has expired is removed", || {
        (cluster.status()["keys"].as_u64() == Some(4) && (0..2).all(|i| cluster.blob_files(i).len() == 2)).then_some(())
    });
}

#[test]
fn a_restart_or_a_crash_ends_no_life_early_and_none_late() {
    let mut cluster = Cluster::start(2);
    fill(&cluster, "6s");
    let (soon, late) = (expiry_of(&cluster, "/soon-1"), [0, 1].map(|i| expiry_of(&cluster, &format!("/late-{i}"))));
    cluster.stop_master();
    cluster.start_master();
    cluster.wait_all_up();
    cluster.kill_master();
    (0..2).for_each(|i| cluster.kill_volume(i));
    (0..2).for_each(|i| cluster.start_volume(i));
    cluster.start_master();
    cluster.wait_all_up();
    if now() + 200 < soon {
        assert_eq!(expiry_of(&cluster, "/soon-1"), soon);
        let answer = cluster.get("/soon-1");
        assert!(answer.status == 200 || now() >= soon, "{answer}");
    }
    sleep_until(soon);
    check_soon_is_gone(&cluster, &late);
}

#[test]
fn what_expires_while_the_catalog_is_lost_or_saved_is_absent_when_it_is_back() {
    for way in ["rebuild", "import"] {
        let mut cluster = Cluster::start(2);
        fill(&cluster, "3s");
        let (soon, late) = (expiry_of(&cluster, "/soon-1"), [0, 1].map(|i| expiry_of(&cluster, &format!("/late-{i}"))));
        if way == "rebuild" {
            cluster.stop_master();
            rebuild(&mut cluster, || sleep_until(soon));
        } else {
            let (db, secret) = (cluster.db_dir(), cluster.volume_dir(0).join("secret"));
            let (db, secret, saved) = (db.to_str().unwrap(), secret.to_str().unwrap(), cluster.dir().join("saved"));
            let saved = saved.to_str().unwrap();
            kvdb(&["--master", &cluster.url(), "catalog", "export", saved, "--secret-file", secret]);
            cluster.stop_master();
            fs::remove_dir_all(db).unwrap();
            kvdb(&["catalog", "import", saved, db, "--secret-file", secret]);
            sleep_until(soon);
            cluster.start_master();
            cluster.wait_all_up();
        }
        check_soon_is_gone(&cluster, &late);
    }
}

#[test]
fn a_version_that_the_expired_one_had_replaced_does_not_come_back() {
    let mut cluster = Cluster::builder(3).master_args(["--replicas", "1"]).start();
    cluster.put("/a", &value(100_000, 1)).expect(201);
    let holder = (0..3).find(|i| !cluster.blob_files(*i).is_empty()).unwrap();
    cluster.kill_volume(holder);
    cluster.wait_up(2);
    cluster.follow(&Request::put("/a?ttl=500ms", value(100_000, 2)).expect_continue()).expect(200);
    eventually("it is removed", || (cluster.status()["keys"].as_u64() == Some(0)).then_some(()));
    eventually("its space is back", || (0..3).all(|i| i == holder || cluster.blob_files(i).is_empty()).then_some(()));
    cluster.stop_master();
    cluster.start_volume(holder);
    rebuild(&mut cluster, || {});
    cluster.get("/a").expect(404);
}
