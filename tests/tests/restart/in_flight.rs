//! Writes that are under way while a process ends.

use kvdb_tests::cluster::files_below;
use kvdb_tests::values::{assert_same, value};
use kvdb_tests::{Answer, Cluster, Connection, Request, Url, eventually};

const LEN: usize = 200_000;
/// Large enough to go to its file as it comes.
const LARGE: usize = 1_100_000;

/// A cluster whose tickets are soon over, so that what a crash left is soon settled.
fn hasty(volumes: usize) -> Cluster {
    Cluster::builder(volumes).master_args(["--start-seconds", "1", "--commit-seconds", "1"]).start()
}

/// Begins a write of [`LEN`] bytes and sends half of it; the volume has asked for the body, so its whole chain is open.
#[track_caller]
fn begin(url: &Url, bytes: &[u8]) -> Connection {
    let mut connection = Connection::open(&url.address);
    connection.send(format!("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {LEN}\r\nExpect: 100-continue\r\n\r\n", url.target));
    assert_eq!(connection.read_head().unwrap().status, 100);
    connection.send(&bytes[..LEN / 2]);
    connection
}

/// Waits until every volume holds only the copies of committed values, `files` of them.
#[track_caller]
fn check_settled(cluster: &Cluster, files: usize) {
    for i in 0..cluster.volume_count() {
        eventually("only committed copies are left", || {
            let unfinished = files_below(&cluster.volume_dir(i).join("tmp"));
            (cluster.blob_files(i).len() == files && unfinished.is_empty()).then_some(())
        });
    }
    eventually("nothing is in doubt", || {
        let status = cluster.status();
        let volumes = status["volumes"].as_array()?.clone();
        volumes.iter().all(|v| v["status"]["prepared"] == 0).then_some(())
    });
}

fn volume_at(cluster: &Cluster, url: &Url) -> usize {
    (0..cluster.volume_count()).find(|i| cluster.volume_addr(*i) == url.address).unwrap()
}

#[test]
fn a_volume_that_is_stopped_ends_the_writes_it_has_begun() {
    let mut cluster = Cluster::start(2);
    let bytes = value(LEN, 1);
    let url = cluster.write_url("/k", LEN);
    let mut connection = begin(&url, &bytes);
    let i = volume_at(&cluster, &url);
    cluster.volume(i).signal(rustix::process::Signal::TERM);
    eventually("it accepts no more", || Connection::try_open(&url.address).is_err().then_some(()));
    connection.send(&bytes[LEN / 2..]);
    connection.answer().expect(201);
    let status = eventually("it has stopped", || cluster.volume(i).exit_status());
    assert!(status.success(), "{status}");
    cluster.kill_volume(i);
    cluster.start_volume(i);
    cluster.wait_all_up();
    assert_same(&cluster.value("/k"), &bytes, "/k");
}

#[test]
fn a_write_whose_first_volume_is_killed_leaves_the_old_value_and_no_rest() {
    let mut cluster = hasty(2);
    cluster.put("/k", &value(LEN, 1));
    let url = cluster.write_url("/k", LEN);
    let mut connection = begin(&url, &value(LEN, 2));
    let i = volume_at(&cluster, &url);
    cluster.kill_volume(i);
    assert!(connection.try_answer().is_err(), "nobody is there to answer");
    cluster.start_volume(i);
    cluster.wait_all_up();
    assert_same(&cluster.value("/k"), &value(LEN, 1), "/k");
    check_settled(&cluster, 1);
}

#[test]
fn a_write_whose_second_volume_is_killed_fails_and_leaves_the_old_value_and_no_rest() {
    let mut cluster = hasty(2);
    cluster.put("/k", &value(LEN, 1));
    let url = cluster.write_url("/k", LEN);
    let mut connection = begin(&url, &value(LEN, 2));
    let second = 1 - volume_at(&cluster, &url);
    cluster.kill_volume(second);
    // Sending fails where the answer has come before.
    connection.try_send(&value(LEN, 2)[LEN / 2..]).ok();
    let answer = connection.answer();
    assert!(answer.status >= 500, "{answer}");
    assert_eq!(answer.json()["retry"], true, "{answer}");
    assert_same(&cluster.value("/k"), &value(LEN, 1), "/k");
    cluster.start_volume(second);
    cluster.wait_all_up();
    check_settled(&cluster, 1);
    assert_same(&cluster.value("/k"), &value(LEN, 1), "/k");
}

