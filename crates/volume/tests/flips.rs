//! One bit of a volume's index flips while it is down: whatever is served afterwards is right.
//!
//! What the index loses, the other replicas have; the cluster's tests of scrub and repair bring it back. Blob files have
//! such tests beside the store. `KVDB_FAULT_ROUNDS` is the number of flips (default 30), `KVDB_FAULT_SEED` repeats them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // All of it is a test.

use kvdb_protocol::message::{Deleted, Entry, ReclaimItem};
use kvdb_protocol::{Key, UnixMillis, VersionId, VolumeId};
use kvdb_tests::values::value;
use kvdb_volume::store::{NewValue, Store, StoreOptions};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const VALUES: u64 = 160;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap())
}

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { keep_free_bytes: 0, direct_io: false, ..StoreOptions::new(dir) }
}

struct Value {
    key: Key,
    version: VersionId,
    bytes: Vec<u8>,
    deleted: bool,
}

/// Small values, more than a table of the index takes at once, and some files; closed and opened once.
fn make(dir: &Path) -> Vec<Value> {
    let mut values = Vec::new();
    let replicas = vec![VolumeId::random(), VolumeId::random()];
    for half in 0..2 {
        let store = Store::open(options(dir)).unwrap();
        for n in (0..VALUES).filter(|n| n % 2 == half) {
            let len = if n % 20 == 0 { 70_000 } else { 100 + (n as usize * 977) % 60_000 };
            let (key, version) = (Key::new(format!("key-{n}")).unwrap(), VersionId::from_parts(1_700_000_000_000 + n, u128::from(n)));
            let (bytes, never) = (value(len, n), UnixMillis(u64::MAX - 1));
            let new = NewValue {
                key: key.clone(),
                version,
                len: Some(len as u64),
                max_len: 1 << 20,
                content_type: Some("text/plain".into()),
                expires: None,
                commit_by: never,
                replicas: replicas.clone(),
            };
            let mut staged = store.begin(new).unwrap();
            staged.write(&bytes).unwrap();
            staged.finish().unwrap();
            assert!(store.mark_committed(&key, version, n).unwrap());
            let deleted = n % 10 == 3;
            if deleted {
                let how = Deleted { seq: VALUES + n, time: UnixMillis(1_800_000_000_000) };
                store.remove(&[ReclaimItem { key: key.clone(), version, deleted: Some(how) }]).unwrap();
            }
            values.push(Value { key, version, bytes, deleted });
        }
    }
    values
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    NoHarm,
    /// It was not opened.
    Refused,
    /// A new index was made, without the small values.
    MadeAnew,
    /// Reads say that something is damaged.
    ReadsRefused,
    /// Something is not here, and nothing was said.
    Missing,
}

fn look(dir: &Path, values: &[Value]) -> Result<Came, String> {
    let Ok(store) = Store::open(options(dir)) else { return Ok(Came::Refused) };
    let anew = std::fs::read_dir(dir).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with("index.damaged"));
    let mut came = if anew { Came::MadeAnew } else { Came::NoHarm };
    for v in values {
        let name = &v.key;
        let stored = match store.get(&v.key, v.version) {
            Ok(Some(stored)) => stored,
            Ok(None) if v.deleted || anew => continue,
            Ok(None) => {
                came = Came::Missing;
                continue;
            }
            Err(_) => {
                came = came.max(Came::ReadsRefused);
                continue;
            }
        };
        // Prepared again, as after a lost removal: the master decides.
        if v.deleted && stored.entry.seq.is_some() {
            return Err(format!("{name} is deleted, and is committed here"));
        }
        if stored.entry.content_type.as_deref() != Some("text/plain") || stored.entry.expires.is_some() {
            return Err(format!("{name} has another record: {:?}", stored.entry));
        }
        let mut at = 0;
        for i in 0..stored.subtree_count() {
            match stored.read_subtree(i) {
                Ok(bytes) if v.bytes.get(at..at + bytes.len()) == Some(&bytes) => at += bytes.len(),
                Ok(_) => return Err(format!("{name} has wrong bytes")),
                Err(_) => {
                    came = came.max(Came::ReadsRefused);
                    at = v.bytes.len();
                    break;
                }
            }
        }
        if at != v.bytes.len() {
            return Err(format!("{name} has {at} bytes instead of {}", v.bytes.len()));
        }
    }
    match store.entries(None, 10_000) {
        Ok((entries, _)) if came == Came::NoHarm => {
            let there = entries.iter().filter(|e| matches!(e, Entry::Value(_))).count();
            let expected = values.iter().filter(|v| !v.deleted).count();
            if there != expected { Err(format!("{there} entries instead of {expected}")) } else { Ok(came) }
        }
        Ok(_) => Ok(came),
        Err(_) => Ok(came.max(Came::ReadsRefused)),
    }
}

#[test]
fn a_flipped_bit_in_the_index_never_brings_a_wrong_byte_or_a_deleted_value() {
    let seed = number("KVDB_FAULT_SEED", u64::from(std::process::id()));
    let rounds = number("KVDB_FAULT_ROUNDS", 30);
    println!("KVDB_FAULT_SEED={seed} KVDB_FAULT_ROUNDS={rounds}");
    let scratch = tempfile::tempdir().unwrap();
    let (whole, flipped) = (scratch.path().join("whole"), scratch.path().join("flipped"));
    let values = make(&whole);
    let copy = || {
        let _none = std::fs::remove_dir_all(&flipped);
        assert!(Command::new("cp").args(["-a", "--sparse=always"]).args([&whole, &flipped]).status().unwrap().success());
    };
    copy();
    assert_eq!(look(&flipped, &values), Ok(Came::NoHarm), "without a flip");
    let (mut came, mut harm) = (BTreeMap::new(), Vec::new());
    for round in 0..rounds {
        copy();
        let hash = blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat());
        let [a, b, ..] = hash.as_bytes().as_chunks::<8>().0 else { panic!("a hash has 32 bytes") };
        // Every file as often as any other, and in it what is used: the engine makes its journal far too long.
        let mut found: Vec<_> = files(&flipped.join("index")).into_iter().filter(|f| used(f) > 0).collect();
        found.sort();
        let path = &found[(u64::from_le_bytes(*a) >> 8) as usize % found.len()];
        let (at, bit) = (u64::from_le_bytes(*b) % used(path), 1 << (a[0] & 7));
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let kind = if path.extension().is_some_and(|e| e == "jnl") { "journal" } else { "other" };
        match look(&flipped, &values) {
            Ok(c) => *came.entry((kind, c)).or_insert(0) += 1,
            Err(what) => harm.push(format!("round {round}, {} byte {at}: {what}", path.strip_prefix(&flipped).unwrap().display())),
        }
    }
    println!("{came:?}, {} with harm", harm.len());
    assert!(harm.is_empty(), "{} of {rounds}:\n{}", harm.len(), harm.join("\n"));
}

/// Bytes that the file has on the disk.
fn used(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let m = path.metadata().unwrap();
    m.len().min(m.blocks() * 512)
}
