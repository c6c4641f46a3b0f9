//! `kvdb up` as a user starts and stops it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Three ports in a row that are free at this moment.
fn free_ports() -> (u16, [TcpListener; 3]) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let next = |i: u16| TcpListener::bind(("127.0.0.1", port.checked_add(i)?)).ok();
        if let (Some(second), Some(third)) = (next(1), next(2)) {
            return (port, [first, second, third]);
        }
    }
}

fn kvdb(port: u16, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvdb"));
    command.args(args).stdin(Stdio::null()).env_remove("PORT").env_remove("RUST_LOG");
    command.env("KVDB_MASTER", format!("127.0.0.1:{port}")).env("NO_PROXY", "*");
    command
}

/// A cluster that is killed when the test ends.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Up {
    /// Starts it, and waits for its word that it is ready.
    fn start(dir: &Path) -> (Self, u16) {
        // Somebody else may take a port between the check and the start: then it says so, and another is tried.
        for _ in 0..10 {
            let (port, held) = free_ports();
            drop(held);
            let args = ["up", dir.to_str().unwrap(), "--port", &port.to_string()];
            let mut child = kvdb(port, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let out = child.stdout.take().unwrap();
            let up = Self(child);
            if greeted(out) {
                return (up, port);
            }
        }
        panic!("it did not start");
    }
}

fn greeted(out: ChildStdout) -> bool {
    BufReader::new(out).lines().map_while(Result::ok).any(|l| l.contains("-X DELETE"))
}

fn terminate(up: &mut Up) -> Option<i32> {
    assert!(Command::new("kill").arg(up.0.id().to_string()).status().unwrap().success());
    up.0.wait().unwrap().code()
}

#[test]
fn what_was_stored_is_there_after_a_stop_and_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let (value, got, data) = (dir.path().join("value"), dir.path().join("got"), dir.path().join("new/data"));
    std::fs::write(&value, vec![7; 3_000_000]).unwrap();
    let (mut up, port) = Up::start(&data);
    assert!(kvdb(port, &["put", "-q", "--create", "k", value.to_str().unwrap()]).status().unwrap().success());
    assert_eq!(terminate(&mut up), Some(0), "it stops cleanly");

    let (_up, port) = Up::start(&data);
    assert!(kvdb(port, &["get", "k", got.to_str().unwrap()]).status().unwrap().success());
    assert!(std::fs::read(&got).unwrap() == std::fs::read(&value).unwrap());
    let again = kvdb(port, &["put", "--create", "k", value.to_str().unwrap()]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(again.code(), Some(1), "the key exists");
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_is_left_running() {
    let dir = tempfile::tempdir().unwrap();
    let (port, [first, second, _third]) = free_ports();
    drop((first, second));
    let args = ["up", dir.path().to_str().unwrap(), "--port", &port.to_string()];
    let out = kvdb(port, &args).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains(&format!("127.0.0.1:{}", port + 2)), "{:?}", out.stderr);
}

/// The line that a program reads, and the process.
fn start_for_a_program(dir: &Path) -> (Up, serde_json::Value) {
    let args = ["up", dir.to_str().unwrap(), "--port", "0", "--volumes", "1", "--stop-at-eof", "--json"];
    let mut command = kvdb(0, &args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Up(child), serde_json::from_str(&line).unwrap())
}

#[test]
fn a_program_gets_free_ports_in_a_line_of_json_and_the_cluster_stops_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, line) = start_for_a_program(&dir.path().join("a"));
    let (_second, other) = start_for_a_program(&dir.path().join("b"));
    assert_ne!(line["master"], other["master"]);
    assert_eq!(line["volumes"], 1);
    let got = kvdb(0, &["ls"]).env("KVDB_MASTER", line["master"].as_str().unwrap()).status().unwrap();
    assert!(got.success());
    drop(first.0.stdin.take());
    assert_eq!(first.0.wait().unwrap().code(), Some(0), "it stops cleanly");
}

#[test]
fn a_directory_in_use_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (_first, _) = start_for_a_program(dir.path());
    let out = kvdb(0, &["up", dir.path().to_str().unwrap(), "--port", "0"]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(out.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&out.stderr).contains("in use"), "{:?}", out.stderr);
}

#[test]
fn a_cluster_of_one_volume_and_an_embedded_store_go_on_with_each_others_directory() {
    use kvdb_embedded::{OpenError, Options, Store};
    let dir = tempfile::tempdir().unwrap();
    let (value, data) = (dir.path().join("value"), dir.path().join("data"));
    std::fs::write(&value, vec![7; 3_000_000]).unwrap();
    let open = || Store::open(Options::plain().at(&data));
    let store = open().unwrap();
    store.create("embedded", vec![5; 1_000_000], None).unwrap();
    store.create("short", "x", Some(std::time::Duration::from_millis(1))).unwrap();
    assert_eq!(kvdb(0, &["up", data.to_str().unwrap(), "--port", "0"]).stderr(Stdio::null()).status().unwrap().code(), Some(6));
    drop(store);

    let (mut up, line) = start_for_a_program(&data);
    let run = |args: &[&str]| kvdb(0, args).env("KVDB_MASTER", line["master"].as_str().unwrap()).output().unwrap();
    assert!(run(&["get", "embedded"]).stdout == vec![5; 1_000_000]);
    assert_eq!(run(&["get", "short"]).status.code(), Some(4));
    assert!(run(&["put", "served", value.to_str().unwrap()]).status.success());
    assert!(run(&["rm", "embedded"]).status.success());
    assert!(matches!(open(), Err(OpenError::AlreadyOpen(_))));
    drop(up.0.stdin.take());
    up.0.wait().unwrap();

    let store = open().unwrap();
    assert!(store.get("served").unwrap().unwrap() == vec![7; 3_000_000]);
    assert_eq!(store.get("embedded").unwrap(), None);
}

#[test]
fn it_serves_other_stores_clients_on_this_machine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (port, held) = free_ports();
    drop(held);
    let port = port.to_string();
    let line = ["up", dir.path().to_str().unwrap(), "--port", &port, "--flatdb"];
    let out = kvdb(0, &[&line[..], &["0.0.0.0:0"]].concat()).output().unwrap();
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("0.0.0.0:0"), "{out:?}");
    let out = kvdb(0, &["up", dir.path().to_str().unwrap(), "--port", &port, "--kvs", "127.0.0.1:0"]).output().unwrap();
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("--tokens"), "{out:?}");
    let tokens = dir.path().join("tokens.json");
    std::fs::write(&tokens, r#"{"tokens":[{"name":"x"}]}"#).unwrap();
    let line = ["up", dir.path().to_str().unwrap(), "--port", &port, "--kvs", "127.0.0.1:0", "--tokens", tokens.to_str().unwrap()];
    let out = kvdb(0, &line).output().unwrap();
    assert!(out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("tokens.json"), "{out:?}");
}

#[test]
fn every_operation_of_the_load_generator_works_through_a_cluster_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_up, port) = Up::start(&dir.path().join("data"));
    for size in ["16", "64K", "1M"] {
        let line = [
            "bench", "put", "get", "range", "lookup", "delete", "thrash", "--json", "--verify", "--count", "4", "--range", "16", "--size",
            size,
        ];
        let out = kvdb(port, &line).stdout(Stdio::piped()).stderr(Stdio::inherit()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{text}");
        assert_eq!(text.lines().filter(|l| l.contains("\"count\":4") && l.contains("\"failures\":0")).count(), 6, "{text}");
    }
    let left = kvdb(port, &["ls"]).stdout(Stdio::piped()).output().unwrap();
    assert!(left.status.success() && left.stdout.is_empty());
}
