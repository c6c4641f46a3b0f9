//! One bit of the catalog's database flips while the master is down: it refuses to start, or it says exactly what was there.
//!
//! `KVDB_FAULT_ROUNDS` is the number of flips (default 150), `KVDB_FAULT_SEED` makes the same choices again.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // All of it is a test.

use kvdb_master::catalog::{Catalog, CatalogOptions, CommitDelete, CommitPut, ListQuery, Record};
use kvdb_protocol::message::CommitAnswer;
use kvdb_protocol::ticket::Condition;
use kvdb_protocol::{ContentHash, Key, UnixMillis, VolumeId};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYS: usize = 300;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap())
}

fn key(i: usize) -> Key {
    Key::new(format!("{i}/{}", "k".repeat(100))).unwrap()
}

/// What each key is; none: deleted.
type Expected = BTreeMap<usize, Option<Record>>;

async fn make(dir: &Path) -> Expected {
    let catalog = Catalog::open(CatalogOptions::new(dir)).unwrap();
    let never = UnixMillis(u64::MAX);
    for i in (0..KEYS).chain(0..KEYS / 3) {
        let put = CommitPut {
            key: key(i),
            version: catalog.next_version(),
            create: false,
            condition: Condition::default(),
            commit_by: never,
            len: i as u64,
            hash: ContentHash::of(&i.to_le_bytes()),
            content_type: Some("text/plain".into()),
            expires: None,
            replicas: vec![VolumeId::random(), VolumeId::random()],
        };
        assert!(matches!(catalog.commit(put).await.unwrap(), CommitAnswer::Committed(_)));
        if i % 7 == 3 {
            let delete = CommitDelete { key: key(i), version: None, condition: Condition::default(), commit_by: never };
            assert!(matches!(catalog.delete(delete).await.unwrap(), CommitAnswer::Committed(_)));
        }
    }
    let mut expected = Expected::new();
    for i in 0..KEYS {
        expected.insert(i, catalog.lookup(&key(i)).await.unwrap());
    }
    catalog.close().await.unwrap();
    expected
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    paths.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).filter(|p| p.metadata().unwrap().len() > 0).collect()
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Refused,
    ReadsRefused,
    NoHarm,
}

async fn look(dir: &Path, expected: &Expected) -> Result<Came, String> {
    let Ok(catalog) = Catalog::open(CatalogOptions::new(dir)) else { return Ok(Came::Refused) };
    let mut came = Came::NoHarm;
    for (i, record) in expected {
        match catalog.lookup(&key(*i)).await {
            Ok(found) if found == *record => {}
            Ok(found) => return Err(format!("key {i} is {found:?} instead of {record:?}")),
            Err(_) => came = Came::ReadsRefused,
        }
    }
    if let Ok(page) = catalog.list(&ListQuery { limit: 2 * KEYS, ..ListQuery::default() }).await {
        let there = expected.values().flatten().count();
        if page.entries.len() != there {
            return Err(format!("{} keys are listed instead of {there}", page.entries.len()));
        }
    }
    Ok(came)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_database_is_refused_or_does_no_harm() {
    let seed = number("KVDB_FAULT_SEED", u64::from(std::process::id()));
    let rounds = number("KVDB_FAULT_ROUNDS", 150);
    println!("KVDB_FAULT_SEED={seed} KVDB_FAULT_ROUNDS={rounds}");
    let scratch = tempfile::tempdir().unwrap();
    let (whole, flipped) = (scratch.path().join("whole"), scratch.path().join("flipped"));
    let expected = make(&whole).await;
    assert!(Command::new("cp").arg("-a").args([&whole, &flipped]).status().unwrap().success());
    assert_eq!(look(&flipped, &expected).await, Ok(Came::NoHarm), "without a flip");
    let (mut came, mut harm) = (BTreeMap::new(), Vec::new());
    for round in 0..rounds {
        let _none = std::fs::remove_dir_all(&flipped);
        assert!(Command::new("cp").arg("-a").args([&whole, &flipped]).status().unwrap().success());
        let found = files(&flipped);
        let total: u64 = found.iter().map(|f| f.metadata().unwrap().len()).sum();
        let random =
            u64::from_le_bytes(blake3::hash(&[seed.to_le_bytes(), round.to_le_bytes()].concat()).as_bytes()[..8].try_into().unwrap());
        let (mut at, bit) = ((random >> 3) % total, 1 << (random & 7));
        let path = found.iter().find(|f| {
            let len = f.metadata().unwrap().len();
            let here = at < len;
            at -= if here { 0 } else { len };
            here
        });
        let path = path.unwrap();
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let name = path.strip_prefix(&flipped).unwrap().display().to_string();
        match look(&flipped, &expected).await {
            Ok(c) => *came.entry((name.split('.').next().unwrap().to_string(), c)).or_insert(0) += 1,
            Err(what) => harm.push(format!("round {round}, {name} byte {at}: {what}")),
        }
    }
    println!("{came:?}, {} with harm", harm.len());
    assert!(harm.is_empty(), "{} of {rounds}:\n{}", harm.len(), harm[..harm.len().min(20)].join("\n"));
}
