//! A program that writes to a store from several threads, and what must be there whenever it was cut off.

use kvdb_embedded::{Error, Options, Store};
use kvdb_tests::values::value;
use std::path::Path;

pub const WRITERS: u64 = 4;
/// Keys of each writer.
pub const KEYS: u64 = 6;
/// Three kinds of value: in the index, in a file, in a file of several subtrees.
const LENGTHS: [usize; 3] = [700, 90_000, 600_001];

/// What a writer does n-th: to which key, and with what it leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub key: String,
    /// None: it is deleted.
    pub value: Option<Vec<u8>>,
}

/// `n` counts from 1. Each key is created, replaced and deleted in turn.
pub fn step(writer: u64, n: u64) -> Step {
    let (key, turn) = (n % KEYS, n / KEYS);
    let len = LENGTHS[((n + writer) % 3) as usize] + (n % 97) as usize;
    Step { key: format!("{writer}/{key}"), value: (turn % 3 != 2).then(|| value(len, writer * 1_000_003 + n)) }
}

pub fn options(dir: &Path) -> Options {
    Options::plain().at(dir)
}

pub fn act(store: &Store, step: &Step) -> Result<(), Error> {
    let there = store.get(&step.key)?.is_some();
    match &step.value {
        None => store.delete(&step.key).map(|was| assert_eq!(was, there)),
        Some(value) if there => store.put(&step.key, value, None).map(|new| assert!(!new)),
        Some(value) => store.create(&step.key, value, None),
    }
}

/// Whether the store has what the first `acknowledged` steps of a writer left, and of the next one all or nothing. Says whether it was done.
pub fn check(store: &Store, writer: u64, acknowledged: u64) -> bool {
    let left_by = |last: u64, key: &str| (1..=last).rev().map(|n| step(writer, n)).find(|s| s.key == key).and_then(|s| s.value);
    let next = step(writer, acknowledged + 1);
    let mut next_done = false;
    for key in (0..KEYS).map(|key| format!("{writer}/{key}")) {
        let (found, before) = (store.get(&key).unwrap(), left_by(acknowledged, &key));
        if key == next.key && found != before {
            assert!(found == next.value, "{key} has neither what was there before step {} nor what it brings", acknowledged + 1);
            next_done = true;
        } else {
            assert!(found == before, "{key} has not what step {acknowledged} left");
        }
    }
    next_done
}

/// Checks that there are these values and no other bytes, once the space of the others was given back.
pub fn check_space(store: &Store) {
    let values = || -> Vec<_> { store.keys("").map(|k| store.get(k.unwrap().as_bytes()).unwrap().unwrap()).collect() };
    let files = values().iter().filter(|v| v.len() > 64 << 10).count();
    let blobs = store.dir().join("volume1/blobs");
    kvdb_tests::eventually("there is a file for each large value and no other", || {
        (kvdb_tests::cluster::files_below(&blobs).len() == files).then_some(())
    });
}
