//! Export, import and rebuild against the catalog that they replace, after a random history.

use super::{done, exported, kvdb, listed, of_kind};
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};

const SEED: &str = "KVDB_CATALOG_SEED";
const OPERATIONS: &str = "KVDB_CATALOG_OPERATIONS";
const CLIENTS: u64 = 8;

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB).rotate_left(31) % n
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Puts, overwrites, creates and deletes by several clients, each with keys of its own; what must be there then.
fn history(cluster: &Cluster, seed: u64, operations: u64) -> BTreeMap<String, Vec<u8>> {
    let client = |client: u64| {
        let (mut dice, mut there) = (Dice(seed ^ (client << 32)), BTreeMap::new());
        for n in 0..operations / CLIENTS {
            // Two of three operations are on keys that were not used before.
            let used = if dice.below(3) == 0 { dice.below(n + 1) } else { n };
            let target = format!("/{client}/{:02x}%00%ff{used}", used % 251);
            let len = if dice.below(40) == 0 { 70_000 + dice.below(300_000) } else { dice.below(200) };
            let bytes = value(usize::try_from(len).unwrap(), seed ^ n);
            match dice.below(10) {
                0..=1 => {
                    let answer = cluster.follow(&Request::delete(&target));
                    assert_eq!(answer.status, if there.remove(&target).is_some() { 200 } else { 404 }, "{answer}");
                }
                2..=4 => {
                    let answer =
                        cluster.follow(&Request::post(&target, bytes.as_slice()).header("Content-Type", "text/x-made").expect_continue());
                    assert_eq!(answer.status, if there.contains_key(&target) { 409 } else { 201 }, "{answer}");
                    there.entry(target).or_insert(bytes);
                }
                _ => {
                    cluster.put(&target, &bytes);
                    there.insert(target, bytes);
                }
            }
        }
        there
    };
    std::thread::scope(|s| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| s.spawn(move || client(n))).collect();
        clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
    })
}

/// Records without what only a repeated commit needs, which a rebuild does not bring back.
fn records(lines: &[Value]) -> Vec<Value> {
    let mut records = of_kind(lines, "record");
    records.iter_mut().for_each(|r| drop(r.as_object_mut().unwrap().remove("created")));
    records
}

#[test]
fn after_a_random_history_an_import_and_a_rebuild_bring_the_catalog_that_was_exported() {
    let seed = number(SEED).unwrap_or_else(|| RandomState::new().hash_one(0u8));
    let operations = number(OPERATIONS).unwrap_or(3_200);
    println!("{SEED}={seed} {OPERATIONS}={operations}");
    let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "5", "--commit-seconds", "5"]).start();
    let there = history(&cluster, seed, operations);
    until_settled(&cluster);
    let (before, list) = (exported(&cluster), listed(&cluster));
    assert_eq!(records(&before).len(), there.len());
    assert!(operations < 3_200 || there.len() > 1_000, "{} keys: less than a page of a volume's index", there.len());
    let file = cluster.dir().join("saved.jsonl");
    let file = file.to_str().unwrap();
    let told = done(&kvdb(&cluster, &["catalog", "export", file, "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), json!({ "file": file, "records": there.len() }));
    let db = cluster.db_dir();
    let db = db.to_str().unwrap().to_string();

    cluster.stop_master();
    fs::remove_dir_all(&db).unwrap();
    done(&kvdb(&cluster, &["catalog", "import", file, &db]));
    cluster.start_master();
    cluster.wait_all_up();
    let imported = exported(&cluster);
    for kind in ["record", "volume", "reclaim"] {
        assert!(of_kind(&imported, kind) == of_kind(&before, kind), "an import changed a line of kind {kind}; seed {seed}");
    }
    assert!(listed(&cluster) == list);

    cluster.stop_master();
    fs::remove_dir_all(&db).unwrap();
    let volumes = format!("{},{}", cluster.volume_addr(0), cluster.volume_addr(1));
    done(&kvdb(&cluster, &["rebuild", &volumes, &db]));
    cluster.start_master();
    cluster.wait_all_up();
    let rebuilt = exported(&cluster);
    assert!(records(&rebuilt) == records(&before), "a rebuild changed a record; seed {seed}");
    assert!(listed(&cluster) == list);
    until_settled(&cluster);
    for (target, bytes) in there.iter().step_by(37) {
        assert!(cluster.value(target) == *bytes, "{target}; seed {seed}");
    }
}

#[test]
fn an_export_appears_whole_or_not_at_all_and_needs_the_secret() {
    let mut cluster = Cluster::start(2);
    cluster.put("/key", b"value");
    let file = cluster.dir().join("saved.jsonl");
    let mut wrong = std::process::Command::new(kvdb_tests::process::program("kvdb"));
    let refused = wrong.args(["catalog", "export", "-", "--secret", "0123456789abcdef0123", "--master", &cluster.url()]).output().unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty());
    fs::write(&file, "the last one").unwrap();
    cluster.stop_master();
    let failed = kvdb(&cluster, &["catalog", "export", file.to_str().unwrap()]);
    assert!(!failed.status.success());
    assert_eq!(fs::read_to_string(&file).unwrap(), "the last one");
    cluster.start_master();
    cluster.wait_all_up();
    done(&kvdb(&cluster, &["catalog", "export", file.to_str().unwrap()]));
    let text = fs::read_to_string(&file).unwrap();
    let db = cluster.dir().join("new");
    fs::write(&file, &text[..text.len() - 2]).unwrap();
    let cut = kvdb(&cluster, &["catalog", "import", file.to_str().unwrap(), db.to_str().unwrap()]);
    assert!(!cut.status.success() && String::from_utf8_lossy(&cut.stderr).contains("not whole"), "{cut:?}");
    fs::write(&file, &text).unwrap();
    done(&kvdb(&cluster, &["catalog", "import", file.to_str().unwrap(), db.to_str().unwrap()]));
    let running = kvdb(&cluster, &["catalog", "import", file.to_str().unwrap(), cluster.db_dir().to_str().unwrap()]);
    assert!(!running.status.success(), "a catalog that is there was replaced");
}
