//! `kill -9` of the master or a volume at random moments, under load.
//!
//! `KVDB_CRASH_ROUNDS` is the number of kills (default 40), `KVDB_CRASH_SEED` makes the same choices again.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod content;
mod send;
mod shared;
mod tally;
mod writer;

use content::Random;
use kvdb_tests::Cluster;
use kvdb_tests::settled::until_settled;
use shared::Shared;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tally::Tally;
use writer::Writer;

const WRITERS: u64 = 16;
const VOLUMES: usize = 2;
/// Kills between two checks.
const BLOCK: u64 = 10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn acknowledged_writes_survive_kills_at_random_moments_and_no_orphan_stays() {
    let seed = number("KVDB_CRASH_SEED", u64::from(std::process::id()));
    let rounds = number("KVDB_CRASH_ROUNDS", 40);
    println!("KVDB_CRASH_SEED={seed} KVDB_CRASH_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let mut cluster = Cluster::builder(VOLUMES).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|n| Writer::new(n, seed)).collect();
    let shared = Shared::new();
    let mut killed = 0;
    while killed < rounds {
        let kills = BLOCK.min(rounds - killed);
        under_load(&mut cluster, &mut writers, &shared, |cluster| {
            for _ in 0..kills {
                std::thread::sleep(Duration::from_millis(20 + random.below(180)));
                cluster.kill_and_start(random.below(VOLUMES as u64 + 1));
            }
        });
        killed += kills;
        check(&cluster, &writers, &shared, false);
    }
    let settled = until_settled(&cluster);
    check(&cluster, &writers, &shared, true);
    let mut tally = Tally::default();
    writers.iter().for_each(|w| tally.add(&w.tally));
    println!("{killed} kills, settled {settled:?} after the last: {tally:?}");
    assert!(tally.acknowledged > rounds && tally.reads > rounds, "hardly anything was done: {tally:?}");
}

fn check(cluster: &Cluster, writers: &[Writer], shared: &Shared, settled: bool) {
    writers.iter().for_each(|w| w.check(cluster, settled));
    shared.check(cluster, settled);
}

/// Does this while all writers work, and ends with all servers up and no writer at work.
fn under_load(cluster: &mut Cluster, writers: &mut [Writer], shared: &Shared, work: impl FnOnce(&mut Cluster)) {
    let (stop, master) = (AtomicBool::new(false), cluster.master_addr());
    std::thread::scope(|scope| {
        // However this ends, the writers must: the scope waits for them.
        let _stop = StopAtEnd(&stop);
        for writer in writers {
            let (stop, master) = (&stop, master.as_str());
            scope.spawn(move || writer.work(master, shared, stop));
        }
        work(cluster);
        cluster.wait_all_up();
        std::thread::sleep(Duration::from_millis(200));
    });
    cluster.wait_all_up();
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
