//! Many clients over few keys, while a nemesis kills, stops and cuts: what they saw of each key must be linearizable, and so must what
//! they saw of some keys that batches and transactions write together.
//!
//! `KVDB_LINEAR_SECONDS` is how long the load runs (default 20), `KVDB_LINEAR_SEED` makes the same choices again.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod batch;
mod client;
mod content;
mod nemesis;
mod network;
mod tally;
mod transaction;
mod write;

use client::{Client, Shared};
use kvdb_tests::linear::{self, Operation, witness};
use kvdb_tests::settled::until_settled;
use network::Network;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tally::Tally;

const CLIENTS: u32 = 16;
const KEYS: usize = 6;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |t| t.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn what_clients_see_under_kills_stops_and_cuts_is_linearizable() {
    let seed = number("KVDB_LINEAR_SEED", u64::from(std::process::id()));
    let seconds = number("KVDB_LINEAR_SECONDS", 20);
    println!("KVDB_LINEAR_SEED={seed} KVDB_LINEAR_SECONDS={seconds}");
    let mut network = Network::start();
    let shared = Shared::new(KEYS);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, seed)).collect();
    let stop = AtomicBool::new(false);
    let faults = std::thread::scope(|scope| {
        // However this ends, the clients must: the scope waits for them.
        let _stop = StopAtEnd(&stop);
        for client in &mut clients {
            let (stop, shared, master) = (&stop, &shared, network.for_clients());
            scope.spawn(move || client.work(&master, shared, stop));
        }
        let faults = nemesis::work(&mut network, seed, Instant::now() + Duration::from_secs(seconds));
        network.cluster.wait_all_up();
        // What waits in servers and proxies gets time to be done, and to be seen.
        std::thread::sleep(Duration::from_secs(1));
        faults
    });
    network.cluster.wait_all_up();
    for key in 0..KEYS {
        assert!(clients[0].get(key, &network.for_clients(), &shared), "a key cannot be read with all servers up");
    }
    assert!(clients[0].read_group(&network.for_clients(), &shared), "keys cannot be read with all servers up");
    let mut tally = Tally::default();
    clients.iter().for_each(|c| tally.add(&c.tally));
    println!("{faults:?}\n{tally:?}");
    // The last one is of the keys that batches write.
    let operations: Vec<Vec<Operation>> = shared.histories.iter().chain([&shared.group]).map(linear::History::operations).collect();
    let since = Instant::now();
    for (key, history) in operations.iter().enumerate() {
        if linear::check(history).is_err() {
            fail(seed, key, history);
        }
    }
    println!(
        "{} operations, {} writes, {:.2} % of unknown outcome, 0 violations (checked in {:?})",
        operations.iter().map(Vec::len).sum::<usize>(),
        tally.writes(),
        tally.unknown_percent(),
        since.elapsed()
    );
    assert!(
        tally.writes() > 100 && tally.reads > 100 && tally.batches > 20 && tally.transactions > 5,
        "hardly anything was done: {tally:?}"
    );
    assert!(tally.unknown_percent() < 1.0, "too many writes of unknown outcome: {tally:?}");
    network.take_proxies_out();
    println!("settled after {:?}", until_settled(&network.cluster));
}

/// Keeps the history and shows why it fits no register.
fn fail(seed: u64, key: usize, history: &[Operation]) -> ! {
    let path = std::env::temp_dir().join(format!("kvdb-linear-{seed}-key-{key}.txt"));
    let lines: Vec<String> = history.iter().map(ToString::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let why = witness::describe(&witness::shrink(history));
    panic!("key {key}: there is no order of these (times in µs; all operations are in {}):\n{why}", path.display());
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