#[test]
fn a_relayed_write_whose_volume_is_killed_fails_and_leaves_the_old_value() {
    let mut cluster = hasty(1);
    cluster.put("/k", &value(LARGE, 1));
    let mut connection = Connection::open(&cluster.master_addr());
    connection.send(format!("PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n"));
    connection.send(&value(LARGE, 2)[..LARGE / 2]);
    eventually("the volume takes it", || (!files_below(&cluster.volume_dir(0).join("tmp")).is_empty()).then_some(()));
    cluster.kill_volume(0);
    connection.try_send(&value(LARGE, 2)[LARGE / 2..]).ok();
    let answer = connection.answer();
    assert!(answer.status >= 500, "{answer}");
    cluster.start_volume(0);
    cluster.wait_all_up();
    assert_same(&cluster.value("/k"), &value(LARGE, 1), "/k");
    check_settled(&cluster, 1);
}

/// Sends the rest of a body while the master is down, and has the master back after that.
fn commit_without_master(cluster: &mut Cluster, target: &str) -> Answer {
    let bytes = value(LEN, 2);
    let url = cluster.write_url(target, LEN);
    let mut connection = begin(&url, &bytes);
    cluster.kill_master();
    connection.send(&bytes[LEN / 2..]);
    cluster.start_master();
    connection.answer()
}

#[test]
fn a_commit_waits_for_a_master_that_is_soon_back() {
    let mut cluster = Cluster::start(2);
    cluster.put("/k", &value(LEN, 1));
    let answer = commit_without_master(&mut cluster, "/k");
    cluster.wait_all_up();
    // How soon it is back decides which of the two it is, and either is told truly.
    let expected = if answer.status == 200 { value(LEN, 2) } else { value(LEN, 1) };
    assert!(matches!(answer.status, 200 | 503), "{answer}");
    assert_same(&cluster.value("/k"), &expected, "/k");
}

#[test]
fn a_commit_without_a_master_fails_and_leaves_no_rest() {
    let mut cluster = hasty(2);
    cluster.put("/k", &value(LEN, 1));
    let url = cluster.write_url("/k", LEN);
    let mut connection = begin(&url, &value(LEN, 2));
    cluster.kill_master();
    connection.send(&value(LEN, 2)[LEN / 2..]);
    let answer = connection.answer();
    assert!(matches!(answer.status, 503 | 504), "{answer}");
    assert_eq!(answer.json()["retry"], true, "{answer}");
    cluster.start_master();
    cluster.wait_all_up();
    assert_same(&cluster.value("/k"), &value(LEN, 1), "/k");
    check_settled(&cluster, 1);
    assert_same(&cluster.value("/k"), &value(LEN, 1), "/k");
}

#[test]
fn all_killed_in_the_middle_of_writes_leaves_only_committed_values() {
    let mut cluster = hasty(2);
    cluster.put("/k0", &value(LEN, 1));
    let _open: Vec<Connection> = (0..4).map(|i| begin(&cluster.write_url(&format!("/k{i}"), LEN), &value(LEN, 2))).collect();
    cluster.kill_master();
    for i in 0..2 {
        cluster.kill_volume(i);
    }
    for i in 0..2 {
        cluster.start_volume(i);
    }
    cluster.start_master();
    cluster.wait_all_up();
    assert_same(&cluster.value("/k0"), &value(LEN, 1), "/k0");
    for i in 1..4 {
        cluster.follow(&Request::get(&format!("/k{i}"))).expect(404);
    }
    check_settled(&cluster, 1);
}

#[test]
fn a_ticket_used_once_more_after_its_volume_was_restarted_leaves_no_copy_of_what_was_replaced() {
    let mut cluster = Cluster::start(2);
    let url = cluster.write_url("/k", LEN);
    Request::put(&url.target, value(LEN, 1)).send(&url.address).expect(201);
    cluster.put("/k", &value(LEN, 2));
    check_settled(&cluster, 1);
    let i = volume_at(&cluster, &url);
    cluster.kill_volume(i);
    cluster.start_volume(i);
    cluster.wait_all_up();
    // The volume has forgotten the ticket; the master confirms the commit, as to a caller that lost the answer.
    Request::put(&url.target, value(LEN, 1)).send(&url.address);
    assert_same(&cluster.value("/k"), &value(LEN, 2), "/k");
    check_settled(&cluster, 1);
}
