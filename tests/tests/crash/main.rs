//! `kill -9` of the master or a volume at random moments, under load.
//!
//! `KVDB_CRASH_ROUNDS` is the number of kills (default 20), `KVDB_CRASH_SEED` repeats a run.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod writer;

use kvdb_tests::{Cluster, Request};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use writer::{Random, Tally, Writer};

const WRITERS: u64 = 16;
const VOLUMES: usize = 2;
/// Kills between two checks.
const BLOCK: u64 = 10;
/// Until a version in doubt must be settled: start and commit seconds, what the largest value takes at 64 KiB/s, and some.
const BOUNDED: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn acknowledged_writes_survive_kills_at_random_moments_and_no_orphan_stays() {
    let seed = number("KVDB_CRASH_SEED", u64::from(std::process::id()));
    let rounds = number("KVDB_CRASH_ROUNDS", 20);
    println!("KVDB_CRASH_SEED={seed} KVDB_CRASH_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut cluster = Cluster::builder(VOLUMES).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|n| Writer::new(n, seed)).collect();
    let mut killed = 0;
    while killed < rounds {
        let stop = AtomicBool::new(false);
        let master = cluster.master_addr();
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let (stop, master) = (&stop, master.as_str());
                scope.spawn(move || writer.work(master, stop));
            }
            for _ in 0..BLOCK.min(rounds - killed) {
                std::thread::sleep(Duration::from_millis(20 + random.below(180)));
                match random.below(VOLUMES as u64 + 1) {
                    0 => {
                        cluster.kill_master();
                        cluster.start_master();
                    }
                    n => {
                        let i = usize::try_from(n).unwrap() - 1;
                        cluster.kill_volume(i);
                        cluster.start_volume(i);
                    }
                }
                killed += 1;
            }
            cluster.wait_all_up();
            std::thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
        });
        cluster.wait_all_up();
        let settled = until_settled(&cluster);
        for writer in &mut writers {
            writer.check(&cluster);
        }
        println!("{killed} kills: settled after {settled:?}");
    }
    let tally = writers.iter().fold(Tally::default(), |sum, w| sum + w.tally);
    println!("{killed} kills, {tally:?}");
    assert!(tally.acknowledged > rounds, "hardly anything was written: {tally:?}");
}

/// Waits until the volumes hold exactly what the catalog says, and nothing is in doubt.
fn until_settled(cluster: &Cluster) -> Duration {
    let since = Instant::now();
    loop {
        match difference(cluster) {
            None => return since.elapsed(),
            Some(what) => assert!(since.elapsed() < BOUNDED, "after {BOUNDED:?} still: {what}\n{}", cluster.logs()),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn difference(cluster: &Cluster) -> Option<String> {
    let status = cluster.status();
    let listed = cluster.ask(&Request::get("/?list&detail&limit=10000")).expect(200).json();
    for (i, volume) in status["volumes"].as_array().unwrap().iter().enumerate() {
        let keys = listed["keys"].as_array().unwrap();
        let here: Vec<&Value> = keys.iter().filter(|k| k["replicas"].as_array().unwrap().contains(&volume["id"])).collect();
        let files: BTreeSet<String> = cluster.blob_files(i).iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
        let wanted: BTreeSet<String> =
            here.iter().filter(|k| k["len"].as_u64().unwrap() > 65_536).map(|k| k["version"].as_str().unwrap().to_string()).collect();
        if files != wanted {
            return Some(format!("volume {i} has {} blobs, {} of them not in the catalog", files.len(), files.difference(&wanted).count()));
        }
        let state = &volume["status"];
        if state["prepared"] != 0 || state["values"] != here.len() {
            return Some(format!("volume {i} should have {} values: {state}", here.len()));
        }
        let temporary = kvdb_tests::cluster::files_below(&cluster.volume_dir(i).join("tmp"));
        if !temporary.is_empty() {
            return Some(format!("volume {i} has temporary files: {temporary:?}"));
        }
    }
    None
}
