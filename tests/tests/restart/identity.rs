//! Whose directory it is: moved, foreign, doubled, or of another kind.

use crate::Acknowledged;
use kvdb_tests::process::{Server, program, run_to_end};
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request, eventually};
use std::path::{Path, PathBuf};

/// Starts a program on a directory where it must not start; gives what it says.
#[track_caller]
fn refused(name: &str, args: &[&str], scratch: &Path) -> String {
    let args = args.iter().map(ToString::to_string).collect();
    let (status, said) = run_to_end(Server::new("second", program(name), "127.0.0.1", args, Vec::new(), scratch).command(), scratch);
    assert!(!status.success(), "{name} ended with {status}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_volumes_directory_can_move_to_another_port() {
    let (mut cluster, mut acknowledged) = (Cluster::start(2), Acknowledged::default());
    acknowledged.write(&cluster);
    let before = cluster.volume_addr(0);
    cluster.stop_volume(0);
    cluster.volume(0).forget_port();
    cluster.start_volume(0);
    assert_ne!(cluster.volume_addr(0), before);
    cluster.stop_master();
    cluster.list_volumes();
    cluster.start_master();
    cluster.wait_all_up();
    // Only the one that moved is there to answer.
    cluster.kill_volume(1);
    cluster.wait_up(1);
    acknowledged.check(&cluster);
}

#[test]
fn two_volumes_can_exchange_their_ports() {
    let (mut cluster, mut acknowledged) = (Cluster::builder(2).master_args(["--replicas", "1"]).start(), Acknowledged::default());
    acknowledged.write(&cluster);
    acknowledged.write(&cluster);
    for i in 0..2 {
        cluster.stop_volume(i);
    }
    for i in 0..2 {
        let dir = cluster.volume_dir(1 - i);
        cluster.volume(i).set_args(vec![text(&dir).into()]);
    }
    for i in 0..2 {
        cluster.start_volume(i);
    }
    // The master was not even restarted.
    cluster.wait_all_up();
    acknowledged.check(&cluster);
}

#[test]
fn a_volume_of_another_cluster_is_not_taken_and_not_touched() {
    let (mut ours, mut theirs) = (Cluster::start(1), Cluster::start(1));
    theirs.put("/theirs", b"theirs");
    theirs.stop_master();
    ours.stop_master();
    ours.list_addresses(&[ours.volume_addr(0), theirs.volume_addr(0)]);
    ours.start_master();
    ours.wait_up(1);
    let foreign = theirs.volume_addr(0);
    let said = eventually("the master says why", || {
        let status = ours.status();
        let listed = status["volumes"].as_array()?.iter().find(|v| v["address"] == foreign.as_str())?.clone();
        listed["error"].as_str().filter(|e| e.contains("cluster")).map(str::to_string)
    });
    assert!(said.contains("another cluster"), "{said}");
    assert!(ours.master_log().contains("another cluster"), "it is in the log, too");
    theirs.start_master();
    theirs.wait_all_up();
    assert_eq!(theirs.value("/theirs"), b"theirs");
}

#[test]
fn a_master_with_an_empty_directory_does_not_take_over_the_volumes_of_another() {
    let mut cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    cluster.stop_master();
    let db = cluster.db_dir();
    let aside = cluster.dir().join("db-aside");
    std::fs::rename(&db, &aside).unwrap();
    cluster.start_master();
    eventually("it says so", || cluster.master_log().contains("another cluster").then_some(()));
    cluster.ask(&Request::get("/-/health/ready")).expect_problem(503, "unavailable");
    cluster.follow(&Request::put("/k", "x")).expect_problem(503, "no_volumes");
    cluster.stop_master();
    std::fs::remove_dir_all(&db).unwrap();
    std::fs::rename(&aside, &db).unwrap();
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(cluster.value("/k"), b"v");
}

#[test]
fn a_second_process_on_a_directory_ends_with_a_clear_message() {
    let cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    for (name, args) in [("volume", vec![cluster.volume_dir(0)]), ("master", vec!["localhost:1".into(), cluster.db_dir()])] {
        let args: Vec<&str> = args.iter().map(|a| text(a)).collect();
        let said = refused(name, &args, cluster.dir());
        assert!(said.contains(args.last().unwrap()), "it names the directory: {said}");
        assert!(said.contains("in use by another"), "it says that another process uses it: {said}");
    }
    cluster.put("/k2", b"v2");
    assert_eq!(cluster.value("/k"), b"v");
}

#[test]
fn a_volume_listed_twice_is_used_once() {
    let mut cluster = Cluster::start(1);
    let port = cluster.volume_addr(0).rsplit_once(':').unwrap().1.to_string();
    let ip = cluster.volume_addr(0).rsplit_once(':').unwrap().0.to_string();
    cluster.stop_master();
    // Two names of one address.
    cluster.list_addresses(&[format!("{ip}:{port}"), format!("[::ffff:{ip}]:{port}")]);
    cluster.start_master();
    cluster.wait_up(1);
    eventually("it says so", || cluster.master_log().contains("list it once").then_some(()));
    let answer = cluster.follow(&Request::put("/k", "v"));
    answer.expect_problem(503, "no_volumes");
}

#[test]
fn a_volume_does_not_start_in_a_directory_of_something_else_and_leaves_it_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let (foreign, letter) = foreign_directory(scratch.path());
    assert!(refused("volume", &[text(&foreign)], scratch.path()).contains(text(&foreign)));
    assert!(refused("volume", &[text(&letter)], scratch.path()).contains(text(&letter)));
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "it left something");
    assert_eq!(std::fs::read(&letter).unwrap(), b"dear");
}

