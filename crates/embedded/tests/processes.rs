//! Stores of other processes: a second opener, the name that is made up, and `kill -9` at random moments.
//!
//! `KVDB_CRASH_SEED` makes the same choices again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // All of it is a test.

mod common;

use common::{KEYS, WRITERS, act, check, check_space, options, step};
use kvdb_embedded::{OpenError, Store};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROUNDS: u64 = 15;
/// Tells the child its directory, and the steps that its writers have done.
const DIR: &str = "KVDB_EMBEDDED_TEST_DIR";
const DONE: &str = "KVDB_EMBEDDED_TEST_DONE";

#[test]
#[ignore = "it is the other process of the tests here"]
fn child_that_writes() {
    let dir = PathBuf::from(std::env::var_os(DIR).expect("only the other tests start this one"));
    let done: Vec<u64> = std::env::var(DONE).unwrap().split(',').map(|n| n.parse().unwrap()).collect();
    let store = Store::open(options(&dir)).unwrap();
    println!("\nopen");
    std::thread::scope(|scope| {
        for (writer, done) in (0..).zip(done) {
            let store = &store;
            scope.spawn(move || {
                for n in done + 1.. {
                    act(store, &step(writer, n)).unwrap();
                    println!("\ndone {writer} {n}");
                }
            });
        }
    });
}

#[test]
#[ignore = "it is the other process of the tests here"]
fn child_that_opens_the_default() {
    let store = Store::open_default().unwrap();
    store.create("a", r#"{"n":1}"#, None).unwrap();
    println!("\nmade {}", store.dir().display());
}

/// This program again, as one of the children.
fn child(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn start(dir: &Path, done: &[u64]) -> (Running, impl Iterator<Item = String> + use<>) {
    let done = done.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let mut running = Running(child("child_that_writes").env(DIR, dir).env(DONE, done).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|l| l == "open"), "the child did not open the store");
    (running, lines)
}

#[test]
fn a_second_process_gets_an_error_at_once_and_the_store_when_the_first_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("store");
    let (running, _lines) = start(&at, &[0; WRITERS as usize]);
    let error = Store::open(options(&at)).unwrap_err();
    assert!(matches!(error, OpenError::AlreadyOpen(_)), "{error}");
    drop(running);
    Store::open(options(&at)).unwrap();
}

#[test]
fn without_a_directory_a_new_one_is_made_up_in_the_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    let made: Vec<String> = (0..2)
        .map(|_| {
            let output = child("child_that_opens_the_default").current_dir(dir.path()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().find_map(|l| l.strip_prefix("made ")).expect("a name").to_string()
        })
        .collect();
    assert_ne!(made[0], made[1]);
    for name in made {
        assert!(name.starts_with("kvdb-"), "{name}");
        assert_eq!(Store::open(options(&dir.path().join(name))).unwrap().get("a").unwrap().unwrap(), br#"{"n":1}"#);
    }
}

#[test]
fn what_was_acknowledged_is_there_after_kills_at_random_moments_and_nothing_is_half_done() {
    let seed = std::env::var("KVDB_CRASH_SEED").map_or(u64::from(std::process::id()), |t| t.parse().expect("a number"));
    println!("KVDB_CRASH_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("store");
    let mut done = vec![0; WRITERS as usize];
    let mut more_than_told = 0;
    for round in 0..ROUNDS {
        let (mut running, lines) = start(&at, &done);
        let wait = Duration::from_millis(10 + (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round * 7_919) >> 7) % 250);
        let before: u64 = done.iter().sum();
        let reader = std::thread::spawn(move || lines.collect::<Vec<_>>());
        std::thread::sleep(wait);
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        for line in reader.join().unwrap() {
            if let Some((writer, n)) = line.strip_prefix("done ").and_then(|l| l.split_once(' ')) {
                done[writer.parse::<usize>().unwrap()] = n.parse().unwrap();
            }
        }
        let store = Store::open(options(&at)).unwrap();
        for (writer, done) in (0..).zip(&mut done) {
            if check(&store, writer, *done) {
                *done += 1;
                more_than_told += 1;
            }
        }
        println!("killed after {wait:?}: {} steps acknowledged", done.iter().sum::<u64>() - before);
        std::io::stdout().flush().unwrap();
        check_space(&store);
    }
    let steps: u64 = done.iter().sum();
    println!("{ROUNDS} kills, {steps} steps, of which {more_than_told} were done and not told");
    assert!(steps > ROUNDS * KEYS, "hardly anything was done");
}
