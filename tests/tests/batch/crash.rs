//! Kills at any moment of a batch leave all of it or nothing, and no copies beside it.

use crate::batch;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kvdb_tests::settled::until_settled;
use kvdb_tests::values::value;
use kvdb_tests::{Cluster, Request};
use serde_json::{Value, json};
use std::time::Duration;

const KEYS: usize = 6;
const ROUNDS: u64 = 24;

/// Small and large values, so that both ways of storing them are met.
fn operations(round: u64) -> Value {
    let put = |i: usize| json!({"put": format!("k{i}"), "base64": BASE64_STANDARD.encode(content(round, i))});
    json!((0..KEYS).map(put).collect::<Vec<_>>())
}

fn content(round: u64, i: usize) -> Vec<u8> {
    value(if i.is_multiple_of(2) { 100 } else { 200_000 }, round * 100 + i as u64)
}

/// The round of which all keys have their values; panics where they differ.
fn round_of(cluster: &Cluster) -> Option<u64> {
    let values: Vec<Option<Vec<u8>>> = (0..KEYS)
        .map(|i| {
            let answer = cluster.get(&format!("/k{i}"));
            (answer.status != 404).then(|| answer.expect(200).body)
        })
        .collect();
    if values.iter().all(Option::is_none) {
        return None;
    }
    let whole = (0..ROUNDS).find(|round| (0..KEYS).all(|i| values[i].as_deref() == Some(content(*round, i).as_slice())));
    assert!(whole.is_some(), "half of a batch: {:?}", values.iter().map(|v| v.as_ref().map(Vec::len)).collect::<Vec<_>>());
    whole
}

#[test]
fn kills_of_any_server_leave_all_of_a_batch_or_nothing() {
    let mut cluster = Cluster::builder(2).master_args(["--start-seconds", "2", "--commit-seconds", "3"]).start();
    let mut acknowledged = None;
    for round in 0..ROUNDS {
        let request = batch(&operations(round));
        let address = cluster.master_addr();
        let sender = std::thread::spawn(move || request.try_send(&address).ok().map(|a| a.status));
        // Spread over the time that a batch takes.
        std::thread::sleep(Duration::from_millis(round * 2));
        cluster.kill_and_start(round % 3);
        let status = sender.join().unwrap();
        cluster.wait_all_up();
        let now = round_of(&cluster);
        match status {
            Some(200) => assert_eq!(now, Some(round), "what was acknowledged stands"),
            Some(504) | None => assert!(now == Some(round) || now == acknowledged, "round {round}: {now:?}"),
            Some(_) => assert_eq!(now, acknowledged, "round {round}: what was refused changed something"),
        }
        acknowledged = now;
    }
    until_settled(&cluster);
    assert_eq!(round_of(&cluster), acknowledged);
    assert_eq!(cluster.ask(&Request::get("/?list")).expect(200).json()["keys"].as_array().unwrap().len(), KEYS);
}