#[test]
fn a_master_does_not_start_in_a_directory_of_something_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (foreign, letter) = foreign_directory(scratch.path());
    assert!(refused("master", &["localhost:1", text(&letter)], scratch.path()).contains(text(&letter)));
    assert!(refused("master", &["localhost:1", text(&foreign)], scratch.path()).contains(text(&foreign)));
    assert!(!foreign.join("db").exists(), "it made a database there");
    assert_eq!(std::fs::read(&letter).unwrap(), b"dear");
}

fn foreign_directory(scratch: &Path) -> (PathBuf, PathBuf) {
    let foreign = scratch.join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let letter = foreign.join("letter.txt");
    std::fs::write(&letter, "dear").unwrap();
    (foreign, letter)
}

#[test]
fn a_volume_does_not_start_in_a_masters_directory() {
    let mut cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    cluster.stop_master();
    let db = cluster.db_dir();
    assert!(refused("volume", &[text(&db)], cluster.dir()).contains(text(&db)));
    cluster.start_master();
    cluster.wait_all_up();
    assert_eq!(cluster.value("/k"), b"v");
}

#[test]
fn a_master_does_not_start_in_a_volumes_directory() {
    let mut cluster = Cluster::start(1);
    cluster.put("/k", b"v");
    cluster.stop_volume(0);
    let dir = cluster.volume_dir(0);
    assert!(refused("master", &["localhost:1", text(&dir)], cluster.dir()).contains(text(&dir)));
    cluster.start_volume(0);
    cluster.wait_all_up();
    assert_eq!(cluster.value("/k"), b"v");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let mut cluster = Cluster::start(1);
    cluster.put("/k", &value(100_000, 1));
    cluster.stop_volume(0);
    let file = cluster.volume_dir(0).join("kvdb-volume.json");
    let old = std::fs::read_to_string(&file).unwrap();
    let mut identity: serde_json::Value = serde_json::from_str(&old).unwrap();
    identity["format"] = 99.into();
    identity["of the future"] = true.into();
    std::fs::write(&file, identity.to_string()).unwrap();
    let said = refused("volume", &[text(&cluster.volume_dir(0))], cluster.dir());
    assert!(said.contains("99") && said.contains("newer"), "{said}");
    std::fs::write(&file, old).unwrap();
    cluster.start_volume(0);
    cluster.wait_all_up();
    assert_eq!(cluster.value("/k"), value(100_000, 1));
}

#[test]
fn a_port_in_use_and_a_bad_list_are_said_clearly() {
    let cluster = Cluster::start(1);
    let (ip, port) = cluster.volume_addr(0).rsplit_once(':').map(|(i, p)| (i.to_string(), p.to_string())).unwrap();
    let dir = cluster.dir().join("other");
    let mut command = std::process::Command::new(program("volume"));
    command.arg(&dir).args(["--bind", &ip, "--port", &port]);
    let (status, said) = run_to_end(command, cluster.dir());
    assert!(!status.success() && said.contains(&port) && said.contains("in use"), "{said}");

    for list in ["no-port", "localhost:99999", "localhost:x", ":3001", "a:1,,b:2"] {
        let mut command = std::process::Command::new(program("master"));
        command.args([list, text(&cluster.dir().join("db2")), "--port", "0"]);
        let (status, said) = run_to_end(command, cluster.dir());
        assert!(!status.success() && said.contains("host:port"), "{list}: {said}");
    }
}

#[test]
fn beyond_loopback_a_server_wants_a_secret() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, args) in [("volume", vec!["dir"]), ("master", vec!["localhost:1", "db"])] {
        let mut command = std::process::Command::new(program(name));
        command.args(args).args(["--bind", "0.0.0.0", "--port", "0"]).current_dir(scratch.path());
        let (status, said) = run_to_end(command, scratch.path());
        assert!(!status.success() && said.contains("--insecure") && said.contains("secret"), "{name}: {said}");
    }
}
