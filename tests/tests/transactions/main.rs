//! `/?txn`: values uploaded one by one that become visible together.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod command;
mod given_up;
mod kills;
mod power_cut;
mod rebuilt;
mod refused;
mod story;
mod volumes_gone;
#[path = "../power_cut/world.rs"]
mod world;

use kvdb_tests::values::value;
use kvdb_tests::{Answer, Cluster, Request};
use serde_json::Value;

/// Keys of a transaction where nothing else is said: small and large values, so that both ways of storing them are met.
const KEYS: usize = 4;

/// Begins a transaction.
#[track_caller]
fn begin(cluster: &Cluster) -> String {
    let answer = cluster.ask(&Request::post("/?txn", "")).expect(201).json();
    answer["txn"].as_str().unwrap().to_string()
}

/// Puts a value into it, redirects followed.
#[track_caller]
fn stage(cluster: &Cluster, txn: &str, key: &str, bytes: &[u8]) -> Answer {
    cluster.follow(&Request::put(&format!("{key}?txn={txn}"), bytes))
}

fn commit(txn: &str) -> Request {
    Request::post(&format!("/?txn={txn}&commit"), "")
}

fn abort(txn: &str) -> Request {
    Request::post(&format!("/?txn={txn}&abort"), "")
}

fn show(txn: &str) -> Request {
    Request::get(&format!("/?txn={txn}"))
}

fn content(round: u64, i: usize) -> Vec<u8> {
    value(if i.is_multiple_of(2) { 100 } else { 200_000 }, round * 100 + i as u64)
}

/// The round of which all keys have their values, none if there are no keys; panics where they differ.
#[track_caller]
fn round_of(cluster: &Cluster, rounds: u64) -> Option<u64> {
    let values: Vec<Option<Vec<u8>>> = (0..KEYS)
        .map(|i| {
            let answer = cluster.get(&format!("/k{i}"));
            (answer.status != 404).then(|| answer.expect(200).body)
        })
        .collect();
    if values.iter().all(Option::is_none) {
        return None;
    }
    let whole = (0..rounds).find(|round| (0..KEYS).all(|i| values[i].as_deref() == Some(content(*round, i).as_slice())));
    assert!(whole.is_some(), "half of a transaction: {:?}", values.iter().map(|v| v.as_ref().map(Vec::len)).collect::<Vec<_>>());
    whole
}

/// Number of keys that a volume's index holds as prepared.
fn prepared(cluster: &Cluster) -> u64 {
    let status = cluster.status();
    status["volumes"].as_array().unwrap().iter().filter_map(|v| v["status"]["prepared"].as_u64()).sum()
}

fn keys(cluster: &Cluster) -> Value {
    cluster.ask(&Request::get("/?list")).expect(200).json()["keys"].clone()
}
