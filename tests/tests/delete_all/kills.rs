//! Volumes that are down, kills, and a catalog that is lost: what was deleted stays deleted.

use crate::{count, fill, page};
use kvdb_tests::process::program;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use std::process::Command;
use std::time::Duration;

#[test]
fn with_all_volumes_down_keys_are_deleted_and_the_space_comes_back_with_them() {
    let mut cluster = Cluster::start(2);
    (0..5).for_each(|i| drop(cluster.put(&format!("/a/{i}"), &value(100_000, i))));
    cluster.put("/b", &value(100_000, 9));
    (0..2).for_each(|i| cluster.kill_volume(i));
    cluster.wait_up(0);
    assert_eq!(page(&cluster, "/a/?delete-all")["deleted"], 5);
    assert_eq!(count(&cluster, ""), 1);
    (0..2).for_each(|i| cluster.start_volume(i));
    cluster.wait_all_up();
    for i in 0..2 {
        eventually("the files are gone", || (cluster.blob_files(i).len() == 1).then_some(()));
    }
    assert!(cluster.value("/b") == value(100_000, 9));
    until_settled(&cluster);
}

#[test]
fn a_kill_of_the_master_leaves_whole_pages_and_the_next_ones_go_on() {
    let mut cluster = Cluster::start(2);
    for round in 0..3_u64 {
        fill(&cluster, (0..500).map(|i| format!("a/{i:03}")));
        let address = cluster.master_addr();
        let deleting = std::thread::spawn(move || {
            let (mut start, mut deleted) = (String::new(), 0);
            loop {
                let request = Request::post(&format!("/a/?delete-all&limit=50&start={start}"), "");
                let Ok(answer) = request.try_send(&address) else { return deleted };
                if answer.status != 200 {
                    return deleted;
                }
                deleted += answer.json()["deleted"].as_u64().unwrap();
                start = answer.json()["next"].as_str().unwrap().to_string();
                if start.is_empty() {
                    return deleted;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(5 + 10 * round));
        cluster.kill_and_start(0);
        let told = deleting.join().unwrap();
        cluster.wait_all_up();
        let left = count(&cluster, "a/") as u64;
        assert!(left.is_multiple_of(50) && left <= 500 - told, "{left} are left, and {told} were deleted");
        assert_eq!(cluster.status()["keys"], left);
        assert_eq!(page(&cluster, "/a/?delete-all")["deleted"], left);
        assert_eq!(count(&cluster, "a/"), 0);
    }
    until_settled(&cluster);
}

#[test]
fn what_was_deleted_stays_deleted_in_a_rebuilt_catalog() {
    let mut cluster = Cluster::start(2);
    for i in 0..4 {
        cluster.put(&format!("/a/{i}"), &value(if i % 2 == 0 { 10 } else { 100_000 }, i));
    }
    cluster.put("/b", b"stays");
    // The one that is down has its copies still when it comes back.
    cluster.kill_volume(1);
    cluster.wait_up(1);
    assert_eq!(page(&cluster, "/a/?delete-all")["deleted"], 4);
    // The volume that is up was told.
    until_settled(&cluster);
    cluster.stop_master();
    cluster.start_volume(1);
    std::fs::remove_dir_all(cluster.db_dir()).unwrap();
    let secret = cluster.volume_dir(0).join("secret");
    let db = cluster.db_dir();
    let volumes = format!("{},{}", cluster.volume_addr(0), cluster.volume_addr(1));
    let args = ["rebuild", &volumes, db.to_str().unwrap(), "--secret-file", secret.to_str().unwrap()];
    eventually("the catalog is rebuilt", || {
        let output = Command::new(program("kvdb")).args(args).output().unwrap();
        output.status.success().then_some(())
    });
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(count(&cluster, ""), 1);
    (0..4).for_each(|i| drop(cluster.get(&format!("/a/{i}")).expect_problem(404, "not_found")));
    assert_eq!(cluster.value("/b"), b"stays");
    until_settled(&cluster);
}
