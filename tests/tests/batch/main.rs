//! `POST /?batch`: several keys put and deleted together, all or none.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod atomic;
mod command;
mod crash;

use kvdb_tests::{Answer, Cluster, Request};
use serde_json::{Value, json};

/// The request of a batch.
fn batch(operations: &Value) -> Request {
    Request::post("/?batch", json!({ "operations": operations }).to_string())
}

/// Sends a batch, which must be done.
#[track_caller]
fn done(cluster: &Cluster, operations: &Value) -> Vec<Value> {
    cluster.ask(&batch(operations)).expect(200).json()["results"].as_array().unwrap().clone()
}

fn statuses(results: &[Value]) -> Vec<u64> {
    results.iter().map(|r| r["status"].as_u64().unwrap()).collect()
}

/// The keys that a refusal names.
#[track_caller]
fn named(answer: &Answer) -> Value {
    answer.json()["keys"].clone()
}
