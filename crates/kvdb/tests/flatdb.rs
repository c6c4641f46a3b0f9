//! `kvdb flatdb` and `flatdb` as a user starts and stops them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop here")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const PROGRAMS: [&[&str]; 2] = [&[env!("CARGO_BIN_EXE_kvdb"), "flatdb"], &[env!("CARGO_BIN_EXE_flatdb")]];

fn command(program: &[&str], args: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A store that is killed when the test ends.
struct Store {
    child: Child,
    address: String,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Store {
    /// Starts it on a free port, and waits for its word that it is ready.
    fn start(program: &[&str], dir: &Path) -> Self {
        let args = ["-p", "0", "-H", "localhost", "--database", dir.to_str().unwrap(), "-d"];
        let mut child = command(program, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first = lines.find(|l| l.starts_with("FlatDB is up: ")).unwrap();
        let address = first.split(['/', ',']).nth(2).unwrap().to_string();
        Self { child, address }
    }

    /// Status and body of a GET.
    fn get(&self, target: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
    }

    fn terminate(mut self) -> Option<i32> {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

fn failed(code: i32, program: &[&str], args: &[&str]) -> String {
    let Output { status, stderr, .. } = command(program, args).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

#[test]
fn both_programs_serve_one_directory_that_outlives_stops_and_kills() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/data");
    for (round, program) in PROGRAMS.iter().cycle().take(4).enumerate() {
        let store = Store::start(program, &data);
        if round > 0 {
            let (status, body) = store.get("/get?key=foo&key=last");
            assert_eq!((status, body), (200, format!(r#"{{"foo":"bar","last":"{}"}}"#, round - 1)));
        }
        assert_eq!(store.get(&format!("/put?foo=bar&last={round}")).0, 201);
        assert_eq!(store.get("/delete?key=never").0, 200);
        if round % 2 == 0 {
            assert_eq!(store.terminate(), Some(0), "it stops cleanly");
        }
    }
}

#[test]
fn a_second_program_on_the_directory_a_taken_port_and_other_machines_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    let (data, other) = (data.to_str().unwrap(), other.to_str().unwrap());
    let store = Store::start(PROGRAMS[1], data.as_ref());
    let said = failed(6, PROGRAMS[0], &["-p", "0", "-b", data]);
    assert!(said.contains("data"), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = TcpListener::bind(taken).unwrap();
    let said = failed(1, PROGRAMS[1], &["-p", &taken.port().to_string(), "-b", other]);
    assert!(said.contains(&taken.to_string()) && said.contains("--port"), "{said}");
    drop(held);
    let said = failed(1, PROGRAMS[1], &["-H", "0.0.0.0", "-p", "0", "-b", other]);
    assert!(said.contains("--insecure"), "{said}");
    assert!(!Path::new(other).exists(), "nothing is half started");
    assert_eq!(store.get("/put?a=1").0, 201);
}
