//! `kvdb get`.

use crate::{LEN, World};
use kvdb_tests::process::program;
use kvdb_tests::values::assert_same;
use kvdb_tests::{Cluster, Way, eventually};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// What heads and chaining values take at most, and a subtree that was under way.
const OVERHEAD: u64 = 512 << 10;

fn kvdb(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(program("kvdb"));
    command.args(["--master", &cluster.url()]).args(args).current_dir(cluster.dir()).env_remove("http_proxy");
    command
}

#[track_caller]
fn done(output: &Output) -> &Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_get_that_is_killed_goes_on_where_it_was_and_fetches_only_the_rest() {
    let world = World::start();
    world.slow_down();
    let before = world.passed();
    let mut child = kvdb(&world.cluster, &["get", "big", "copy"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("a good part has come", || (world.passed() - before > 16 << 20).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!world.cluster.dir().join("copy").exists());
    world.all(kvdb_tests::Proxy::heal);
    world.all(kvdb_tests::Proxy::cut);
    let before = world.passed();
    let output = kvdb(&world.cluster, &["--json", "get", "big", "copy"]).output().unwrap();
    let told: Value = serde_json::from_slice(&done(&output).stdout).unwrap();
    let (fetched, kept) = (told["fetched"].as_u64().unwrap(), told["kept"].as_u64().unwrap());
    assert_eq!(fetched + kept, LEN as u64);
    assert!(kept > 8 << 20, "{told}");
    let passed = world.passed() - before;
    assert!(passed < fetched + OVERHEAD, "{passed} bytes came for {fetched}");
    assert_same(&std::fs::read(world.cluster.dir().join("copy")).unwrap(), &world.bytes, "copy");
    assert!(!world.cluster.dir().join("copy.kvdb-part").exists());
}

#[test]
fn what_was_received_is_told_of_when_a_get_fails_and_is_used_by_the_next() {
    let mut world = World::start();
    world.slow_down();
    let before = world.passed();
    let get = || kvdb(&world.cluster, &["--retries", "1", "--json", "get", "big", "copy"]);
    let child = get().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("a good part has come", || (world.passed() - before > 16 << 20).then_some(()));
    world.all(|p| p.refuse(true));
    world.all(kvdb_tests::Proxy::cut);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("copy.kvdb-part"), "{said}");
    world.all(kvdb_tests::Proxy::heal);
    let told: Value = serde_json::from_slice(&done(&get().output().unwrap()).stdout).unwrap();
    assert!(told["kept"].as_u64().unwrap() > 8 << 20, "{told}");
    assert_same(&std::fs::read(world.cluster.dir().join("copy")).unwrap(), &world.bytes, "copy");
    world.cluster.stop_master();
}

#[test]
fn standard_output_gets_the_value_in_order_and_no_flipped_bit() {
    let world = World::start();
    world.all(|p| p.flip(Way::Back, 3_000_000, 1));
    for parallel in ["2", "8"] {
        let output = kvdb(&world.cluster, &["get", "big", "--parallel", parallel]).output().unwrap();
        assert_same(&done(&output).stdout, &world.bytes, "standard output");
    }
    assert!(world.proxies.iter().map(kvdb_tests::Proxy::flipped).sum::<u64>() > 0, "nothing was tried");
}

#[test]
fn one_connection_brings_the_value_in_one_piece_and_others_share_it() {
    let world = World::start();
    for (parallel, connections) in [("1", 1..=1), ("6", 3..=9)] {
        let before: u64 = world.proxies.iter().map(kvdb_tests::Proxy::accepted).sum();
        done(&kvdb(&world.cluster, &["get", "big", "copy", "--parallel", parallel]).output().unwrap());
        let used = world.proxies.iter().map(kvdb_tests::Proxy::accepted).sum::<u64>() - before;
        assert!(connections.contains(&used), "{used} connections of {parallel}");
        assert_same(&std::fs::read(world.cluster.dir().join("copy")).unwrap(), &world.bytes, "copy");
    }
}

#[test]
fn exit_codes_and_usage_are_as_of_the_other_commands() {
    let cluster = Cluster::start(1);
    cluster.put("/small", b"v");
    done(&kvdb(&cluster, &["get", "small", "copy"]).output().unwrap());
    assert_eq!(std::fs::read(cluster.dir().join("copy")).unwrap(), b"v");
    for (args, code) in [
        (&["get", "none", "other"][..], 4),
        (&["get", "none"], 4),
        (&["get", "k", "--parallel", "0"], 2),
        (&["get", "k", "--parallel", "65"], 2),
    ] {
        assert_eq!(kvdb(&cluster, args).output().unwrap().status.code(), Some(code), "{args:?}");
    }
    assert!(!cluster.dir().join("other").exists());
}
