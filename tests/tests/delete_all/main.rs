//! `POST /prefix?delete-all` and `kvdb rm --prefix`: all keys of a prefix deleted.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod command;
mod kills;
mod pages;

use kvdb_tests::{Cluster, Request};
use serde_json::{Value, json};

/// One page.
#[track_caller]
fn page(cluster: &Cluster, target: &str) -> Value {
    cluster.ask(&Request::post(target, "")).expect(200).json()
}

/// Stores small values, many at a time.
#[track_caller]
fn fill(cluster: &Cluster, keys: impl Iterator<Item = String>) {
    for some in keys.collect::<Vec<_>>().chunks(250) {
        let operations: Vec<Value> = some.iter().map(|key| json!({"put": key, "value": "x"})).collect();
        cluster.ask(&Request::post("/?batch", json!({ "operations": operations }).to_string())).expect(200);
    }
}

/// Number of keys that begin with a prefix.
#[track_caller]
fn count(cluster: &Cluster, prefix: &str) -> usize {
    let page = cluster.ask(&Request::get(&format!("/{prefix}?list&limit=10000"))).expect(200).json();
    assert_eq!(page["next"], "");
    page["keys"].as_array().unwrap().len()
}
